"""What the cache's process and the processes of ranks say to each other: the messages, their bounds, and their bytes.

One datagram is one message: a header of three bytes that every version shares, then MessagePack of one struct. Bytes of blocks
never travel here. Whatever does not fit a bound, a type or the version raises `MessageError`, and changes nothing.

    rank                                       cache
     │ ── Hello: what I hold ──────────────────► │
     │ ◄───────────── Welcome: the memory + fds ─│    or Refused
     │ ── Ready: mapped and pinned ────────────► │    or Refused
     │ ◄─────────── Copy: blocks <-> memory ─────│
     │ ◄─────────── Cancel: that copy ───────────│
     │ ── Done: that copy, and what failed ────► │    one for each Copy, cancelled or not
     │ ── Bye: nothing of mine is under way ───► │
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

PROTOCOL_VERSION: Final = 1
BLOCKS_MAX: Final = 2048
"""Blocks of one `Copy`: so few that the copies of all lanes fit into a socket's buffer."""

MESSAGE_BYTES_MAX: Final = 32 << 10
RANKS_MAX: Final = 1024
REGIONS_MAX: Final = 8
"""Memories that a cache shares, and so files that one message carries."""

_TEXT_MAX = 2000
_MAGIC = b"TR"
_HEADER = _MAGIC + bytes([PROTOCOL_VERSION])

Count = Annotated[int, Meta(ge=0, lt=2**32)]
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Text = Annotated[str, Meta(max_length=_TEXT_MAX)]
Numbers = Annotated[bytes, Meta(max_length=4 * BLOCKS_MAX)]
"""uint32 each, little endian."""


class MessageError(Exception):
    """Bytes are no message of this version. Never leaves `ranks`."""


class Message(msgspec.Struct, frozen=True, tag=True, array_like=True, forbid_unknown_fields=True):
    """Base of all messages."""


class Hello(Message, frozen=True):
    """A rank's first message.

    Attributes:
        geometry: what its blocks are, as `BlockGeometry.fingerprint_parts` tells it.
        head_start, head_stop: the heads that it holds of each block.
    """

    rank: Annotated[int, Meta(ge=0, lt=RANKS_MAX)]
    geometry: Annotated[dict[Text, Text | Number], Meta(max_length=32)]
    head_start: Count
    head_stop: Count
    num_blocks: Count
    device: Annotated[str, Meta(max_length=64)]
    writable: bool


class Region(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A memory that the cache shares; its file comes along.

    Attributes:
        resident: whether its pages are there already, so that a rank may map them all at once.
    """

    num_bytes: Annotated[int, Meta(gt=0, lt=2**44)]
    resident: bool


class Welcome(Message, frozen=True):
    """The cache's answer to `Hello`, with a file descriptor for each region."""

    regions: Annotated[list[Region], Meta(min_length=1, max_length=REGIONS_MAX)]


class Refused(Message, frozen=True):
    """Either side cannot go on, and why. The connection ends."""

    reason: Text


class Ready(Message, frozen=True):
    """A rank has mapped, and for a GPU pinned, the regions."""


class Copy(Message, frozen=True):
    """Copy blocks between a rank's memory and a region.

    Attributes:
        loading: into the rank's memory, else out of it.
        region: index in `Welcome.regions`.
        after_step: the step that must have been enqueued, and its event passed, before a block is touched.
        ids: numbers of blocks in the rank's memory.
        pages: where each begins in the region, in pages of 4096 bytes.
    """

    number: Number
    loading: bool
    region: Annotated[int, Meta(ge=0, lt=REGIONS_MAX)]
    after_step: Number | None
    ids: Numbers
    pages: Numbers


class Cancel(Message, frozen=True):
    """A copy's outcome is not wanted any more: what has not started must not start."""

    number: Number


class Done(Message, frozen=True):
    """A copy touches nothing any more. failure: what went wrong, "" for nothing."""

    number: Number
    failure: Text


class Bye(Message, frozen=True):
    """A rank ends in order: no copy of its is under way."""


ToRank = Welcome | Refused | Copy | Cancel
ToCache = Hello | Ready | Refused | Done | Bye

_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError)  # the latter for text that is none

_encoder = msgspec.msgpack.Encoder()
_to_rank: msgspec.msgpack.Decoder[ToRank] = msgspec.msgpack.Decoder(ToRank)
_to_cache: msgspec.msgpack.Decoder[ToCache] = msgspec.msgpack.Decoder(ToCache)


def encode(message: Message) -> bytes:
    """Return a message's bytes."""
    return _HEADER + _encoder.encode(message)


def decode_for_rank(data: bytes) -> ToRank:
    """Read what a rank received. Raises MessageError."""
    try:
        return _to_rank.decode(_body(data))
    except _DECODE_ERRORS as error:
        raise MessageError(str(error)) from error


def decode_for_cache(data: bytes) -> ToCache:
    """Read what the cache received. Raises MessageError."""
    try:
        return _to_cache.decode(_body(data))
    except _DECODE_ERRORS as error:
        raise MessageError(str(error)) from error


def shortened(text: str) -> str:
    """Return a text that fits into a message."""
    return text if len(text) <= _TEXT_MAX else text[: _TEXT_MAX - 3] + "..."


def _body(data: bytes) -> memoryview:
    if len(data) > MESSAGE_BYTES_MAX:
        raise MessageError(f"a message of more than {MESSAGE_BYTES_MAX} bytes")
    if data[:2] != _MAGIC or len(data) < len(_HEADER):
        raise MessageError("not a message of this protocol")
    if data[2] != PROTOCOL_VERSION:
        raise MessageError(f"a message of version {data[2]}, this side speaks {PROTOCOL_VERSION}: run the same release")
    return memoryview(data)[len(_HEADER) :]
