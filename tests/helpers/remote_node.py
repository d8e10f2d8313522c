"""A door for remote clients with a handler that remembers what it was asked, in place of a node."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tests.helpers.telemetry_samples import sample_snapshot
from tiercel.hashing import root_key
from tiercel.node.calls import (
    AskHitCurve,
    AskStats,
    CountHits,
    HitCurveAnswer,
    Hits,
    Okay,
    OpenNamespace,
    PrefetchKeys,
    Reset,
    Root,
    Stats,
    Status,
)
from tiercel.node.codec import Answer, Call
from tiercel.node.remote import DoorLimits, RemoteDoor, read_server_keys
from tiercel.node.remote.keys import make_client_keys, make_server_keys

TOKENS_PER_BLOCK = 16
STATUS = Status("1", 7, 0.0, [], {"load": 2}, 0, 0, 0, 0, {})


class AskedNode:
    """Answers every call in the simplest way that is right, and keeps (client, namespaces, call) of each."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, frozenset[str], Call]] = []

    def __call__(self, client: str, namespaces: frozenset[str], call: Call) -> Answer:
        self.asked.append((client, namespaces, call))
        match call:
            case OpenNamespace():
                return Root(root_key(bytes(32), call.name), TOKENS_PER_BLOCK)
            case CountHits() | PrefetchKeys():
                return Hits(len(call.keys) // 16)
            case AskStats():
                return Stats(msgspec.json.encode(sample_snapshot()))
            case AskHitCurve():
                return HitCurveAnswer(b"[]")
            case Reset():
                return Okay()
        return STATUS


def made_keys(directory: Path) -> Path:
    """A node's keys and three clients': `ops` may everything, `a` asks about namespace a alone, `blind` not even for status."""
    make_server_keys(directory)
    make_client_keys(directory, "ops", namespaces=("", "a", "b"), rights=("status", "reset"))
    make_client_keys(directory, "a", namespaces=("a",))
    make_client_keys(directory, "blind", namespaces=(), rights=())
    return directory


@contextmanager
def open_door(
    directory: Path,
    limits: DoorLimits | None = None,
    node: AskedNode | None = None,
    endpoint: str = "tcp://127.0.0.1:*",
) -> Iterator[RemoteDoor]:
    """A door on a free port of this machine."""
    door = RemoteDoor(endpoint, read_server_keys(directory), limits or DoorLimits(), node or AskedNode())
    try:
        yield door
    finally:
        door.close()
