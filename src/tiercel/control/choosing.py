"""Which of the stored blocks are worth loading. Used by `control`, and where costs are read that a `Control` elsewhere learnt."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from tiercel.control.settings import ControlSettings
from tiercel.costs import PrefillCostModel, PrefillCurve, TransferCost, TransferCostModel
from tiercel.plan import LoadPolicy, Segment, choose_split
from tiercel.tiers.base import TierName

_PRIOR_COSTS = ((0.0, float("inf")), (50e-6, 10e9), (500e-6, 1e9), (5e-3, 0.5e9))
"""Latency in seconds and bytes a second that are assumed of each tier, by TierName, before its first transfer."""

QueuedBytes = Callable[[], Mapping[TierName, int]]
"""Tells the bytes that already wait to be loaded from each tier; asked only where it matters."""


class LoadChoice(ABC):
    """Weighs loading against recompute."""

    def __init__(self, policy: LoadPolicy, *, tokens_per_block: int, block_bytes: int) -> None:
        self._tokens_per_block = tokens_per_block
        self._block_bytes = block_bytes
        self._never_loads = policy is LoadPolicy.NEVER
        self._always_loads = policy is LoadPolicy.ALWAYS

    @abstractmethod
    def _curve(self) -> PrefillCurve | None:
        """What computing costs; None as long as nobody told."""

    @abstractmethod
    def _cost(self, tier: TierName) -> TransferCost:
        """What loading from a tier costs while nothing else waits for it."""

    @abstractmethod
    def _decline(self, tiers: Sequence[TierName]) -> None:
        """Note that blocks of these tiers, one for each segment, were not thought worth loading."""

    def stop_block(self, segments: Sequence[Segment], num_tokens: int, queued_bytes: QueuedBytes | None) -> int:
        """Before which block to end loading, of those that the segments, at least one, cover."""
        if self._never_loads:
            return segments[0].first_block
        last = segments[-1]
        matched = last.first_block + last.num_blocks
        curve = None if self._always_loads else self._curve()
        if curve is None:
            return matched
        queued = queued_bytes() if queued_bytes is not None else {}
        chosen = choose_split(
            segments,
            num_tokens=num_tokens,
            tokens_per_block=self._tokens_per_block,
            block_bytes=self._block_bytes,
            costs=[self._queued_cost(segment.tier, queued) for segment in segments],
            prefill=curve,
        )
        if chosen < matched:
            self._decline([segment.tier for segment in segments if segment.first_block >= chosen])
        return chosen

    def _queued_cost(self, tier: TierName, queued: Mapping[TierName, int]) -> TransferCost:
        cost = self._cost(tier)
        if not queued:
            return cost
        return TransferCost(cost.latency_s, cost.bytes_per_s, queued.get(tier, 0) / cost.bytes_per_s)


class LearntChoice(LoadChoice):
    """Decides on costs learnt from earlier loads and prefills."""

    def __init__(self, settings: ControlSettings) -> None:
        super().__init__(
            settings.load_policy, tokens_per_block=settings.tokens_per_block, block_bytes=settings.block_bytes
        )
        self.prefill = PrefillCostModel()
        # Indexed by TierName: as keys of a dict its members are slow.
        self.transfer_costs = tuple(
            TransferCostModel(latency_s=latency_s, bytes_per_s=bytes_per_s) for latency_s, bytes_per_s in _PRIOR_COSTS
        )

    def _curve(self) -> PrefillCurve | None:
        return self.prefill.curve if self.prefill.num_observations else None

    def _cost(self, tier: TierName) -> TransferCost:
        return self.transfer_costs[tier].cost

    def _decline(self, tiers: Sequence[TierName]) -> None:
        for tier in tiers:
            self.transfer_costs[tier].decline()
