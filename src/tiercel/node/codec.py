"""Messages to bytes and back, checked."""

import msgspec

from tiercel.node.calls import (
    AskHitCurve,
    AskStats,
    AskStatus,
    CountHits,
    Failed,
    HitCurveAnswer,
    Hits,
    Launch,
    Launched,
    Okay,
    OpenNamespace,
    Prefetch,
    PrefetchKeys,
    Reset,
    Root,
    Settle,
    Settled,
    Stats,
    Status,
    Store,
)
from tiercel.node.events import (
    Bye,
    Cancel,
    CancelCopy,
    Copy,
    Declined,
    Done,
    Ended,
    Left,
    NoteText,
    Observe,
    Recompute,
    SourceFree,
)
from tiercel.node.joining import Hello, Join, Joined, Ready, Refused, Welcome
from tiercel.node.protocol import HEADER, HEADER_BYTES, MAGIC, PROTOCOL_VERSION, TEXT_MAX, Kind, Message, MessageError

Event = Copy | CancelCopy | SourceFree | Ended
"""What a node tells a client."""
Call = (
    OpenNamespace
    | Launch
    | Prefetch
    | Store
    | CountHits
    | PrefetchKeys
    | Reset
    | Settle
    | AskStatus
    | AskStats
    | AskHitCurve
)
Answer = Failed | Okay | Root | Launched | Hits | Settled | Status | Stats | HitCurveAnswer
Told = Done | Cancel | Observe | Declined | Recompute | NoteText | Left | Bye
"""What a client tells a node, without an answer."""

ToNode = Hello | Ready | Refused | Join | Call | Told
ToClient = Welcome | Refused | Joined | Event | Answer

_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The second for text that is none, the third for values nested without end in what a message leaves open."""

_encoder = msgspec.msgpack.Encoder()
_to_node: msgspec.msgpack.Decoder[ToNode] = msgspec.msgpack.Decoder(ToNode)
_to_client: msgspec.msgpack.Decoder[ToClient] = msgspec.msgpack.Decoder(ToClient)


def encode(message: Message) -> bytes:
    """Return a message's datagram."""
    return HEADER + _encoder.encode(message)


def decode_for_node(body: bytes | memoryview) -> ToNode:
    """Read what a node received, without its header. Raises MessageError."""
    try:
        return _to_node.decode(body)
    except _DECODE_ERRORS as error:
        raise MessageError(str(error)) from error


def decode_for_client(datagram: bytes) -> ToClient:
    """Read what a client received. Raises MessageError."""
    if datagram[:2] != MAGIC or len(datagram) < HEADER_BYTES:
        raise MessageError("not a message of this protocol")
    if datagram[2] != PROTOCOL_VERSION:
        raise MessageError(
            f"a message of version {datagram[2]}, this side speaks {PROTOCOL_VERSION}: run the same release"
        )
    if datagram[3] != Kind.MESSAGE:
        raise MessageError(f"a message of kind {datagram[3]:#x} where none is due")
    try:
        return _to_client.decode(memoryview(datagram)[HEADER_BYTES:])
    except _DECODE_ERRORS as error:
        raise MessageError(str(error)) from error


def shortened(text: str) -> str:
    """Return a text that fits into a message."""
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 3] + "..."
