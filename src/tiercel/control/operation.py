"""What the control half hands out: lookups before a launch, operations after one."""

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from tiercel.errors import StaleTicketError
from tiercel.hashing import Sequence as TokenSequence
from tiercel.index import Index, Match, Reservation
from tiercel.plan import Free, Plan, Segment, cut_segments
from tiercel.tiers.base import TierName

PENDING = 255
"""Marks a block of an operation that has no outcome yet; never leaves the core."""


class Promises(Protocol):
    """What lookups were made by: an index, or what stands for one that another process has."""

    @property
    def generation(self) -> int:
        """Grows when everything that was promised is void."""
        ...


class Pins(Protocol):
    """A hold on the blocks that a lookup found; an index's `Match`, or what stands for one. Let go when destroyed."""

    @property
    def num_pending(self) -> int:
        """Blocks directly behind them that are being written now."""
        ...

    @property
    def generation(self) -> int:
        """The generation in which they were found."""
        ...

    def truncate(self, num_blocks: int, /) -> None:
        """Let go of the blocks from num_blocks on."""
        ...

    def release(self) -> None:
        """Let go of everything. Idempotent."""
        ...


class Lookup:
    """What a lookup found and what the plan makes of it. Holds pins until released, launched or destroyed.

    Attributes:
        sequence: the sequence that was looked up.
        matched_blocks: leading blocks that are stored.
        first_block: the first block to load; those before it the engine holds already.
        num_blocks: blocks from there on that are worth loading.
        num_pending: blocks directly behind the stored ones that are being written right now.
        segments: where the blocks to load lie, in order.
    """

    __slots__ = (
        "_index",
        "_match",
        "first_block",
        "generation",
        "matched_blocks",
        "num_blocks",
        "num_pending",
        "segments",
        "sequence",
    )

    def __init__(
        self,
        index: Promises,
        sequence: TokenSequence,
        match: Pins,
        matched_blocks: int,
        blocks: range,
        segments: tuple[Segment, ...],
    ) -> None:
        self._index = index
        self.sequence = sequence
        self.matched_blocks = matched_blocks
        self.first_block = blocks.start
        self.num_blocks = len(blocks)
        self.num_pending = match.num_pending
        self.segments = segments
        self.generation = match.generation
        if blocks.stop < matched_blocks:
            match.truncate(blocks.stop)
        self._match: Pins | None = match

    @property
    def num_tokens(self) -> int:
        """Tokens that the blocks to load hold."""
        return self.num_blocks * self.sequence.tokens_per_block

    @property
    def pins(self) -> Pins | None:
        """What it holds; None if that was released or handed over."""
        return self._match

    def check_launchable(self, index: Promises) -> None:
        """Raise unless an operation on `index` may take the pins over.

        Raises:
            StaleTicketError: they were released or handed over before, or the index was cleared since.
            ValueError: the lookup is another cache's; its slots mean nothing here.
        """
        if self._index is not index:
            raise ValueError("this lookup was made by another cache; look the sequence up in the one that launches it")
        if self._match is None:
            raise StaleTicketError("this lookup was launched or released before; look the sequence up again")
        if self.generation != index.generation:
            raise StaleTicketError("the cache was reset after this lookup; look the sequence up again")

    def take_match(self) -> Pins:
        """Hand the pins over to an operation. The lookup must be launchable."""
        match, self._match = self._match, None
        assert match is not None, "a lookup was launched without check_launchable"
        return match

    def release(self) -> None:
        """Give the pins back. Idempotent."""
        if self._match is not None:
            self._match.release()
            self._match = None

    def __enter__(self) -> "Lookup":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __repr__(self) -> str:
        where = ", ".join(f"{s.tier.name.lower()}: {s.num_blocks}" for s in self.segments) or "nothing"
        return f"Lookup(load {self.num_blocks} of {self.matched_blocks} stored blocks; {where})"


def check_launchable(lookups: Sequence[Lookup], index: Promises) -> None:
    """Raise what a launch on `index` would raise for one of several lookups, and for one that is named twice."""
    for lookup in lookups:
        lookup.check_launchable(index)
    if len(lookups) > 1 and len({id(lookup) for lookup in lookups}) < len(lookups):
        raise ValueError("a lookup is named twice; look the sequence up once for each load")


def adopt(index: Index, tiers: tuple[TierName, ...], sequence: TokenSequence, match: Match, blocks: range) -> Lookup:
    """Make a lookup of what was found without `Control.lookup`, where what to load was decided elsewhere; takes over the pins.

    Args:
        tiers: as the index numbers them.
        match: the index's, of that sequence.
        blocks: those to load.

    Raises:
        ValueError: they are not all among those found. The match keeps its pins.
    """
    found = match.segments
    num_matched = found[-1][1] + found[-1][2] if found else 0
    if not 0 <= blocks.start <= blocks.stop <= num_matched:
        raise ValueError(f"blocks {blocks.start} to {blocks.stop} are to be loaded, of {num_matched} that were found")
    segments = tuple([Segment(tiers[number], first, count) for number, first, count in found])
    segments = cut_segments(segments, blocks.stop, first_block=blocks.start)
    return Lookup(index, sequence, match, num_matched, blocks, segments)


class Operation(msgspec.Struct, kw_only=True, eq=False):
    """A plan under way and what it holds.

    Attributes:
        statuses: uint8[num_blocks], outcome of each block as its owner sees it, PENDING until known.
        sequence: whose blocks they are; None if the control half chose them itself.
        segments: where a load's blocks came from.
        arrived: blocks that reached each tier.
        attached: (first block in the operation, count, ticket) of blocks that another ticket is writing.
        refusals: names of what held blocks back from a tier, to be counted as throttled.
        deferred: slots that became void while a move of this operation may still read them.
    """

    plan: Plan
    statuses: NDArray[np.uint8]
    sequence: TokenSequence | None = None
    match: Match | None = None
    reservations: dict[int, Reservation] = {}
    segments: tuple[Segment, ...] = ()
    arrived: dict[TierName, int] = {}
    attached: tuple[tuple[int, int, int], ...] = ()
    refusals: tuple[str, ...] = ()
    deferred: list[Free] = []
