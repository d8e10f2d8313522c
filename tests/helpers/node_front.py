"""A front with its listener in a folder, and peers that say whatever a test wants."""

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tiercel._native import Index, NodeCall, NodeFront, NodeFrontLimits, Sequence
from tiercel.node.protocol import MAGIC, PROTOCOL_VERSION, Kind

ROOT = bytes(range(16))
TOKENS_PER_BLOCK = 16
PATIENCE_S = 10.0
CLIENT = 7


def datagram(kind: int, body: bytes = b"") -> bytes:
    return MAGIC + bytes([PROTOCOL_VERSION, kind]) + body


def opening(number: int, root: bytes = ROOT) -> bytes:
    return datagram(Kind.OPEN, struct.pack("<I", number) + root)


def lookup_of(number: int, keys: bytes, *, first_block: int = 0, limit_blocks: int = 1 << 20) -> bytes:
    return datagram(Kind.LOOKUP, struct.pack("<5I", 1, number, limit_blocks, 0, first_block) + keys)


def sequence_of(num_blocks: int, seed: int = 1) -> Sequence:
    tokens = np.random.default_rng(seed).integers(0, 1000, num_blocks * TOKENS_PER_BLOCK, dtype=np.int32)
    return Sequence(ROOT, TOKENS_PER_BLOCK, tokens)


def store(index: Index, sequence: Sequence) -> None:
    index.commit(index.reserve(sequence, 0, owner=1))


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.001)


class FrontHarness:
    """A front over an index, and the events that were taken from it."""

    def __init__(self, folder: Path, limits: NodeFrontLimits, num_slots: int = 4096) -> None:
        self.path = str(folder / "node.sock")
        self.index = Index([num_slots])
        self._open = contextlib.ExitStack()
        listener = self._open.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener.bind(self.path)
        listener.listen(64)
        self.front = NodeFront(listener.fileno(), self.index, limits)
        self.events: list[tuple[object, ...]] = []

    def close(self) -> None:
        self.front.close()
        self._open.close()

    def dial(self) -> socket.socket:
        """Connect, and no more."""
        peer = self._open.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        peer.settimeout(PATIENCE_S)
        peer.connect(self.path)
        return peer

    def connect(self) -> tuple[socket.socket, int]:
        """Connect, and wait until the front has told so: the socket and the connection's number."""
        peer = self.dial()
        return peer, int(str(self.wait_for("connected")[1]))

    def join(self, client: int = CLIENT, *, calls: bool = False, root: bytes = ROOT) -> socket.socket:
        """Connect, and be admitted."""
        peer, connection = self.connect()
        self.front.admit(connection, client, calls)
        self.front.allow_root(client, root)
        return peer

    def call(self, client: int = CLIENT) -> NodeCall:
        return NodeCall(self.join(client, calls=True).fileno())

    def wait_for(self, kind: str) -> tuple[object, ...]:
        """The next event of that kind; those before it are dropped."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            while self.events:
                event = self.events.pop(0)
                if event[0] == kind:
                    return event
            self.events += self.front.next(0.1)
        raise AssertionError(f"no {kind!r} event came")

    @property
    def num_pinned(self) -> int:
        return self.index.stats(0).num_pinned


@contextlib.contextmanager
def running_front(folder: Path, limits: NodeFrontLimits | None = None) -> Iterator[FrontHarness]:
    harness = FrontHarness(folder, limits or NodeFrontLimits(tokens_per_block=TOKENS_PER_BLOCK))
    try:
        yield harness
    finally:
        harness.close()
