"""Builds the moves of one operation together with the reservations that they stand on. Used by `control` only."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from tiercel.control.operation import PENDING
from tiercel.hashing import Sequence as TokenSequence
from tiercel.index import Index, Match, Reservation
from tiercel.plan import NO_MOVE, Free, Move, OperationKind, Plan, Segment
from tiercel.tiers.base import BlockStatus, TierName

# Members of an enum are slow to reach by name, and these are reached for every move.
_GPU = TierName.GPU

_OK, _NO_SPACE = int(BlockStatus.OK), int(BlockStatus.NO_SPACE)

_SLOT_BYTES = 4

LOAD_MOVES_MAX = 3
"""Most moves of its own tier's lane that a slower tier's segment is split into: into the fastest tier, and past it on both
sides. In the fastest tier's lane a segment makes one at most."""

Attached = tuple[tuple[int, int, int], ...]
"""(first block, count, ticket) of blocks that another ticket is writing."""


class Stretch(msgspec.Struct, frozen=True):
    """Consecutive blocks of the sequence, where a move can take them from; no slots in the engine's memory."""

    tier: TierName
    start: int
    stop: int
    slots: bytes = b""
    move: int = NO_MOVE
    """The move that brings them there."""

    def slots_of(self, start: int, stop: int) -> bytes:
        """Slots of the blocks [start, stop), a part of the stretch."""
        return self.slots[_SLOT_BYTES * (start - self.start) : _SLOT_BYTES * (stop - self.start)]


class PlanBuilder:
    """Collects the moves, frees and reservations of one operation.

    Args:
        tiers: the tiers of the index, fastest first, as the index numbers them.
        first_block: index in the sequence of the operation's block 0.
    """

    __slots__ = (
        "_first_block",
        "_frees",
        "_index",
        "_moves",
        "_now_s",
        "_ticket",
        "_tiers",
        "evicting",
        "reservations",
    )

    def __init__(
        self, index: Index, tiers: tuple[TierName, ...], ticket: int, *, first_block: int = 0, now_s: float = 0.0
    ) -> None:
        self._index = index
        self._tiers = tiers
        self._ticket = ticket
        self._first_block = first_block
        self._now_s = now_s
        self._moves: list[Move] = []
        self._frees: list[Free] = []
        self.reservations: dict[int, Reservation] = {}
        self.evicting: set[TierName] = set()
        """Tiers that lost blocks to make room."""

    def move(self, source: Stretch, target: Stretch, reservation: Reservation | None = None) -> int:
        """Add a move of `target`'s blocks, a part of `source`'s; returns its index in the plan."""
        self._moves.append(
            Move(
                source=source.tier,
                target=target.tier,
                first_block=target.start - self._first_block,
                num_blocks=target.stop - target.start,
                source_slots=source.slots_of(target.start, target.stop),
                target_slots=target.slots,
                after=source.move,
                parent_key=b"" if reservation is None else reservation.parent_key,
                keys=b"" if reservation is None else reservation.packed_keys,
            )
        )
        number = len(self._moves) - 1
        if reservation is not None:
            self.reservations[number] = reservation
        return number

    def reserve(self, sequence: TokenSequence, tier: TierName, blocks: range, priority: int = 0) -> Reservation:
        """Reserve what a tier lacks before `blocks.stop`, if it has every block before `blocks.start`."""
        number = self._tiers.index(tier)
        reservation = self._index.reserve(
            sequence,
            number,
            owner=self._ticket,
            first_block=blocks.start,
            limit_blocks=blocks.stop,
            now_s=self._now_s,
            priority=priority,
        )
        self.free_voided(tier, reservation)
        return reservation

    def free_voided(self, tier: TierName, reservation: Reservation) -> None:
        """Let the plan free what a reservation evicted."""
        if reservation.num_voided:
            self._frees.append(Free(tier=tier, slots=reservation.packed_voided))
            self.evicting.add(tier)

    def take(self, source: Stretch, tier: TierName, reservation: Reservation) -> Stretch:
        """Move a reservation's blocks, a part of `source`'s, into its tier. Returns them as what later moves read from."""
        start, slots = reservation.first_block, reservation.packed_slots
        target = Stretch(tier, start, start + reservation.num_blocks, slots)
        move = self.move(source, target, reservation)
        return Stretch(tier, start, target.stop, slots, move)

    def deliver(self, match: Match, segment: Segment) -> None:
        """Move a segment's blocks to the engine."""
        self._moves.append(
            Move(
                source=segment.tier,
                target=_GPU,
                first_block=segment.first_block - self._first_block,
                num_blocks=segment.num_blocks,
                source_slots=match.packed_slots(segment.first_block, segment.first_block + segment.num_blocks),
                target_slots=b"",
            )
        )

    def load(self, sequence: TokenSequence, match: Match, segment: Segment, *, deliver: bool) -> tuple[range, Attached]:
        """Move the blocks of a segment in a slower tier towards the engine, leaving a copy in the fastest tier where there is
        room.

        Args:
            deliver: bring them to the engine; otherwise only what is kept moves.

        Returns:
            The blocks that are kept on their way, and those that other tickets are bringing. The rest has no room.
        """
        start, stop = segment.first_block, segment.first_block + segment.num_blocks
        source = Stretch(segment.tier, start, stop, match.packed_slots(start, stop))
        top = self._tiers[0]
        # Not from an earlier block on: what the match pins of those lies in another tier.
        reservation = self.reserve(sequence, top, range(start, stop))
        kept = range(start, start)
        if reservation.num_blocks:
            passing = self.take(source, top, reservation)
            kept = range(passing.start, passing.stop)
            if deliver:
                self.move(passing, Stretch(_GPU, kept.start, kept.stop))
        if deliver:
            for rest in (range(start, kept.start), range(kept.stop, stop)):
                if len(rest):
                    self.move(source, Stretch(_GPU, rest.start, rest.stop))
        return kept, reservation.attached

    def num_moved_to(self, tier: TierName) -> int:
        """Blocks that the plan brings into a tier."""
        return sum(move.num_blocks for move in self._moves if move.target is tier)

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


def note_prefetched(
    statuses: NDArray[np.uint8], base: int, segment: Segment, kept: range, brought: Attached
) -> Attached:
    """Enter what becomes of a prefetch's segment: kept, brought by other tickets, or without room. Returns those brought.
    base: the sequence's block that the operation begins with."""
    start, stop = segment.first_block, segment.first_block + segment.num_blocks
    statuses[start - base : stop - base] = _NO_SPACE
    statuses[kept.start - base : kept.stop - base] = PENDING
    attached = []
    for first, count, owner in brought:
        begin, end = max(first, start), min(first + count, stop)
        if begin < end:
            statuses[begin - base : end - base] = PENDING
            attached.append((begin - base, end - begin, owner))
    return tuple(attached)
