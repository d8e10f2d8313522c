"""What every tier keeps about itself: the state of its slots, its counters, and who is inside a call.

Tiers are called from several threads; each class here guards itself.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import CacheClosedError
from tiercel.tiers.base import BlockStatus, Slots, Statuses, TierStats

VOID = 0
RESERVED = 1
WRITTEN = 2

_OK = int(BlockStatus.OK)

_Number = TypeVar("_Number", bound=np.integer[Any])


class SlotStates:
    """Void, reserved or written, for each slot. One byte a slot."""

    def __init__(self, num_slots: int) -> None:
        self._lock = threading.Lock()
        self._states = np.zeros(num_slots, dtype=np.uint8)
        self._num_written = 0

    def reserve(self, slots: Slots) -> Slots:
        """Mark slots as reserved and return those that were written until now."""
        return self._change(slots, RESERVED)

    def void(self, slots: Slots) -> Slots:
        """Mark slots as void and return those that were written until now."""
        return self._change(slots, VOID)

    def finish_write(self, slots: Slots, statuses: Statuses) -> None:
        """Mark slots whose write ended `OK` as written and the others as void."""
        good = slots[statuses == BlockStatus.OK]
        with self._lock:
            self._num_written -= int(np.count_nonzero(self._states[slots] == WRITTEN))
            self._states[slots] = VOID
            self._states[good] = WRITTEN
            self._num_written += len(good)

    def mark_written(self, slots: Slots) -> None:
        """Mark slots as written: they were recovered."""
        self.finish_write(slots, np.full(len(slots), BlockStatus.OK, dtype=np.uint8))

    def check_reserved(self, slots: Slots) -> None:
        """Raise ValueError unless every slot is reserved."""
        self.check_range(slots)
        if not (self._states[slots] == RESERVED).all():
            raise ValueError("slots: reserve a slot before writing it")

    def are_written(self, slots: Slots) -> NDArray[np.bool_]:
        """Return which slots hold a written block."""
        self.check_range(slots)
        mask: NDArray[np.bool_] = self._states[slots] == WRITTEN
        return mask

    def written(self) -> Slots:
        """Return every written slot, ascending."""
        return np.flatnonzero(self._states == WRITTEN).astype(np.uint32)

    @property
    def num_written(self) -> int:
        return self._num_written

    def check_range(self, slots: Slots) -> None:
        """Raise ValueError unless slots is a uint32 vector of existing slots."""
        if slots.dtype != np.uint32 or slots.ndim != 1:
            raise ValueError(f"slots: uint32[num_blocks] is wanted, got {slots.dtype}{list(slots.shape)}")
        if len(slots) and int(slots.max()) >= len(self._states):
            raise ValueError(f"slots: {int(slots.max())} is out of range; the tier has {len(self._states)} slots")

    def _change(self, slots: Slots, state: int) -> Slots:
        self.check_range(slots)
        with self._lock:
            written = distinct(slots[self._states[slots] == WRITTEN])
            self._states[slots] = state
            self._num_written -= len(written)
        return written


class Counters:
    """A tier's `TierStats`, counted up."""

    def __init__(self, num_slots: int, block_bytes: int) -> None:
        self._lock = threading.Lock()
        self._stats = TierStats(num_slots=num_slots, block_bytes=block_bytes)

    def count_read(self, statuses: Statuses, seconds: float) -> None:
        """Count one read."""
        num_ok, num_corrupt, num_errors = _outcomes(statuses)
        with self._lock:
            old = self._stats
            self._stats = replace(
                old,
                blocks_read=old.blocks_read + num_ok,
                bytes_read=old.bytes_read + num_ok * old.block_bytes,
                read_seconds=old.read_seconds + seconds,
                blocks_corrupt=old.blocks_corrupt + num_corrupt,
                io_errors=old.io_errors + num_errors,
            )

    def count_write(self, statuses: Statuses, seconds: float) -> None:
        """Count one write."""
        num_ok, _, num_errors = _outcomes(statuses)
        with self._lock:
            old = self._stats
            self._stats = replace(
                old,
                blocks_written=old.blocks_written + num_ok,
                bytes_written=old.bytes_written + num_ok * old.block_bytes,
                write_seconds=old.write_seconds + seconds,
                io_errors=old.io_errors + num_errors,
            )

    def snapshot(self) -> TierStats:
        """Return the counts so far."""
        return self._stats


class CallGate:
    """Lets calls in until closed, and lets `close` wait for those inside."""

    def __init__(self, what: str) -> None:
        self._what = what
        # Entered as it is: a condition is entered by Python code, in which a signal's exception would leave the lock held.
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self._inside: set[object] = set()
        self._closed = False

    @contextmanager
    def call(self) -> Iterator[None]:
        """Be inside. Raises CacheClosedError after `close`.

        Wherever a signal raises its exception, nobody stays inside, for whom `close` would wait for ever. So this is a
        generator: a class's `__exit__` may be cut off before its body, a generator that nobody holds any more is closed. And
        those inside are a set, not a count under a lock: behind that lock's release an exception would leave the count up.
        """
        call = object()
        try:
            self._inside.add(call)
            if self._closed:
                raise CacheClosedError(f"the {self._what} tier was closed")
            yield
        finally:
            self._inside.discard(call)
            if self._closed and not self._inside:
                with self._lock:
                    self._idle.notify_all()

    def close(self) -> bool:
        """Let nobody in any more and wait for those inside. Return whether this call was the one that closed."""
        with self._lock:
            first, self._closed = not self._closed, True
            self._idle.wait_for(lambda: not self._inside)
        return first


def distinct(numbers: NDArray[_Number]) -> NDArray[_Number]:
    """Return the different numbers of a vector, ascending. `np.unique` imports a module when it is called first, and an import
    that a signal's exception cuts off leaves a lock held, for which every other thread waits that calls it."""
    ordered = np.sort(numbers)
    is_first = np.ones(len(ordered), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    return ordered[is_first]


def runs_of(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return [start, stop) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _outcomes(statuses: Statuses) -> tuple[int, int, int]:
    if statuses.tobytes().count(_OK) == len(statuses):
        return len(statuses), 0, 0
    counts = np.bincount(statuses, minlength=len(BlockStatus))
    failed = counts[BlockStatus.IO_ERROR] + counts[BlockStatus.NO_SPACE]
    return int(counts[BlockStatus.OK]), int(counts[BlockStatus.CORRUPT]), int(failed)
