"""The control half in one object: index, costs, admission and plans, without bytes."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tiercel.control.admission import BUDGET, DiskAdmission
from tiercel.control.building import Attached, PlanBuilder, note_prefetched
from tiercel.control.changes import BlockWatch
from tiercel.control.choosing import LearntChoice, QueuedBytes
from tiercel.control.ghost import HitCurve, make_ghost, read_curve, read_tier_shares
from tiercel.control.indexing import count_present, make_index
from tiercel.control.operation import PENDING, Lookup, Operation, check_launchable
from tiercel.control.outcomes import Outcomes
from tiercel.control.priorities import Ladder, Priority, count_leading
from tiercel.control.relief import DEMOTION, Relief, copy_to_disk
from tiercel.control.settings import ControlSettings, Tuned
from tiercel.control.storing import StoreBuilder
from tiercel.control.tenants import Tenants
from tiercel.hashing import KEY_BYTES
from tiercel.hashing import Sequence as TokenSequence
from tiercel.index import IndexStats, Match
from tiercel.plan import Free, OperationKind, Segment, cut_segments, pack_slots
from tiercel.tiers.base import BlockStatus, Slots, TierName

# Members of an enum are slow to reach by name, and these are reached for every operation.
_HOST, _DISK = TierName.HOST, TierName.DISK
_LOAD, _PREFETCH, _STORE = OperationKind.LOAD, OperationKind.PREFETCH, OperationKind.STORE
_OK, _NO_SPACE, _MISSING = int(BlockStatus.OK), int(BlockStatus.NO_SPACE), int(BlockStatus.MISSING)
_ALL_BLOCKS = 1 << 32
_PENDING_BYTE, _NO_SPACE_BYTE = bytes([PENDING]), bytes([_NO_SPACE])


class Control:
    """Index, costs and plans of one cache. See the package's docstring for how its methods follow each other."""

    def __init__(self, settings: ControlSettings) -> None:
        self.settings = settings
        self.tiers = tuple(sorted(settings.capacities))
        self._numbers = {tier: number for number, tier in enumerate(self.tiers)}
        self.index = make_index(settings)
        self.blocks = BlockWatch(self.index, self.tiers)
        self._ghost = make_ghost(settings)
        self._choice = LearntChoice(settings)
        self._admission = DiskAdmission(settings)
        self._sees = self._admission.sees
        self._tokens_per_block = settings.tokens_per_block
        self._demotes = settings.demotes
        outcomes = Outcomes(self.index, self.tiers, self._choice.transfer_costs)
        self._outcomes = outcomes
        self.complete, self.settle_attached, self.finish = outcomes.complete, outcomes.settle_attached, outcomes.finish
        self.relief = Relief(settings, self.index, self.tiers, self._admission)
        self.prefill, self.transfer_costs = self._choice.prefill, self._choice.transfer_costs
        self.num_resets = 0
        self.tenants = Tenants(self.index, self._numbers)

    @property
    def promotes_hits(self) -> bool:
        """Whether a hit may be what brings blocks of the host tier to disk."""
        return self._admission.counts and len(self.tiers) > 1

    def lookup(
        self,
        sequence: TokenSequence,
        *,
        now_s: float = 0.0,
        limit_tokens: int | None = None,
        engine_tokens: int = 0,
        queued_bytes: QueuedBytes | None = None,
    ) -> Lookup:
        """Find and pin the leading blocks of a sequence and decide how many of them to load.

        Args:
            limit_tokens: load no more than this many tokens (an engine must compute at least the last one itself).
            engine_tokens: leading tokens that the engine holds already; the full blocks of these are not loaded.
            queued_bytes: tells the bytes that already wait to be loaded from each tier.
        """
        limit_blocks = None if limit_tokens is None else max(0, limit_tokens) // self._tokens_per_block
        match = self.index.match(sequence, limit_blocks=limit_blocks, now_s=now_s)
        found = match.segments
        if not found:
            self.note_lookup(sequence, limit_blocks, 0)
            return Lookup(self.index, sequence, match, 0, range(0), ())
        tiers = self.tiers
        segments = tuple([Segment(tiers[t], first, count) for t, first, count in found])
        _, first, count = found[-1]
        num_matched = first + count
        self.note_lookup(sequence, limit_blocks, num_matched)
        start = engine_tokens // self._tokens_per_block
        if start > 0:
            start = min(start, num_matched)
            segments = cut_segments(segments, num_matched, first_block=start)
        stop = self._choice.stop_block(segments, sequence.num_tokens, queued_bytes) if segments else start
        if stop < num_matched:
            segments = cut_segments(segments, stop)
        return Lookup(self.index, sequence, match, num_matched, range(start, stop), segments)

    def note_lookup(self, sequence: TokenSequence, limit_blocks: int | None, num_matched: int) -> None:
        """Enter a lookup into what is counted: the ghost index, and what admission goes by. Any thread.

        Args:
            num_matched: leading blocks that were found.
        """
        if self._ghost is not None:
            self._ghost.observe_hashed(sequence, _ALL_BLOCKS if limit_blocks is None else limit_blocks)
        if self._sees and num_matched:
            self._admission.see(sequence, num_matched)

    def check_launchable(self, lookups: Sequence[Lookup]) -> None:
        """Raise what `begin_load` would raise for one of several lookups, and for one that is named twice. Nothing changes."""
        check_launchable(lookups, self.index)

    def begin_load(self, ticket: int, lookup: Lookup, *, deadline_s: float, now_s: float = 0.0) -> Operation:
        """Plan to bring a lookup's blocks to the engine; takes over its pins. Blocks from slower tiers are kept in the fastest
        one on their way where it has room, and go past it where it has none.

        Raises:
            StaleTicketError: the lookup was used before, or the cache was reset since. Nothing changed.
            ValueError: the lookup is another cache's. Nothing changed.
        """
        return self._begin_read(ticket, lookup, _LOAD, deadline_s, now_s)

    def begin_prefetch(self, ticket: int, lookup: Lookup, *, deadline_s: float, now_s: float = 0.0) -> Operation:
        """Plan to bring a lookup's blocks to the fastest tier that has slots; takes over its pins. Blocks that another ticket
        is bringing are waited for. Raises as begin_load does."""
        return self._begin_read(ticket, lookup, _PREFETCH, deadline_s, now_s)

    def _begin_read(
        self, ticket: int, lookup: Lookup, kind: OperationKind, deadline_s: float, now_s: float
    ) -> Operation:
        lookup.check_launchable(self.index)
        match = lookup.take_match()
        assert isinstance(match, Match), "a lookup that may be launched here was made here"
        loading = kind is _LOAD
        top = self.tiers[0]
        base = lookup.first_block
        builder = PlanBuilder(self.index, self.tiers, ticket, first_block=base, now_s=now_s)
        sequence = lookup.sequence
        # As a buffer of its own: numpy takes twice as long to make and fill an array.
        statuses = np.frombuffer(bytearray(_PENDING_BYTE * lookup.num_blocks), np.uint8)
        attached: Attached = ()
        for segment in lookup.segments:
            if segment.tier is top:
                if loading:
                    builder.deliver(match, segment)
                else:
                    begin = segment.first_block - base
                    statuses[begin : begin + segment.num_blocks] = _OK
                continue
            kept, brought = builder.load(sequence, match, segment, deliver=loading)
            if not loading:
                attached += note_prefetched(statuses, base, segment, kept, brought)
        operation = Operation(
            plan=builder.plan(kind, lookup.num_blocks, deadline_s),
            sequence=sequence,
            statuses=statuses,
            match=match,
            reservations=builder.reservations,
            segments=lookup.segments,
            attached=attached,
            refusals=self._refusals(builder),
        )
        if operation.reservations:
            self._outcomes.open(operation)
        return operation

    def _refusals(self, builder: PlanBuilder) -> tuple[str, ...]:
        return (DEMOTION,) if self._demotes and _HOST in builder.evicting else ()

    def begin_store(
        self,
        ticket: int,
        sequence: TokenSequence,
        *,
        blocks: range,
        deadline_s: float,
        targets: Sequence[TierName],
        priority: Priority = 0,
        now_s: float = 0.0,
    ) -> Operation:
        """Plan to store the full blocks among `blocks` of a sequence: from the engine into the tiers that lack
        them and take them. Behind a block that no tier holds or gets, blocks end as `MISSING`, and so do those behind the first
        one whose priority is too low.

        Args:
            targets: the tiers to write to, fastest first; at least one.
            priority: of all blocks, or of each.
        """
        first_block = blocks.start
        end = max(first_block, min(sequence.num_blocks, blocks.stop))
        asked = end - first_block
        end = first_block + count_leading(priority, asked, self.settings.min_store_priority)
        builder = PlanBuilder(self.index, self.tiers, ticket, first_block=first_block, now_s=now_s)
        refusals: tuple[str, ...] = ()
        stops = [(tier, end) for tier in targets if tier is not _DISK or not self._demotes]
        self._admission.see(sequence, end)
        if self._ghost is not None:
            self._ghost.insert(sequence, limit_blocks=end)
        if stops[-1][0] is _DISK:
            admitted, refusals = self._afforded(sequence, self._admission.num_admitted(sequence, end), now_s)
            stops[-1] = (_DISK, admitted)
        ladder = Ladder(priority, first_block, end)
        store = StoreBuilder(builder, sequence, ladder, ticket=ticket, first_block=first_block, end=end)
        statuses, attached = store.store(stops)
        if targets[0] is _HOST:
            cramped = _HOST in builder.evicting or _NO_SPACE_BYTE in statuses.tobytes()
            if cramped or builder.reservations:
                self.relief.note_store(cramped=cramped)
        if end - first_block < asked:
            statuses = np.concatenate([statuses, np.full(first_block + asked - end, _MISSING, np.uint8)])
        if self._admission.limited:
            self._admission.spend(builder.num_moved_to(_DISK))
        return Operation(
            plan=builder.plan(_STORE, asked, deadline_s),
            sequence=sequence,
            statuses=statuses,
            reservations=builder.reservations,
            attached=attached,
            refusals=refusals + self._refusals(builder),
        )

    def _afforded(self, sequence: TokenSequence, admitted: int, now_s: float) -> tuple[int, tuple[str, ...]]:
        """How many of a sequence's admitted blocks the write budget lets go to disk, and its name if it allows no more."""
        affordable = self._admission.num_affordable(now_s)
        if affordable is None:
            return admitted, ()
        affordable += count_present(self.index, sequence, self._numbers[_DISK], admitted)
        return min(admitted, affordable), (BUDGET,) if affordable < admitted else ()

    def begin_promotion(
        self, ticket: int, sequence: TokenSequence, stop: int, *, deadline_s: float, now_s: float = 0.0
    ) -> tuple[Operation | None, tuple[str, ...]]:
        """Plan to copy to disk the blocks before `stop` that the disk lacks, the host tier holds and admission takes; None if
        there are none. A store that begins at `stop` would find a gap without them. Names what held blocks back, too."""
        if _HOST not in self._numbers or _DISK not in self._numbers or self._demotes:
            return None, ()
        disk = self._numbers[_DISK]
        present = count_present(self.index, sequence, disk, min(stop, sequence.num_blocks))
        if present >= min(stop, sequence.num_blocks):
            return None, ()
        self._admission.see(sequence, stop)
        admitted = self._admission.num_admitted(sequence, min(stop, sequence.num_blocks))
        match = self.index.match(sequence, limit_blocks=admitted, touch=False)
        num_held = sum(count for tier, _, count in match.segments if tier == 0)
        end, refusals = self._afforded(sequence, num_held, now_s)
        if end <= present:
            match.release()
            return None, refusals
        builder = PlanBuilder(self.index, self.tiers, ticket, first_block=present, now_s=now_s)
        reservation = builder.reserve(sequence, _DISK, range(present, end))
        self._admission.spend(reservation.num_blocks)
        slots = match.packed_slots(present, present + reservation.num_blocks)
        return copy_to_disk(builder, match, slots, reservation, deadline_s), refusals

    def tune(self, tuned: Tuned) -> None:
        """Let these values stand from now on; serialised like `begin_*`. What is under way is not touched."""
        if tuned.admission is not self.settings.ssd_admission or self._sees:
            self._admission.switch(tuned.admission)
        rooms = (tuned.host_room if tier is _HOST else 0.0 for tier in self.tiers)
        self.relief.set_marks(
            tuple(self.settings.watermarks(tier, room) for tier, room in zip(self.tiers, rooms, strict=True))
        )

    def reset(self) -> tuple[Free, ...]:
        """Forget every block, since the weights changed. No operation may be open. Returns all slots, to be freed."""
        self.index.clear()
        self.num_resets += 1
        self.relief.reset()
        if self._ghost is not None:
            self._ghost.clear()
        return tuple(
            Free(tier=tier, slots=pack_slots(np.arange(capacity, dtype=np.uint32)))
            for tier, capacity in self.settings.capacities.items()
        )

    def hit_curve(self, capacities_blocks: Iterable[int] | None) -> HitCurve:
        """The hit rate by capacity; see `Cache.hit_curve`."""
        return read_curve(self._ghost, self.settings, capacities_blocks)

    def tier_shares(self) -> dict[TierName, tuple[float, ...]]:
        """What each tier would serve at other capacities; see `ghost.read_tier_shares`. Nothing without a ghost index."""
        return {} if self._ghost is None else read_tier_shares(self._ghost, self.settings)

    def restore_blocks(
        self, tier: TierName, parents: NDArray[np.uint8], keys: NDArray[np.uint8], slots: Slots
    ) -> NDArray[np.bool_]:
        """Take in blocks that a tier recovered, least recently used first; see `Index.restore_blocks`. True where taken."""
        no_roots = np.empty((0, KEY_BYTES), np.uint8)
        return self.index.restore_blocks(self._numbers[tier], parents, keys, slots, no_roots)

    def export_blocks(self, tier: TierName) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Slots]:
        """Parent keys, keys and slots of a tier's ready blocks, least recently used first."""
        return self.index.export_blocks(self._numbers[tier])

    def stats(self, tier: TierName) -> IndexStats:
        """Occupancy of one tier."""
        return self.index.stats(self._numbers[tier])
