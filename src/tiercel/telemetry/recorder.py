"""Writes recordings (`recording` describes the file) from a thread of its own, so that a lookup pays for a queue's put only.

The queue is bounded: what does not fit is dropped, counted, and marked in the file by a GapRecord. Keys are taken from the
sequence on the writer's thread, which hashes what was not hashed yet; a sequence's keys never change, so a later look at it
finds the same ones. A disk that fails ends the recording, not the cache.
"""

import fcntl
import os
import queue
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from tiercel.errors import FormatError
from tiercel.telemetry.recording import (
    FRAME_HEAD,
    KEY_BYTES,
    MAGIC,
    NO_RUN,
    GapRecord,
    LookupRecord,
    Record,
    RecordingAbout,
    SessionRecord,
    StoreRecord,
    Tail,
    read_payloads,
)

QUEUE_EVENTS_MAX = 8192
MARK_BLOCKS = 16
"""A known prefix is found again at multiples of this many blocks: fewer marks in memory, at most 15 keys written twice."""

MARKS_MAX = 1 << 17
"""Marks kept, about 100 bytes each; beyond, all are forgotten, and prefixes are written once more."""

_BUFFER_BYTES = 1 << 16
_LOOK_INTERVAL_S = 1.0
_CLOSE_TIMEOUT_S = 10.0


class KeyedSequence(Protocol):
    """What the recorder needs of a sequence."""

    @property
    def num_tokens(self) -> int: ...

    @property
    def num_blocks(self) -> int: ...

    def keys(self, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Return the names of blocks: uint8[stop - start, 16]."""
        ...

    def parent_key(self, block: int) -> bytes:
        """Return the name of the block before `block`, 16 bytes."""
        ...


class _Event(NamedTuple):
    """A lookup, or a store if `first_block` is not negative."""

    at: float
    sequence: KeyedSequence
    num_tokens: int
    num_blocks: int
    request_id: str | None
    first_block: int = -1
    matched_blocks: int = 0
    hits: Sequence[tuple[str, int]] = ()


class Recorder:
    """Records one cache to one file, and to FILE.1 what is older. Thread-safe."""

    def __init__(
        self,
        path: Path,
        about: RecordingAbout,
        *,
        bytes_max: int,
        count: Callable[[str, int], None],
        note: Callable[[str], None],
    ) -> None:
        """Open or create the file and start the thread.

        Args:
            bytes_max: bytes of the file and of FILE.1 together; each takes half.
            count: told ("written" or "dropped", how many) of every event.
            note: told why a recording ended early, in words.

        Raises:
            OSError: the file cannot be written, or another recorder writes it.
            FormatError: it, or FILE.1, holds something else, which is left as it is.
        """
        self._path = path.absolute()  # the process may change its directory
        self._older = self._path.parent / (path.name + ".1")
        self._look_at = time.monotonic() + _LOOK_INTERVAL_S
        self._about = about
        self._half_bytes = bytes_max // 2
        self._count = count
        self._note = note
        self._queue: queue.SimpleQueue[_Event | None] = queue.SimpleQueue()
        self._num_dropped = 0
        self._closing = False
        self._encoder = msgspec.msgpack.Encoder()
        self._marks: dict[bytes, int] = {}
        self._num_runs = 0
        self._num_bytes = 0
        self._buffer = bytearray()
        self._started = time.monotonic()
        self._file = self._open()
        self._thread = threading.Thread(target=self._write_all, name="tiercel-recorder", daemon=True)
        self._thread.start()

    def lookup(
        self,
        sequence: KeyedSequence,
        matched_blocks: int,
        hits: Sequence[tuple[str, int]],
        request_id: str | None = None,
    ) -> None:
        """Record a lookup of the sequence as it is now. Never blocks."""
        num_blocks = sequence.num_blocks
        event = _Event(
            time.monotonic(), sequence, sequence.num_tokens, num_blocks, request_id, -1, matched_blocks, hits
        )
        self._put(event)

    def store(self, sequence: KeyedSequence, first_block: int, num_blocks: int, request_id: str | None = None) -> None:
        """Record a store of `num_blocks` blocks from `first_block` on. Never blocks."""
        event = _Event(
            time.monotonic(), sequence, sequence.num_tokens, first_block + num_blocks, request_id, first_block
        )
        self._put(event)

    def _put(self, event: _Event) -> None:
        if self._closing or self._queue.qsize() >= QUEUE_EVENTS_MAX:
            self._num_dropped += 1  # a race may lose one of many: the counter that is served is exact
            self._count("dropped", 1)
            return
        self._queue.put(event)

    def close(self) -> None:
        """Write what is queued and close the file. Idempotent; bounded."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        self._thread.join(_CLOSE_TIMEOUT_S)

    def _open(self) -> FileIO:
        """Open the file, alone, cut off what is torn, and begin a session in it."""
        file = FileIO(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OSError(error.errno, "another cache records to it", str(self._path)) from error
            tail = Tail()
            for path in (self._path, self._older):
                _require_ours(path)
            if file.seek(0, os.SEEK_END) < len(MAGIC):
                tail.end = 0
                self._buffer += MAGIC
            else:
                with self._path.open("rb") as written:
                    for _ in read_payloads(written, self._path, tail):
                        pass
            file.truncate(tail.end)
            file.seek(tail.end)
            self._num_bytes = tail.end + len(self._buffer)
            self._marks.clear()
            self._num_runs = 0
            self._started = time.monotonic()
            self._append(SessionRecord(time.time(), self._about))
            self._flush(file)
        except BaseException:
            file.close()
            raise
        return file

    def _append(self, record: Record) -> None:
        payload = self._encoder.encode(record)
        self._buffer += FRAME_HEAD.pack(len(payload), zlib.crc32(payload))
        self._buffer += payload
        self._num_bytes += FRAME_HEAD.size + len(payload)

    def _flush(self, file: FileIO) -> None:
        """Write the buffer. Raises OSError; the next recorder cuts off what is torn by that."""
        while self._buffer:
            del self._buffer[: file.write(self._buffer)]

    def _write_all(self) -> None:
        num_buffered = 0
        try:
            while (event := self._queue.get()) is not None:
                num_buffered += 1
                self._write_event(event)
                if self._queue.empty() or len(self._buffer) >= _BUFFER_BYTES:
                    self._flush(self._file)
                    self._count("written", num_buffered)
                    num_buffered = 0
            self._flush(self._file)
            self._count("written", num_buffered)
        except (OSError, FormatError) as error:
            self._closing = True
            self._count("dropped", num_buffered + self._queue.qsize())
            self._note(
                f"recording to {self._path} ended ({error}); mend that, or free room, and open the cache anew to record again"
            )
        finally:
            self._file.close()

    def _write_event(self, event: _Event) -> None:
        if event.at >= self._look_at or self._num_bytes >= self._half_bytes:
            self._look_at = event.at + _LOOK_INTERVAL_S
            self._follow()
        if self._num_bytes >= self._half_bytes:
            self._rotate()
        if self._num_dropped:
            num_dropped, self._num_dropped = self._num_dropped, 0
            self._append(GapRecord(num_dropped))
        base_run, base_blocks, keys = self._new_keys(event)
        time_us = max(0, int((event.at - self._started) * 1e6))
        if event.first_block >= 0:
            record: Record = StoreRecord(
                time_us, base_run, base_blocks, keys, event.num_tokens, event.first_block, event.request_id
            )
        else:
            hits = tuple(event.hits)
            record = LookupRecord(
                time_us, base_run, base_blocks, keys, event.num_tokens, event.matched_blocks, hits, event.request_id
            )
        self._append(record)

    def _new_keys(self, event: _Event) -> tuple[int, int, bytes]:
        """Return (run, blocks of it) that the sequence begins with, as far as it is known, and the names behind them."""
        sequence, num_marks = event.sequence, event.num_blocks // MARK_BLOCKS
        low, high = (
            0,
            num_marks,
        )  # a known mark means that all before it were known, or were forgotten: no harm either way
        while low < high:
            middle = (low + high + 1) // 2
            known = sequence.parent_key(middle * MARK_BLOCKS)[:KEY_BYTES] in self._marks
            low, high = (middle, high) if known else (low, middle - 1)
        base_blocks = low * MARK_BLOCKS
        base_run = self._marks[sequence.parent_key(base_blocks)[:KEY_BYTES]] if low else NO_RUN
        names = np.ascontiguousarray(sequence.keys(base_blocks, event.num_blocks)[:, :KEY_BYTES])
        if len(names):
            marks = [names[at].tobytes() for at in range(MARK_BLOCKS - 1, len(names), MARK_BLOCKS)]
            if len(self._marks) + len(marks) > MARKS_MAX:
                self._marks.clear()
            self._marks.update(dict.fromkeys(marks, self._num_runs))
            self._num_runs += 1
        return base_run, base_blocks, names.tobytes()

    def _rotate(self) -> None:
        """Put the file aside as FILE.1, in place of an earlier one, and go on in a new one."""
        self._flush(self._file)
        self._path.replace(self._older)
        self._begin_anew()

    def _follow(self) -> None:
        """Go on in a new file where somebody moved or removed the one that is written, as who rotates logs does."""
        try:
            in_place = os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            in_place = False
        if not in_place:
            self._flush(self._file)
            self._begin_anew()

    def _begin_anew(self) -> None:
        aside, self._file = self._file, self._open()
        aside.close()


def _require_ours(path: Path) -> None:
    """Raise FormatError if a file holds what no recorder wrote; a beginning cut short by a kill is a recorder's."""
    if path.exists():
        if not path.is_file():  # a pipe would be waited for
            raise FormatError(f"{path} is no regular file")
        with path.open("rb") as file:
            head = file.read(len(MAGIC))
        if not MAGIC.startswith(head) and head[:-1] != MAGIC[:-1]:
            raise FormatError(f"{path} is no recording")
