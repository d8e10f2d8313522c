"""Room ahead of need: watermarks, and what goes to disk before it leaves the host tier. Used by `control` only.

A tier that is more than its high watermark full is brought down to the low one. Under `on_evict` what is about to leave the
host tier is first copied to disk, in demotions of a bounded number of bytes; as they end, as many blocks are evicted.
"""

import numpy as np

from tiercel.control.admission import BUDGET, DiskAdmission
from tiercel.control.building import PlanBuilder, Stretch
from tiercel.control.operation import PENDING, Operation
from tiercel.control.settings import ControlSettings
from tiercel.index import Index, Match, Reservation
from tiercel.plan import Free, OperationKind, pack_slots
from tiercel.tiers.base import TierName

DEMOTION = "demotion"
"""Name under which an eviction from the host tier that no demotion could precede is counted as throttled."""


class Relief:
    """Watches how full the tiers are. Its calls are serialised by the dispatcher's lock, except `is_due`."""

    def __init__(
        self, settings: ControlSettings, index: Index, tiers: tuple[TierName, ...], admission: DiskAdmission
    ) -> None:
        self._index = index
        self._tiers = tiers
        self._admission = admission
        self._demotes = settings.demotes
        self._marks = tuple(settings.watermarks(tier) for tier in tiers)
        self._watched = [
            (number, mark.high)
            for number, mark in enumerate(self._marks)
            if mark.high < settings.capacities[tiers[number]]
        ]
        self._draining = [False] * len(tiers)
        self._num_demoting_max = max(1, settings.demotion_bytes_max // settings.block_bytes)
        self._demoting: dict[int, int] = {}
        """Blocks of each open demotion, by ticket."""
        self._num_demoted = 0
        """Blocks that lie on disk since the last eviction and may leave."""

    def is_due(self) -> bool:
        """Whether a tier is above its high watermark. Any thread."""
        for number, high in self._watched:
            stats = self._index.stats(number)
            if stats.num_slots - stats.num_free > high:
                return True
        return False

    def evict(self, now_s: float) -> tuple[Free, ...]:
        """Evict what may leave now. Returns the slots that became void, to be freed in their tiers."""
        frees: list[Free] = []
        for number, tier in enumerate(self._tiers):
            num_blocks = self._excess(number)
            if self._demotes and tier is TierName.HOST:
                num_excess, num_blocks = num_blocks, min(num_blocks, self._num_demoted)
                self._num_demoted = self._num_demoted - num_blocks if num_blocks < num_excess else 0
            frees += self._evict(number, num_blocks, now_s)
        return tuple(frees)

    def begin_demotion(self, ticket: int, now_s: float, deadline_s: float) -> Operation | None:
        """Plan to copy to disk what leaves the host tier next; None if nothing has to leave, enough is under way, or nothing
        that would leave has to be copied."""
        if not self._demotes:
            return None
        host, disk = self._tiers.index(TierName.HOST), self._tiers.index(TierName.DISK)
        num_open = sum(self._demoting.values())
        num_wanted = min(self._excess(host) - self._num_demoted, self._num_demoting_max) - num_open
        affordable = self._admission.num_affordable(now_s)
        if affordable is not None:
            num_wanted = min(num_wanted, affordable)
        if num_wanted <= 0:
            return None
        made = self._index.demote(host, disk, owner=ticket, num_blocks=num_wanted, now_s=now_s)
        if made is None:
            return None
        match, reservation = made
        assert reservation.num_blocks, "a demotion of nothing would be planned again and again"
        start = reservation.first_block
        builder = PlanBuilder(self._index, self._tiers, ticket, first_block=start, now_s=now_s)
        builder.free_voided(TierName.DISK, reservation)
        operation = copy_to_disk(builder, match, pack_slots(match.slots()), reservation, deadline_s)
        self._demoting[ticket] = operation.plan.num_blocks
        self._admission.spend(operation.plan.num_blocks)
        return operation

    def evict_undemoted(self, now_s: float) -> tuple[tuple[Free, ...], str | None]:
        """Evict what has to leave the host tier though no demotion could be begun: what lies on disk already, and what the
        disk or the budget has no room for. Returns the void slots and a name to count as throttled."""
        if not self._demotes or self._demoting:
            return (), None
        number = self._tiers.index(TierName.HOST)
        num_blocks = self._excess(number)
        self._num_demoted = 0
        frees = self._evict(number, num_blocks, now_s)
        exhausted = bool(frees) and self._admission.num_affordable(now_s) == 0
        return frees, BUDGET if exhausted else None

    def end(self, operation: Operation) -> None:
        """Note that a demotion ended: what arrived may leave the host tier."""
        if self._demoting.pop(operation.plan.ticket, None) is not None:
            self._num_demoted += operation.arrived.get(TierName.DISK, 0)

    def reset(self) -> None:
        """Forget what was on its way out."""
        self._demoting.clear()
        self._num_demoted = 0
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

    def _evict(self, number: int, num_blocks: int, now_s: float) -> tuple[Free, ...]:
        if num_blocks == 0:
            return ()
        slots = self._index.evict(number, num_blocks, now_s=now_s)
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
