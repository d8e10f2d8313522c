"""The control half in one object: index, costs and plans, without bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiercel.control.building import PlanBuilder
from tiercel.control.operation import PENDING, Lookup, Operation
from tiercel.costs import PrefillCostModel, TransferCost, TransferCostModel
from tiercel.hashing import KEY_BYTES
from tiercel.hashing import Sequence as TokenSequence
from tiercel.index import Index, IndexStats
from tiercel.plan import (
    NO_MOVE,
    Completion,
    Free,
    LoadPolicy,
    Move,
    OperationKind,
    Segment,
    choose_split,
    cut_segments,
    pack_slots,
)
from tiercel.tiers.base import BlockStatus, Slots, TierName

_PRIOR_COSTS = ((0.0, float("inf")), (50e-6, 10e9), (500e-6, 1e9), (5e-3, 0.5e9))
"""Latency in seconds and bytes a second that are assumed of each tier, by TierName, before its first transfer."""

# Members of an enum are slow to reach by name, and these are reached for every move.
_GPU, _LOAD, _OK = TierName.GPU, OperationKind.LOAD, int(BlockStatus.OK)

_LOST = (BlockStatus.MISSING, BlockStatus.CORRUPT, BlockStatus.IO_ERROR)
"""Outcomes of a read after which the block is forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """What the control half needs to know of the configuration.

    Attributes:
        capacities: slots per tier; at least one tier.
        evict_ratio: least part of a full tier that is evicted at once, in [0, 1).
    """

    capacities: Mapping[TierName, int]
    tokens_per_block: int
    block_bytes: int
    load_policy: LoadPolicy = LoadPolicy.AUTO
    evict_ratio: float = 0.0


class Control:
    """Index, costs and plans of one cache. See the package's docstring for how its methods follow each other."""

    def __init__(self, settings: ControlSettings) -> None:
        self.settings = settings
        self.tiers = tuple(sorted(settings.capacities))
        self._numbers = {tier: number for number, tier in enumerate(self.tiers)}
        capacities = [settings.capacities[tier] for tier in self.tiers]
        self.index = Index(capacities, evict_batch=[max(1, int(c * settings.evict_ratio)) for c in capacities])
        self._never_loads = settings.load_policy is LoadPolicy.NEVER
        self._always_loads = settings.load_policy is LoadPolicy.ALWAYS
        self.prefill = PrefillCostModel()
        # Indexed by TierName: as keys of a dict its members are slow.
        self.transfer_costs = tuple(
            TransferCostModel(latency_s=latency_s, bytes_per_s=bytes_per_s) for latency_s, bytes_per_s in _PRIOR_COSTS
        )

    def lookup(
        self,
        sequence: TokenSequence,
        *,
        limit_tokens: int | None = None,
        queued_bytes: Mapping[TierName, int] | None = None,
    ) -> Lookup:
        """Find and pin the leading blocks of a sequence and decide how many of them to load.

        Args:
            limit_tokens: load no more than this many tokens (an engine must compute at least the last one itself).
            queued_bytes: bytes that already wait to be loaded from each tier.
        """
        limit_blocks = None if limit_tokens is None else max(0, limit_tokens) // self.settings.tokens_per_block
        match = self.index.match(sequence, limit_blocks=limit_blocks)
        tiers = self.tiers
        segments = tuple([Segment(tiers[t], first, count) for t, first, count in match.segments])
        num_blocks = self._blocks_to_load(segments, sequence.num_tokens, queued_bytes) if segments else 0
        if num_blocks < match.num_blocks:
            segments = cut_segments(segments, num_blocks)
        return Lookup(self.index, sequence, match, num_blocks, segments)

    def _blocks_to_load(
        self, segments: Sequence[Segment], num_tokens: int, queued_bytes: Mapping[TierName, int] | None
    ) -> int:
        matched = segments[-1].first_block + segments[-1].num_blocks
        if self._never_loads:
            return 0
        if self._always_loads or self.prefill.num_observations == 0:
            return matched
        chosen = choose_split(
            segments,
            num_tokens=num_tokens,
            tokens_per_block=self.settings.tokens_per_block,
            block_bytes=self.settings.block_bytes,
            costs=[self._load_cost(segment.tier, queued_bytes) for segment in segments],
            prefill=self.prefill.curve,
        )
        for segment in segments:
            if segment.first_block >= chosen:
                self.transfer_costs[segment.tier].decline()
        return chosen

    def _load_cost(self, tier: TierName, queued_bytes: Mapping[TierName, int] | None) -> TransferCost:
        cost = self.transfer_costs[tier].cost
        if not queued_bytes:
            return cost
        return TransferCost(cost.latency_s, cost.bytes_per_s, queued_bytes.get(tier, 0) / cost.bytes_per_s)

    def check_launchable(self, lookups: Sequence[Lookup]) -> None:
        """Raise what `begin_load` would raise for one of several lookups, and for one that is named twice. Nothing changes."""
        for lookup in lookups:
            lookup.check_launchable(self.index)
        if len({id(lookup) for lookup in lookups}) < len(lookups):
            raise ValueError("a lookup is named twice; look the sequence up once for each load")

    def begin_load(self, ticket: int, lookup: Lookup, *, deadline_s: float) -> Operation:
        """Plan to bring a lookup's blocks to the engine; takes over its pins. Blocks from slower tiers are kept in the fastest
        one on their way where it has room, and go past it where it has none.

        Raises:
            StaleTicketError: the lookup was used before, or the cache was reset since. Nothing changed.
            ValueError: the lookup is another cache's. Nothing changed.
        """
        return self._begin_read(ticket, lookup, OperationKind.LOAD, deadline_s)

    def begin_prefetch(self, ticket: int, lookup: Lookup, *, deadline_s: float) -> Operation:
        """Plan to bring a lookup's blocks to the fastest tier that has slots; takes over its pins. Raises as begin_load does."""
        return self._begin_read(ticket, lookup, OperationKind.PREFETCH, deadline_s)

    def _begin_read(self, ticket: int, lookup: Lookup, kind: OperationKind, deadline_s: float) -> Operation:
        lookup.check_launchable(self.index)
        match = lookup.take_match()
        loading = kind is _LOAD
        builder = PlanBuilder(self.index, self.tiers, ticket, lookup.sequence)
        statuses = np.empty(lookup.num_blocks, np.uint8)
        statuses.fill(PENDING if loading else BlockStatus.NO_SPACE)
        for segment in lookup.segments:
            slower = segment.tier > self.tiers[0]
            if loading or slower:
                kept = builder.load(match, segment, keep=slower, deliver=loading)
            else:
                kept = range(segment.first_block, segment.first_block + segment.num_blocks)
            if not loading:
                statuses[kept.start : kept.stop] = PENDING if slower else BlockStatus.OK
        plan = builder.plan(kind, lookup.num_blocks, deadline_s)
        return Operation(
            plan=plan,
            sequence=lookup.sequence,
            segments=lookup.segments,
            statuses=statuses,
            match=match,
            reservations=builder.reservations,
        )

    def begin_store(
        self,
        ticket: int,
        sequence: TokenSequence,
        *,
        first_block: int,
        num_blocks: int,
        deadline_s: float,
        targets: Sequence[TierName],
    ) -> Operation:
        """Plan to store blocks [first_block, first_block + num_blocks) of a sequence, those that are not stored yet.

        If blocks before `first_block` are no longer stored, nothing behind them can be: those end as `MISSING`.

        Args:
            targets: the tiers to write to, fastest first; at least one.
        """
        end = max(first_block, min(sequence.num_blocks, first_block + num_blocks))
        builder = PlanBuilder(self.index, self.tiers, ticket, sequence, first_block=first_block)
        statuses, attached = builder.store(end, tuple(targets))
        return Operation(
            plan=builder.plan(OperationKind.STORE, end - first_block, deadline_s),
            sequence=sequence,
            statuses=statuses,
            reservations=builder.reservations,
            attached=attached,
        )

    def complete(self, operation: Operation, completion: Completion) -> tuple[Free, ...]:
        """Take in how a move ended. Returns the slots that became void, to be freed in their tiers."""
        move = operation.plan.moves[completion.move]
        num_ok = completion.statuses.count(_OK)
        statuses = np.frombuffer(completion.statuses, np.uint8)
        voided: list[tuple[TierName, Slots]] = []
        reservation = operation.reservations.get(completion.move)
        if reservation is not None:
            failed = None if num_ok == move.num_blocks else statuses != _OK
            voided.append((move.target, self.index.commit(reservation, failed)))
        operation.arrived[move.target] = operation.arrived.get(move.target, 0) + num_ok
        if move.source > move.target:
            if num_ok < move.num_blocks and move.after == NO_MOVE:
                voided.append((move.source, self._forget_lost(operation, move, statuses)))
            self.transfer_costs[move.source].observe(completion.num_bytes, completion.busy_s)
        if move.target == _GPU or operation.plan.kind is not _LOAD:
            window = operation.statuses[move.first_block : move.first_block + move.num_blocks]
            np.copyto(window, statuses, where=window == PENDING)
        return tuple([Free(tier=tier, slots=pack_slots(slots)) for tier, slots in voided if len(slots)])

    def _forget_lost(self, operation: Operation, move: Move, statuses: NDArray[np.uint8]) -> Slots:
        """Forget the first block that its tier could not deliver, and those behind it. Returns the void slots."""
        lost = np.flatnonzero(np.isin(statuses, _LOST))
        if len(lost) == 0:
            return np.empty(0, np.uint32)
        block = operation.plan.first_block + move.first_block + int(lost[0])
        return self.index.drop(operation.sequence, block, self._numbers[move.source])

    def settle_attached(self, operation: Operation) -> None:
        """Decide the blocks that other tickets were writing, now that those have ended: stored, or missing."""
        first_block = operation.plan.first_block
        match = self.index.match(operation.sequence, limit_blocks=first_block + operation.plan.num_blocks, touch=False)
        num_ready = match.num_blocks - first_block
        match.release()
        for first, count, _ in operation.attached:
            ready = np.arange(first, first + count) < num_ready
            operation.statuses[first : first + count] = np.where(ready, BlockStatus.OK, BlockStatus.MISSING)
        operation.attached = ()

    def finish(self, operation: Operation) -> None:
        """Let go of an operation's pins and reservations. Idempotent; every move must have completed."""
        if operation.match is not None:
            operation.match.release()
            operation.match = None
        for reservation in operation.reservations.values():
            reservation.release()
        operation.reservations.clear()

    def reset(self) -> tuple[Free, ...]:
        """Forget every block, since the weights changed. No operation may be open. Returns all slots, to be freed."""
        self.index.clear()
        return tuple(
            Free(tier=tier, slots=pack_slots(np.arange(capacity, dtype=np.uint32)))
            for tier, capacity in self.settings.capacities.items()
        )

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
