"""The moves of a store: from the engine into each tier that lacks blocks, with what is known of each block's outcome.

The first target takes its blocks from the engine, the others take from the first what passes through it and from the
engine what it has no room for. Used by `control` only.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiercel.control.building import Attached, PlanBuilder, Stretch
from tiercel.control.operation import PENDING
from tiercel.control.priorities import STEPS_MAX, Ladder
from tiercel.hashing import Sequence as TokenSequence
from tiercel.index import Reservation
from tiercel.tiers.base import BlockStatus, TierName

STORE_MOVES_MAX = 2 * STEPS_MAX + 2
"""Most moves of a slower tier's lane that a store is split into: each priority's part of the tier before it and what lies
between them, and a promotion of what comes first."""

# Statuses are put together as bytes: on the few of a store each call of numpy's takes several times as long.
_OK_BYTE, _NO_SPACE_BYTE, _MISSING_BYTE, _PENDING_BYTE = (
    bytes([status]) for status in (BlockStatus.OK, BlockStatus.NO_SPACE, BlockStatus.MISSING, PENDING)
)
_ALL_PENDING = _PENDING_BYTE * 256
_ALL_BUT_OK_PENDING = _OK_BYTE + _PENDING_BYTE * 255
_ALL_BUT_PENDING_OK = _OK_BYTE * PENDING + _PENDING_BYTE


class StoreBuilder:
    """Plans one store with a `PlanBuilder`."""

    __slots__ = ("_builder", "_end", "_first_block", "_ladder", "_sequence", "_ticket")

    def __init__(
        self, builder: PlanBuilder, sequence: TokenSequence, ladder: Ladder, *, ticket: int, first_block: int, end: int
    ) -> None:
        self._builder = builder
        self._sequence = sequence
        self._ladder = ladder
        self._ticket = ticket
        self._first_block = first_block
        self._end = end

    def store(self, targets: Sequence[tuple[TierName, int]]) -> tuple[NDArray[np.uint8], Attached]:
        """Move the blocks that each target lacks into it.

        Args:
            targets: (tier, block before which its share of the blocks ends), fastest first; at least one.

        Returns:
            uint8[end - first_block], what is known of each block's outcome, and the blocks that other tickets are writing.
        """
        statuses = bytearray(_MISSING_BYTE * (self._end - self._first_block))
        sources = [Stretch(TierName.GPU, self._first_block, self._end)]
        attached: Attached = ()
        for number, (tier, stop) in enumerate(targets):
            parts, reservation = self._store_into(tier, stop, sources)
            if reservation is not None:
                if number == 0:
                    attached = self._note_first(statuses, max(0, stop - self._first_block), reservation)
                else:
                    self._note_stored(statuses, reservation)
            for part in parts:
                window = slice(part.start - self._first_block, part.stop - self._first_block)
                statuses[window] = statuses[window].translate(_ALL_PENDING if number == 0 else _ALL_BUT_OK_PENDING)
            if number == 0:
                sources = self._behind(parts)
        return np.frombuffer(statuses, np.uint8), attached

    def _store_into(
        self, tier: TierName, stop: int, sources: Sequence[Stretch]
    ) -> tuple[list[Stretch], Reservation | None]:
        """Move what a tier lacks before `stop` into it, a move for each source and priority. Returns the moved stretches and
        the last reservation, which knows the whole path."""
        parts: list[Stretch] = []
        reservation: Reservation | None = None
        for source in sources:
            if source.start >= stop:
                break
            for limit, priority in self._ladder.steps(source.start, min(source.stop, stop)):
                reservation = self._builder.reserve(self._sequence, tier, range(self._first_block, limit), priority)
                if reservation.num_blocks:
                    parts.append(self._builder.take(source, tier, reservation))
                if reservation.num_short:
                    return parts, reservation
        return parts, reservation

    def _behind(self, parts: Sequence[Stretch]) -> list[Stretch]:
        """Where slower tiers take the blocks from: what passes through the first target from there, the rest from the engine."""
        sources: list[Stretch] = []
        at = self._first_block
        for part in parts:
            if part.start > at:
                sources.append(Stretch(TierName.GPU, at, part.start))
            sources.append(part)
            at = part.stop
        if at < self._end:
            sources.append(Stretch(TierName.GPU, at, self._end))
        return sources

    def _note_first(self, statuses: bytearray, limit: int, reservation: Reservation) -> Attached:
        """Enter what the first target's reservation says of each block before `limit`: stored, being written by another ticket,
        without room, or missing for want of the blocks before the first. Returns those that others are writing, by block of the
        operation."""
        first_block = self._first_block
        present = reservation.first_block - first_block
        if present < 0:
            return ()
        limit = min(limit, len(statuses))
        present = min(present, limit)
        statuses[:limit] = _OK_BYTE * present + _NO_SPACE_BYTE * (limit - present)
        attached = []
        for first, count, owner in reservation.attached:
            start, stop = max(first - first_block, 0), min(first + count - first_block, limit)
            if owner != self._ticket and start < stop:
                attached.append((start, stop - start, owner))
                statuses[start:stop] = _PENDING_BYTE * (stop - start)
        return tuple(attached)

    def _note_stored(self, statuses: bytearray, reservation: Reservation) -> None:
        """Mark as stored what the first target has no copy of but a slower tier has."""
        first_block = self._first_block
        present = reservation.first_block - first_block
        if present <= 0:
            return
        writing = [
            slice(max(0, first - first_block), max(0, first + count - first_block))
            for first, count, _ in reservation.attached
        ]
        before = [(blocks, statuses[blocks]) for blocks in writing]
        statuses[:present] = statuses[:present].translate(_ALL_BUT_PENDING_OK)
        for blocks, unchanged in before:
            statuses[blocks] = unchanged
