"""Datagrams of every kind that a node's protocol has: right ones, wrong ones, and what is no datagram at all.

Messages are made from the structs themselves (`msgspec.inspect`), so a new kind or field is covered without a change here.
"""

import builtins
import random
import struct
from collections.abc import Callable
from itertools import chain
from typing import Any, Final, get_args

import msgspec
from msgspec import inspect

from tiercel.node.codec import ToClient, ToNode
from tiercel.node.protocol import HEADER, MAGIC, MESSAGE_BYTES_MAX, PROTOCOL_VERSION, Kind, Message

TO_NODE: Final[tuple[type[Message], ...]] = get_args(ToNode)
TO_CLIENT: Final[tuple[type[Message], ...]] = get_args(ToClient)
HOT_KINDS: Final = (Kind.KEYS, Kind.LOOKUP, Kind.RELEASE, Kind.OPEN, Kind.FORGET, Kind.READ, Kind.FOUND, Kind.HELD)

_EDGES = (0, 1, -1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**63))
_FLOATS = (0.0, -0.0, 1e-300, 86400.0, 86400.1, -1.0, 1e308, float("nan"), float("inf"), float("-inf"))
_TEXTS = ("", "a", "ü", "\0", "../../etc", "x" * 257, "x" * 2001, "\U0001f98a" * 40)
_WILD_SIZES = (0, 1, 15, 16, 17, 32, 300, 3000)
_ALL: Final = tuple(dict.fromkeys((*TO_NODE, *TO_CLIENT)))
_INFOS = dict(zip(_ALL, inspect.multi_type_info(_ALL), strict=True))


class HostileMessages:
    """An endless supply of datagrams from one source of randomness.

    Attributes:
        root: of a namespace that the sender may use.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.root = bytes(16)
        self._last = b"\x90"
        self._ways: tuple[tuple[int, Callable[[], bytes]], ...] = (
            (20, lambda: self.message(rng.choice(_ALL), wildness=0.0)),
            (20, lambda: self.message(rng.choice(_ALL), wildness=0.15)),
            (20, lambda: self._mutated(self.message(rng.choice(_ALL), wildness=0.0))),
            (8, lambda: self._cut(self.message(rng.choice(_ALL), wildness=0.0))),
            (15, self.hot),
            (6, lambda: self._mutated(self.hot())),
            (4, self._noise),
            (3, self._deep),
            (3, self._boastful),
            (1, self._long),
        )
        self._weights = [weight for weight, _ in self._ways]

    def next(self) -> bytes:
        """Make the next datagram, header included (if it has one)."""
        (_, way), *_ = self._rng.choices(self._ways, self._weights)
        return way()

    def message(self, kind: type[Message], *, wildness: float) -> bytes:
        """Make a message of one kind; at 0.0 wildness it is right, above it each part may be of a wrong size or type."""
        body = msgspec.msgpack.encode(self._value(_INFOS[kind], wildness))
        self._last = body
        return HEADER + body

    def hot(self) -> bytes:
        """Make a datagram of the hot path: integers and keys, most of them such as a client sends."""
        rng = self._rng
        kind = rng.choice(HOT_KINDS)
        numbers = {Kind.KEYS: 2, Kind.LOOKUP: 5, Kind.OPEN: 1, Kind.READ: 8, Kind.FOUND: 8}.get(kind, rng.randrange(6))
        width = "Q" if kind is Kind.RELEASE else "I"
        limit = 2 ** (64 if width == "Q" else 32)
        integers = [rng.choice((rng.randrange(4), rng.randrange(limit), limit - 1)) for _ in range(numbers)]
        keys = 1 if kind is Kind.OPEN else rng.choice((0, 1, 2, 64)) if kind in (Kind.KEYS, Kind.LOOKUP) else 0
        named = self.root if kind is Kind.OPEN and rng.random() < 0.8 else rng.randbytes(16 * keys)
        body = struct.pack(f"<{numbers}{width}", *integers) + named
        return MAGIC + bytes((PROTOCOL_VERSION, kind)) + body

    def _mutated(self, datagram: bytes) -> bytes:
        rng, changed = self._rng, bytearray(datagram)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(changed) + 1) if rng.random() < 0.9 else rng.randrange(5)
            way = rng.randrange(5)
            if way == 0:
                changed[at:at] = rng.randbytes(rng.randint(1, 8))
            elif way == 1:
                del changed[at : at + rng.randint(1, 8)]
            elif way == 2:
                changed[at:at] = self._last[: rng.randint(0, 64)]
            elif at < len(changed):
                changed[at] = changed[at] ^ (1 << rng.randrange(8)) if way == 3 else rng.randrange(256)
        return bytes(changed)

    def _cut(self, datagram: bytes) -> bytes:
        return datagram[: self._rng.randrange(len(datagram))]

    def _noise(self) -> bytes:
        return self._rng.choice((b"", HEADER)) + self._rng.randbytes(self._rng.randrange(200))

    def _deep(self) -> bytes:
        return HEADER + self._rng.choice((b"\x91", b"\x81\xa0", b"\x92\xa4Join")) * self._rng.randrange(5000)

    def _boastful(self) -> bytes:
        """A length that nothing follows."""
        opening = self._rng.choice(
            (b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9", b"\x92\xa5Reset\xdd", b"\x93\xa9CountHits\xa0\xc6")
        )
        return HEADER + opening + struct.pack(">I", self._rng.choice((2**32 - 1, 2**31, 2**24, 1000))) + b"x"

    def _long(self) -> bytes:
        return HEADER + self._rng.choice((b"\xc0", b"\xc6", b"\x91", bytes(1))) * (
            MESSAGE_BYTES_MAX - 4 - self._rng.randrange(3)
        )

    def _value(self, info: inspect.Type, wildness: float) -> object:
        rng = self._rng
        if wildness and rng.random() < wildness:
            return self._wild()
        match info:
            case inspect.StructType():
                tag = () if info.tag is None else (info.tag,)
                values = [self._value(field.type, wildness) for field in info.fields]
                if wildness and rng.random() < wildness:
                    values = values[:-1] if rng.random() < 0.5 else [*values, self._wild()]
                return list(chain(tag, values))
            case inspect.UnionType():
                return self._value(rng.choice(info.types), wildness)
            case inspect.ListType():
                most = 3 if info.max_length is None else min(info.max_length, 3)
                return [self._value(info.item_type, wildness) for _ in range(rng.randint(0, most))]
            case inspect.DictType():
                keys = [self._value(info.key_type, 0.0) for _ in range(rng.randint(0, 3))]
                return {key: self._value(info.value_type, wildness) for key in keys}
        return self._leaf(info)

    def _leaf(self, info: inspect.Type) -> object:
        rng = self._rng
        match info:
            case inspect.IntType():
                low = info.ge if info.ge is not None else 0 if info.gt is None else info.gt + 1
                high = info.le if info.le is not None else 2**63 - 1 if info.lt is None else info.lt - 1
                return rng.choice((low, high, rng.randint(low, min(high, low + 8)), rng.randint(low, high)))
            case inspect.FloatType():
                return rng.choice((0.0, 1.5, 86400.0, rng.random()))
            case inspect.StrType():
                return rng.choice(("", "a", "ü", "name", "x" * min(info.max_length or 9, 40)))
            case inspect.BytesType():
                least = info.min_length or 0
                return rng.randbytes(rng.randint(least, min(info.max_length or 64, least + 64)))
            case inspect.BoolType():
                return rng.random() < 0.5
            case inspect.NoneType():
                return None
            case inspect.AnyType() | inspect.CustomType(cls=builtins.object):
                return self._wild()
        raise AssertionError(f"a message holds a {info}: teach this file to make one")

    def _wild(self) -> Any:
        rng = self._rng
        way = rng.randrange(7)
        if way == 0:
            return rng.choice(_EDGES)
        if way == 1:
            return rng.choice(_FLOATS)
        if way == 2:
            return rng.choice(_TEXTS)
        if way == 3:
            return rng.randbytes(rng.choice(_WILD_SIZES))
        if way == 4:
            return [self._wild() for _ in range(rng.randrange(3))]
        if way == 5:
            return {rng.choice(_TEXTS): rng.choice(_EDGES)}
        return rng.choice((None, True, False))
