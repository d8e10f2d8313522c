"""What the demo and its worker, the process that holds engine and cache, say to each other: msgpack over two pipes."""

import struct
from typing import BinaryIO, TypeVar

import msgspec

from tiercel.errors import TiercelError

M = TypeVar("M")

_LENGTH = struct.Struct("<I")
_MESSAGE_BYTES_MAX = 64 << 20


class WorkerGoneError(TiercelError):
    """The other process ended before it said that it would."""


class Part(msgspec.Struct, frozen=True):
    """One part of a prompt: a mark and text to tokenize, or tokens that the engine generated before."""

    mark: str = ""
    text: str = ""
    tokens: tuple[int, ...] = ()


class Start(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The first message to a worker: what to open. host_blocks 0: no cache."""

    model: str
    device: str
    seed: int
    num_buffers: int
    buffer_tokens: int
    host_tokens: int
    disk_tokens: int
    cache_dir: str


class Ask(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """One request."""

    request: int
    parts: tuple[Part, ...]
    max_new_tokens: int


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Finish what is running, close the cache, and end."""


class Opening(msgspec.Struct, frozen=True, tag=True):
    """Progress of the start."""

    stage: str
    done: int
    total: int


class Ready(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The worker is warm. found_blocks: blocks found on disk."""

    model: str
    block_bytes: int
    tokens_per_block: int
    found_blocks: int


class Chunk(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """One more chunk of the running request's prompt is computed."""

    request: int
    num_tokens: int
    num_total: int
    num_stores_running: int


class SpanRecord(msgspec.Struct, frozen=True):
    """A span of a request; see `connectors.transformers.Span`."""

    kind: str
    start_s: float
    stop_s: float
    num_tokens: int
    detail: str


class TierUse(msgspec.Struct, frozen=True, kw_only=True):
    """A tier's occupancy, and its traffic since the worker's start."""

    tier: str
    num_blocks: int
    used_blocks: int
    bytes_read: int = 0
    read_s: float = 0.0
    bytes_written: int = 0
    write_s: float = 0.0


class BlockDigest(msgspec.Struct, frozen=True, array_like=True):
    """A block in the engine's memory: SHA-256 of all tokens up to its end, and of its KV's bytes."""

    name: bytes
    content: bytes


class Answer(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A request is answered.

    Attributes:
        at_s: when it arrived, since the worker was ready.
        failures: what failed in Tiercel and became recompute since the worker began.
        blocks: every settled block of its sequence, in order; the first num_restored came from Tiercel.
    """

    request: int
    at_s: float
    num_prompt_tokens: int
    tokens: tuple[int, ...]
    reused_tokens: dict[str, int]
    ttft_s: float
    total_s: float
    spans: tuple[SpanRecord, ...]
    failures: dict[str, int]
    tiers: tuple[TierUse, ...]
    blocks: tuple[BlockDigest, ...]
    num_restored: int


class Ended(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The worker closed its cache and ends. peak_bytes: its largest resident memory."""

    tiers: tuple[TierUse, ...]
    peak_bytes: int


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The worker cannot go on; the reason in one line."""

    reason: str


ToWorker = Start | Ask | Stop
FromWorker = Opening | Ready | Chunk | Answer | Ended | Failed

_encoder = msgspec.msgpack.Encoder()
to_worker = msgspec.msgpack.Decoder(ToWorker)
from_worker = msgspec.msgpack.Decoder(FromWorker)


def send(stream: BinaryIO, message: ToWorker | FromWorker) -> None:
    """Write one message. Raises WorkerGoneError if nobody reads."""
    body = _encoder.encode(message)
    try:
        stream.write(_LENGTH.pack(len(body)) + body)
        stream.flush()
    except BrokenPipeError as error:
        raise WorkerGoneError("nobody reads the pipe any more") from error


def receive(stream: BinaryIO, decoder: "msgspec.msgpack.Decoder[M]") -> M:
    """Read one message. Raises WorkerGoneError at the end of the pipe, or for bytes that are no message."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise WorkerGoneError("the pipe was closed")
    (length,) = _LENGTH.unpack(head)
    if length > _MESSAGE_BYTES_MAX:
        raise WorkerGoneError(f"a message of {length} bytes is not one of ours")
    body = stream.read(length)
    if len(body) < length:
        raise WorkerGoneError("the pipe was closed inside a message")
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise WorkerGoneError(f"a message does not read: {error}") from error
