"""From the bytes of a remote client's request to its answer: what it may call, and about which namespaces.

Pure but for the handler, which is the node's. Whatever comes in, an answer goes out.
"""

import logging
from collections.abc import Callable

from tiercel.errors import TiercelError
from tiercel.hashing import KEY_BYTES
from tiercel.node.calls import (
    AskHitCurve,
    AskStats,
    AskStatus,
    CountHits,
    Failed,
    OpenNamespace,
    PrefetchKeys,
    Reset,
)
from tiercel.node.codec import Answer, Call, decode_for_node, encode, shortened
from tiercel.node.protocol import HEADER, HEADER_BYTES, MESSAGE_BYTES_MAX, MessageError
from tiercel.node.remote.keys import ListedClient

Handle = Callable[[str, frozenset[str], Call], Answer]
"""(the client's name, its namespaces, its call) -> the answer. Called on several threads; must end within the call's bounds.
A TiercelError, ValueError or OSError that it raises becomes `Failed`."""

_TOLD = (TiercelError, ValueError, OSError)

_log = logging.getLogger(__name__)


def read_call(datagram: bytes, client: ListedClient) -> Call | Failed:
    """Read a request, and check what its client may do. Returns the call, or what to answer instead."""
    if datagram[:HEADER_BYTES] != HEADER:
        return Failed("ValueError", "not a message of this version: run the same release on both sides")
    try:
        message = decode_for_node(memoryview(datagram)[HEADER_BYTES:])
    except MessageError as error:
        return Failed("ValueError", shortened(str(error)))
    match message:
        case CountHits() | PrefetchKeys():
            if len(message.keys) % KEY_BYTES:
                return Failed("ValueError", f"keys: {len(message.keys)} bytes are no keys of {KEY_BYTES}")
            return message if message.namespace in client.namespaces else _NOT_BOUND
        case OpenNamespace():
            return message if message.name in client.namespaces else _NOT_BOUND
        case AskStatus() | AskStats() | AskHitCurve():
            return message if "status" in client.rights else _no_right("status")
        case Reset():
            return message if "reset" in client.rights else _no_right("reset")
    return Failed(
        "ValueError", f"{type(message).__name__} is nothing that a client without memory can ask: connect locally"
    )


def answer_to(client: ListedClient, call: Call, handle: Handle) -> Answer:
    """Have a call answered. Raises what the handler raises beyond what it may."""
    try:
        return handle(client.name, client.namespaces, call)
    except _TOLD as error:
        return Failed(type(error).__name__, shortened(str(error).encode("utf-8", "replace").decode()))


def bytes_of(answer: Answer) -> bytes:
    """Return an answer's datagram; one that is too long for a message becomes `Failed`."""
    datagram = encode(answer)
    if len(datagram) > MESSAGE_BYTES_MAX:
        _log.error("an answer of %d bytes is too long for a message", len(datagram))
        return encode(Failed("ValueError", f"the answer has {len(datagram)} bytes, more than {MESSAGE_BYTES_MAX}"))
    return datagram


_NOT_BOUND = Failed("PermissionError", "this client's key is bound to other namespaces")


def _no_right(right: str) -> Failed:
    return Failed("PermissionError", f"this client's key has not the right {right!r}")
