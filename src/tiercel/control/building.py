"""Builds the moves of loads and stores together with the reservations that they stand on. Used by `control` only."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from tiercel.control.operation import PENDING
from tiercel.hashing import Sequence as TokenSequence
from tiercel.index import Index, Match, Reservation
from tiercel.plan import NO_MOVE, Free, Move, OperationKind, Plan, Segment, pack_keys, pack_slots
from tiercel.tiers.base import BlockStatus, Slots, TierName

# Members of an enum are slow to reach by name, and these are reached for every store.
_GPU, _DISK = TierName.GPU, TierName.DISK
_OK, _MISSING, _NO_SPACE = int(BlockStatus.OK), int(BlockStatus.MISSING), int(BlockStatus.NO_SPACE)

Attached = tuple[tuple[int, int, int], ...]
"""(first block in the operation, count, ticket) of blocks that another ticket is writing."""


class Place(msgspec.Struct, frozen=True):
    """Slots of a tier; None for the engine's memory, which is bound at launch."""

    tier: TierName
    slots: Slots | None = None


class Passing(msgspec.Struct, frozen=True):
    """Blocks that a move brings into a tier, where later moves of the same plan take them from."""

    tier: TierName
    blocks: range
    slots: Slots | None = None
    move: int = NO_MOVE

    def part(self, blocks: range) -> Place:
        """Where `blocks` lie, a part of the passing ones."""
        offset = blocks.start - self.blocks.start
        return Place(self.tier, None if self.slots is None else self.slots[offset : offset + len(blocks)])


class StorePart(msgspec.Struct, frozen=True):
    """Consecutive blocks that one move brings into a tier; none if `blocks` is empty."""

    reservation: Reservation
    blocks: range
    slots: Slots
    move: int = NO_MOVE

    def passing(self, tier: TierName) -> Passing:
        """The same blocks as a source for slower tiers."""
        return Passing(tier, self.blocks, self.slots, self.move)


class PlanBuilder:
    """Collects the moves, frees and reservations of one operation on one sequence.

    Args:
        tiers: the tiers of the index, fastest first, as the index numbers them.
        first_block: index in the sequence of the operation's block 0.
    """

    def __init__(
        self, index: Index, tiers: tuple[TierName, ...], ticket: int, sequence: TokenSequence, *, first_block: int = 0
    ) -> None:
        self._index = index
        self._tiers = tiers
        self._ticket = ticket
        self._sequence = sequence
        self._first_block = first_block
        self._moves: list[Move] = []
        self._frees: list[Free] = []
        self.reservations: dict[int, Reservation] = {}

    def move(
        self,
        blocks: range,
        source: Place,
        target: Place,
        *,
        after: int = NO_MOVE,
        reservation: Reservation | None = None,
    ) -> int:
        """Add a move of blocks of the sequence; returns its index in the plan."""
        labelled = reservation is not None and target.tier >= _DISK
        self._moves.append(
            Move(
                source=source.tier,
                target=target.tier,
                first_block=blocks.start - self._first_block,
                num_blocks=len(blocks),
                source_slots=b"" if source.slots is None else pack_slots(source.slots),
                target_slots=b"" if target.slots is None else pack_slots(target.slots),
                after=after,
                parent_key=self._sequence.parent_key(blocks.start) if labelled else b"",
                keys=pack_keys(self._sequence.keys(blocks.start, blocks.stop)) if labelled else b"",
            )
        )
        number = len(self._moves) - 1
        if reservation is not None:
            self.reservations[number] = reservation
        return number

    def _reserve(self, tier: TierName, first_block: int, limit_blocks: int) -> Reservation:
        reservation = self._index.reserve(
            self._sequence,
            self._tiers.index(tier),
            owner=self._ticket,
            first_block=first_block,
            limit_blocks=limit_blocks,
        )
        voided = reservation.voided
        if len(voided):
            self._frees.append(Free(tier=tier, slots=pack_slots(voided)))
        return reservation

    def load(self, match: Match, segment: Segment, *, keep: bool, deliver: bool) -> range:
        """Move a segment's blocks towards the engine.

        Args:
            keep: leave a copy in the fastest tier where there is room.
            deliver: bring them to the engine; otherwise only what is kept moves.

        Returns:
            The blocks that are kept on their way. Blocks that another ticket is bringing, and those without room, are not.
        """
        blocks = range(segment.first_block, segment.first_block + segment.num_blocks)
        kept = range(blocks.start, blocks.start)
        if keep:
            top = self._tiers[0]
            # Not from an earlier block on: what the match pins of those lies in another tier.
            reservation = self._reserve(top, blocks.start, blocks.stop)
            if reservation.num_blocks:
                kept = range(reservation.first_block, reservation.first_block + reservation.num_blocks)
                place = Place(top, reservation.slots)
                source = Place(segment.tier, match.slots(kept.start, kept.stop))
                fetch = self.move(kept, source, place, reservation=reservation)
                if deliver:
                    self.move(kept, place, Place(_GPU), after=fetch)
        for rest in (range(blocks.start, kept.start), range(kept.stop, blocks.stop)):
            if deliver and len(rest):
                self.move(rest, Place(segment.tier, match.slots(rest.start, rest.stop)), Place(_GPU))
        return kept

    def store(self, end: int, targets: tuple[TierName, ...]) -> tuple[NDArray[np.uint8], Attached]:
        """Move the blocks up to `end` that each target lacks into it: the first target takes them from the engine, the others
        take from the first what passes through it and from the engine what it has no room for.

        Returns:
            uint8[end - first_block], what is known of each block's outcome, and the blocks that other tickets are writing.
        """
        passing = Passing(_GPU, range(self._first_block, end))
        parts = self._store_parts(targets[0], passing, end)
        statuses, attached = _outlook(parts[0].reservation, self._first_block, end)
        self._claim(parts, statuses)
        passing = parts[0].passing(targets[0])
        for tier in targets[1:]:
            parts = self._store_parts(tier, passing, end)
            _note_stored(statuses, parts[-1].reservation, self._first_block)
            self._claim(parts, statuses)
        return statuses, attached

    def _claim(self, parts: list["StorePart"], statuses: NDArray[np.uint8]) -> None:
        """Mark as pending what is going to be stored and was not stored before."""
        for part in parts:
            start = part.blocks.start - self._first_block
            if len(part.blocks):
                window = statuses[start : start + len(part.blocks)]
                np.putmask(window, window != _OK, PENDING)

    def _store_parts(self, tier: TierName, passing: Passing, end: int) -> list["StorePart"]:
        """Reserve and move what a tier lacks up to `end`, in one part per source; at least one part, maybe empty."""
        parts = []
        limits = {mark for mark in (passing.blocks.start, passing.blocks.stop) if self._first_block < mark < end}
        for limit in sorted(limits | {end}):
            reservation = self._reserve(tier, self._first_block, limit)
            start = reservation.first_block
            slots = reservation.slots
            part = StorePart(reservation, range(start, start + len(slots)), slots)
            if len(slots):
                source, after = Place(_GPU), NO_MOVE
                if start in passing.blocks:
                    source, after = passing.part(part.blocks), passing.move
                move = self.move(part.blocks, source, Place(tier, slots), after=after, reservation=reservation)
                part = StorePart(reservation, part.blocks, slots, move)
            parts.append(part)
        return parts

    def plan(self, kind: OperationKind, num_blocks: int, deadline_s: float) -> Plan:
        """The plan of everything collected."""
        return Plan(
            ticket=self._ticket,
            kind=kind,
            first_block=self._first_block,
            num_blocks=num_blocks,
            moves=tuple(self._moves),
            frees=tuple(self._frees),
            deadline_s=deadline_s,
        )


def _outlook(reservation: Reservation, first_block: int, end: int) -> tuple[NDArray[np.uint8], Attached]:
    """What the first target's reservation says of each block: stored, being written by another ticket, without room, or
    missing for want of the blocks before the first."""
    statuses = np.full(end - first_block, _OK, np.uint8)
    present_end = reservation.first_block
    if present_end < first_block:
        statuses[:] = _MISSING
        return statuses, ()
    statuses[present_end - first_block :] = _NO_SPACE
    attached = []
    for first, count, owner in reservation.attached:
        start, stop = max(first, first_block), first + count
        if start < stop:
            attached.append((start - first_block, stop - start, owner))
            statuses[start - first_block : stop - first_block] = PENDING
    return statuses, tuple(attached)


def _note_stored(statuses: NDArray[np.uint8], reservation: Reservation, first_block: int) -> None:
    """Mark as stored what the first target has no copy of but the reservation's tier has."""
    stored = np.zeros(len(statuses), np.bool_)
    stored[: max(0, reservation.first_block - first_block)] = True
    for first, count, _ in reservation.attached:
        stored[max(0, first - first_block) : max(0, first + count - first_block)] = False
    statuses[stored & (statuses != PENDING)] = _OK
