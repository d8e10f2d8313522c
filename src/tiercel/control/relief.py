"""Room ahead of need: watermarks, and what goes to disk before it leaves the host tier. Used by `control` only.

A tier that is more than its high watermark full is brought down to the low one. Under `on_evict` what is about to leave the
host tier is first copied to disk, in demotions of a bounded number of bytes. What lies on disk leaves before anything more is
demoted, and nothing takes the room of what the host tier holds too: a disk tier that is full, or smaller than the host
tier, would otherwise give up what was demoted last for what is demoted next, and so on without end.
"""

import numpy as np

from tiercel.control.admission import BUDGET, DiskAdmission
from tiercel.control.building import PlanBuilder, Stretch
from tiercel.control.operation import PENDING, Operation
from tiercel.control.settings import ControlSettings, Watermarks
from tiercel.index import Index, Match, Reservation
from tiercel.plan import Free, OperationKind, pack_slots
from tiercel.tiers.base import TierName

DEMOTION = "demotion"
"""Name under which it is counted as throttled that a store or load had to make room in the host tier by itself: what it
evicted may not have been on disk yet."""

_UNKEPT_MAX = 128
"""Blocks that leave at once without lying on disk, where the disk tier has no room for them."""

_HELD_SHARE = 8
"""One slot of the host tier in so many may be held by demotions: a store can evict only from the others."""

_DEMOTIONS = 4
"""Demotions that share the bound of what is under way, at most: each one that ended would otherwise be followed by one of its own
size, and the few blocks of a short leaf would be written that few at a time for ever."""
_RETRY_S = 5.0
"""Time after a demotion that failed during which none is begun: a broken disk is not asked again and again."""


class Relief:
    """Watches how full the tiers are. Its calls are serialised by the dispatcher's lock, except `is_due`."""

    def __init__(
        self, settings: ControlSettings, index: Index, tiers: tuple[TierName, ...], admission: DiskAdmission
    ) -> None:
        self._index = index
        self._tiers = tiers
        self._admission = admission
        demotes = settings.demotes
        self._host = tiers.index(TierName.HOST) if demotes else None
        self._disk = tiers.index(TierName.DISK) if demotes else None
        self._capacities = [settings.capacities[tier] for tier in tiers]
        self._marks: tuple[Watermarks, ...] = ()
        self._watched: tuple[tuple[int, int], ...] = ()
        self.set_marks(tuple(settings.watermarks(tier) for tier in tiers))
        self.num_stores = 0
        """Stores that needed room in the host tier; `num_cramped` of these evicted by themselves or found no slot."""
        self.num_cramped = 0
        self._draining = [False] * len(tiers)
        num_held_max = settings.capacities.get(TierName.HOST, 0) // _HELD_SHARE
        self._num_demoting_max = max(1, min(settings.demotion_bytes_max // settings.block_bytes, num_held_max))
        self._demoting: dict[int, int] = {}
        """Blocks of each open demotion, by ticket."""
        self._retry_at_s = float("-inf")

    def set_marks(self, marks: tuple[Watermarks, ...]) -> None:
        """Relieve each tier by these watermarks from now on."""
        self._marks = marks
        self._watched = tuple(
            (number, mark.high) for number, mark in enumerate(marks) if mark.high < self._capacities[number]
        )

    def note_store(self, *, cramped: bool) -> None:
        """Count a store that needed room in the host tier."""
        self.num_stores += 1
        self.num_cramped += cramped

    def is_due(self) -> bool:
        """Whether a tier is above its high watermark. Any thread."""
        for number, high in self._watched:
            stats = self._index.stats(number)
            if stats.num_slots - stats.num_free > high:
                return True
        return False

    def evict(self, now_s: float) -> tuple[Free, ...]:
        """Evict what need not go elsewhere first. Under `on_evict` that is of the host tier what lies on disk, and of the disk
        what the host tier lacks. Returns the void slots, to be freed."""
        frees: list[Free] = []
        for number in range(len(self._tiers)):
            kept_in = self._disk if number == self._host else None
            spared_in = self._host if number == self._disk else None
            frees += self._evict(number, self._excess(number), now_s, kept_in, spared_in)
        return tuple(frees)

    def begin_demotion(self, ticket: int, now_s: float, deadline_s: float) -> Operation | None:
        """Plan to copy to disk what leaves the host tier next; None if nothing has to leave, enough is under way, or nothing
        that would leave has to be copied."""
        if self._host is None or now_s < self._retry_at_s or self._excess(self._host) == 0:
            return None
        num_wanted = self._num_demoting_max - sum(self._demoting.values())
        if num_wanted < self._num_demoting_max // _DEMOTIONS:
            return None
        affordable = self._admission.num_affordable(now_s)
        if affordable is not None:
            num_wanted = min(num_wanted, affordable)
        if num_wanted <= 0:
            return None
        assert self._disk is not None, "without a disk tier nothing is demoted"
        made = self._index.demote(self._host, self._disk, owner=ticket, num_blocks=num_wanted, now_s=now_s)
        if made is None:
            return None
        match, reservation = made
        assert reservation.num_blocks, "a demotion of nothing would be planned again and again"
        builder = PlanBuilder(self._index, self._tiers, ticket, first_block=reservation.first_block, now_s=now_s)
        builder.free_voided(TierName.DISK, reservation)
        operation = copy_to_disk(builder, match, match.packed_slots(), reservation, deadline_s)
        self._demoting[ticket] = operation.plan.num_blocks
        self._admission.spend(operation.plan.num_blocks)
        return operation

    def evict_undemoted(self, now_s: float) -> tuple[tuple[Free, ...], str | None]:
        """Evict from the host tier what could not be demoted, after `begin_demotion` had nothing to begin, unless demotions are
        under way. Returns the void slots, none if nothing has to or can leave, and a name to count as throttled."""
        if self._host is None or self._demoting or now_s < self._retry_at_s:
            return (), None
        excess = self._excess(self._host)
        over_budget = self._admission.num_affordable(now_s) == 0
        frees = self._evict(self._host, excess if over_budget else min(excess, _UNKEPT_MAX), now_s)
        return frees, BUDGET if over_budget and frees else None

    def end(self, operation: Operation, now_s: float) -> None:
        """Note that a demotion ended. Where a part of it failed, the host tier keeps its blocks and none is begun for a while."""
        self._demoting.pop(operation.plan.ticket, None)
        if operation.arrived.get(TierName.DISK, 0) < operation.plan.num_blocks:
            self._retry_at_s = now_s + _RETRY_S

    def reset(self) -> None:
        """Forget how full the tiers were, and what failed."""
        self._retry_at_s = float("-inf")
        self._draining = [False] * len(self._tiers)

    def _excess(self, number: int) -> int:
        """Blocks that a tier is to lose."""
        stats, mark = self._index.stats(number), self._marks[number]
        num_used = stats.num_slots - stats.num_free
        if num_used > mark.high:
            self._draining[number] = True
        elif num_used <= mark.low:
            self._draining[number] = False
        return max(0, num_used - mark.low) if self._draining[number] else 0

    def _evict(
        self, number: int, num_blocks: int, now_s: float, kept_in: int | None = None, spared_in: int | None = None
    ) -> tuple[Free, ...]:
        if num_blocks == 0:
            return ()
        slots = self._index.evict(number, num_blocks, now_s=now_s, kept_in=kept_in, spared_in=spared_in)
        return (Free(tier=self._tiers[number], slots=pack_slots(slots)),) if len(slots) else ()


def copy_to_disk(
    builder: PlanBuilder, match: Match, slots: bytes, reservation: Reservation, deadline_s: float
) -> Operation:
    """Plan a copy of a reservation's blocks to disk from the host tier; takes over the match that pins them there.

    Args:
        builder: one whose first block is the reservation's.
        slots: the blocks' slots in the host tier.
    """
    start, num_blocks = reservation.first_block, reservation.num_blocks
    if num_blocks:
        builder.take(Stretch(TierName.HOST, start, start + num_blocks, slots), TierName.DISK, reservation)
    return Operation(
        plan=builder.plan(OperationKind.DEMOTE, num_blocks, deadline_s),
        statuses=np.full(num_blocks, PENDING, np.uint8),
        match=match,
        reservations=builder.reservations,
    )
