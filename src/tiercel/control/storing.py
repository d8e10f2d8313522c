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

_OK, _NO_SPACE = int(BlockStatus.OK), int(BlockStatus.NO_SPACE)
_MISSING_BYTE = bytes([BlockStatus.MISSING])


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
        # As a buffer of its own: numpy takes twice as long to make and fill an array.
        statuses = np.frombuffer(bytearray(_MISSING_BYTE * (self._end - self._first_block)), np.uint8)
        sources = [Stretch(TierName.GPU, self._first_block, self._end)]
        attached: Attached = ()
        for number, (tier, stop) in enumerate(targets):
            parts, reservation = self._store_into(tier, stop, sources)
            if reservation is not None:
                if number == 0:
                    attached = self._note_first(statuses[: max(0, stop - self._first_block)], reservation)
                else:
                    self._note_stored(statuses, reservation)
            for part in parts:
                window = statuses[part.start - self._first_block : part.stop - self._first_block]
                if number == 0:
                    window.fill(PENDING)
                else:
                    np.putmask(window, window != _OK, PENDING)
            if number == 0:
                sources = self._behind(parts)
        return statuses, attached

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

    def _note_first(self, statuses: NDArray[np.uint8], reservation: Reservation) -> Attached:
        """Enter what the first target's reservation says of each block: stored, being written by another ticket, without room,
        or missing for want of the blocks before the first. Returns those that others are writing, by block of the operation."""
        first_block = self._first_block
        present = reservation.first_block - first_block
        if present < 0:
            return ()
        if present:
            statuses[:present] = _OK
        statuses[present:] = _NO_SPACE
        attached = []
        for first, count, owner in reservation.attached:
            start, stop = max(first - first_block, 0), min(first + count - first_block, len(statuses))
            if owner != self._ticket and start < stop:
                attached.append((start, stop - start, owner))
                statuses[start:stop] = PENDING
        return tuple(attached)

    def _note_stored(self, statuses: NDArray[np.uint8], reservation: Reservation) -> None:
        """Mark as stored what the first target has no copy of but a slower tier has."""
        first_block = self._first_block
        present = reservation.first_block - first_block
        if present <= 0:
            return
        stored = np.zeros(len(statuses), np.bool_)
        stored[:present] = True
        for first, count, _ in reservation.attached:
            stored[max(0, first - first_block) : max(0, first + count - first_block)] = False
        statuses[stored & (statuses != PENDING)] = _OK
