"""Recordings of lookups and stores: the file's format and its reader. `recorder` writes it, a simulator replays it.

A recording names blocks by the first 64 bits of their keys and holds neither tokens nor text nor namespaces. Keys chain over
everything before them, so equal names mean equal prefixes; among 100 million different blocks the chance that any two share
64 bits is 3 in 10,000, and such a pair would cost a replay one wrong hit.

    file    = magic, then frames
    frame   = uint32 length of the payload, uint32 CRC-32 of the payload (little endian), payload
    payload = one record of this module in MessagePack: SessionRecord, LookupRecord, StoreRecord or GapRecord

A session begins when a cache is opened or the file is rotated, and what follows refers to nothing before it. Each record that
brings keys is a run, numbered from 0 in its session. A sequence's blocks are the first `base_blocks` blocks of run `base_run`'s
sequence, then its own `keys`: a conversation that grows adds what is new, and a branch says where it left. A torn or damaged
tail ends the reading; the recorder cuts it off before it appends.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Annotated, BinaryIO

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from tiercel.errors import FormatError

MAGIC = b"TIERREC\x01"
"""First bytes of a recording; the last of them is the format's version."""

KEY_BYTES = 8
FRAME_HEAD = Struct("<II")
PAYLOAD_BYTES_MAX = 64 << 20
NO_RUN = -1

TOKENS_PER_BLOCK_MAX = 1 << 16
SECONDS_MAX = 1e12
Count = Annotated[int, Meta(ge=0, le=1 << 27)]
"""Tokens or blocks of one sequence: more than any model takes."""
Microseconds = Annotated[int, Meta(ge=0, le=10**18)]

Keys = NDArray[np.uint64]
"""Names of consecutive blocks from a sequence's first on: uint64[num_blocks]."""


class RecordingAbout(msgspec.Struct, frozen=True, kw_only=True):
    """What a session's numbers mean: `fingerprint` in hexadecimal, sizes of one block."""

    fingerprint: str
    model: str
    tokens_per_block: Annotated[int, Meta(ge=1, le=TOKENS_PER_BLOCK_MAX)]
    block_bytes: Annotated[int, Meta(ge=1)]


class SessionRecord(msgspec.Struct, frozen=True, array_like=True, tag="session"):
    """A session begins; times of its records count from `started_at`, seconds since the epoch."""

    started_at: Annotated[float, Meta(ge=0, le=SECONDS_MAX)]
    about: RecordingAbout


class LookupRecord(msgspec.Struct, frozen=True, array_like=True, tag="lookup"):
    """A lookup of a whole sequence, `time_us` after the session began; `hits` are the blocks to load, by tier."""

    time_us: Microseconds
    base_run: Annotated[int, Meta(ge=NO_RUN)]
    base_blocks: Count
    keys: bytes
    num_tokens: Count
    matched_blocks: Count
    hits: tuple[tuple[str, Count], ...]
    request_id: str | None = None


class StoreRecord(msgspec.Struct, frozen=True, array_like=True, tag="store"):
    """A store of blocks [first_block, end of the sequence)."""

    time_us: Microseconds
    base_run: Annotated[int, Meta(ge=NO_RUN)]
    base_blocks: Count
    keys: bytes
    num_tokens: Count
    first_block: Count
    request_id: str | None = None


class GapRecord(msgspec.Struct, frozen=True, array_like=True, tag="gap"):
    """`num_events` were not recorded here, because the recorder fell behind."""

    num_events: Annotated[int, Meta(ge=0)]


Record = SessionRecord | LookupRecord | StoreRecord | GapRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedLookup:
    """A lookup as it was recorded.

    Attributes:
        time_s: seconds since the session began.
        keys: every full block of the sequence.
        num_tokens: tokens of the sequence, the ragged end included.
        matched_blocks: leading blocks that were stored.
        hit_blocks: blocks that were to be loaded, by tier.
    """

    time_s: float
    keys: Keys
    num_tokens: int
    matched_blocks: int
    hit_blocks: dict[str, int]
    request_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedStore:
    """A store as it was recorded: blocks [first_block, len(keys)) of a sequence whose blocks are `keys`."""

    time_s: float
    keys: Keys
    num_tokens: int
    first_block: int
    request_id: str | None


Recorded = SessionRecord | RecordedLookup | RecordedStore | GapRecord


@dataclass(frozen=True, slots=True)
class _Run:
    base: "_Run | None"
    base_blocks: int
    keys: Keys

    def path(self, num_blocks: int) -> Keys:
        """Return the first blocks of the run's sequence."""
        parts: list[Keys] = []
        run: _Run | None = self
        while run is not None:
            if num_blocks > run.base_blocks:
                parts.append(run.keys[: num_blocks - run.base_blocks])
                num_blocks = run.base_blocks
            run = run.base
        return np.concatenate(parts[::-1]) if parts else np.empty(0, np.uint64)


@dataclass(slots=True)
class Tail:
    """Where a recording's good part ends, and the bytes behind it that are torn or damaged."""

    end: int = len(MAGIC)
    torn_bytes: int = 0


def read_records(file: BinaryIO, path: Path, tail: Tail | None = None) -> Iterator[Record]:
    """Yield the records of an open file as they were written.

    Args:
        path: for messages.
        tail: kept up to date, if given.

    Raises:
        FormatError: the file is no recording, or a newer one.
    """
    tail = Tail() if tail is None else tail
    decoder = msgspec.msgpack.Decoder(Record)
    for payload in read_payloads(file, path, tail):
        try:
            yield decoder.decode(payload)
        except msgspec.DecodeError as error:
            reason = f"has a record before byte {tail.end} that this version cannot read: {error}"
            raise FormatError(f"{path} {reason}") from error


def read_payloads(file: BinaryIO, path: Path, tail: Tail) -> Iterator[bytes]:
    """Yield the payloads of the good frames; when they end, `tail` says where. Raises as `read_records`."""
    magic = file.read(len(MAGIC))
    if magic != MAGIC:
        newer = magic[:-1] == MAGIC[:-1] and len(magic) == len(MAGIC)
        reason = (
            f"is a recording of version {magic[-1]}; this version reads {MAGIC[-1]}" if newer else "is no recording"
        )
        raise FormatError(f"{path} {reason}")
    size = file.seek(0, 2)
    file.seek(tail.end)
    while (payload := _next_payload(file)) is not None:
        tail.end += FRAME_HEAD.size + len(payload)
        yield payload
    tail.torn_bytes = size - tail.end


def _next_payload(file: BinaryIO) -> bytes | None:
    """Return the next whole and undamaged payload; None where there is none."""
    head = file.read(FRAME_HEAD.size)
    if len(head) < FRAME_HEAD.size:
        return None
    length, checksum = FRAME_HEAD.unpack(head)
    if length > PAYLOAD_BYTES_MAX:
        return None
    payload = file.read(length)
    return payload if len(payload) == length and zlib.crc32(payload) == checksum else None


def read_recording(path: str | Path, tail: Tail | None = None) -> Iterator[Recorded]:
    """Yield what was recorded, in order, each lookup and store with the keys of all its blocks.

    A SessionRecord comes before the first event and whenever a cache was opened anew. Keys that lie behind each other in memory
    are shared between events: do not write to them. Memory: 8 bytes a different block of one session.

    Args:
        tail: tells, after the last item, what of the file was torn; reading ends there without an error.

    Raises:
        FormatError: the file is no recording, a newer one, or one whose references lead nowhere.
        OSError: it cannot be read.
    """
    path = Path(path)
    if path.is_fifo():
        raise FormatError(f"{path} is a pipe, which is not waited for; write it to a file first")
    runs: list[_Run] = []
    has_begun = False
    with path.open("rb") as file:
        for record in read_records(file, path, tail):
            if isinstance(record, SessionRecord):
                runs, has_begun = [], True
                yield record
            elif isinstance(record, GapRecord):
                yield record
            elif not has_begun:
                raise FormatError(f"{path} begins with a {type(record).__name__}, and no session has begun")
            else:
                yield _expand(record, _keys_of(record, runs, path))


def _keys_of(record: LookupRecord | StoreRecord, runs: list[_Run], path: Path) -> Keys:
    """Return the names of all the record's blocks; note the run that it brings."""
    base = None
    if record.base_blocks:
        known = 0 <= record.base_run < len(runs)
        base = runs[record.base_run] if known else None
        if base is None or not 0 < record.base_blocks <= base.base_blocks + len(base.keys):
            raise FormatError(f"{path} refers to {record.base_blocks} blocks of run {record.base_run}, which it lacks")
    if len(record.keys) % KEY_BYTES:
        raise FormatError(f"{path} has a record of {len(record.keys)} bytes of keys, no multiple of {KEY_BYTES}")
    run = _Run(base, record.base_blocks, np.frombuffer(record.keys, "<u8"))
    if len(run.keys):
        runs.append(run)
    return run.path(record.base_blocks + len(run.keys))


def _expand(record: LookupRecord | StoreRecord, keys: Keys) -> RecordedLookup | RecordedStore:
    time_s = record.time_us / 1e6
    if isinstance(record, StoreRecord):
        return RecordedStore(
            time_s=time_s,
            keys=keys,
            num_tokens=record.num_tokens,
            first_block=record.first_block,
            request_id=record.request_id,
        )
    return RecordedLookup(
        time_s=time_s,
        keys=keys,
        num_tokens=record.num_tokens,
        matched_blocks=record.matched_blocks,
        hit_blocks=dict(record.hits),
        request_id=record.request_id,
    )
