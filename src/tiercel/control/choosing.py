"""Which of the stored blocks are worth loading, on costs learnt from earlier loads and prefills. Used by `control` only."""

from collections.abc import Callable, Mapping, Sequence

from tiercel.control.settings import ControlSettings
from tiercel.costs import PrefillCostModel, TransferCost, TransferCostModel
from tiercel.plan import LoadPolicy, Segment, choose_split
from tiercel.tiers.base import TierName

_PRIOR_COSTS = ((0.0, float("inf")), (50e-6, 10e9), (500e-6, 1e9), (5e-3, 0.5e9))
"""Latency in seconds and bytes a second that are assumed of each tier, by TierName, before its first transfer."""

QueuedBytes = Callable[[], Mapping[TierName, int]]
"""Tells the bytes that already wait to be loaded from each tier; asked only where it matters."""


class LoadChoice:
    """Weighs loading against recompute."""

    def __init__(self, settings: ControlSettings) -> None:
        self._tokens_per_block = settings.tokens_per_block
        self._block_bytes = settings.block_bytes
        self._never_loads = settings.load_policy is LoadPolicy.NEVER
        self._always_loads = settings.load_policy is LoadPolicy.ALWAYS
        self.prefill = PrefillCostModel()
        # Indexed by TierName: as keys of a dict its members are slow.
        self.transfer_costs = tuple(
            TransferCostModel(latency_s=latency_s, bytes_per_s=bytes_per_s) for latency_s, bytes_per_s in _PRIOR_COSTS
        )

    def stop_block(self, segments: Sequence[Segment], num_tokens: int, queued_bytes: QueuedBytes | None) -> int:
        """Before which block to end loading, of those that the segments, at least one, cover."""
        if self._never_loads:
            return segments[0].first_block
        last = segments[-1]
        matched = last.first_block + last.num_blocks
        if self._always_loads or self.prefill.num_observations == 0:
            return matched
        queued = queued_bytes() if queued_bytes is not None else {}
        chosen = choose_split(
            segments,
            num_tokens=num_tokens,
            tokens_per_block=self._tokens_per_block,
            block_bytes=self._block_bytes,
            costs=[self._cost(segment.tier, queued) for segment in segments],
            prefill=self.prefill.curve,
        )
        if chosen < matched:
            for segment in segments:
                if segment.first_block >= chosen:
                    self.transfer_costs[segment.tier].decline()
        return chosen

    def _cost(self, tier: TierName, queued: Mapping[TierName, int]) -> TransferCost:
        cost = self.transfer_costs[tier].cost
        if not queued:
            return cost
        return TransferCost(cost.latency_s, cost.bytes_per_s, queued.get(tier, 0) / cost.bytes_per_s)
