"""Whether to load or to recompute, on the costs that the node writes on its board. Used by `client` only."""

from collections.abc import Callable, Mapping, Sequence

from tiercel.control import LoadChoice
from tiercel.costs import PrefillCurve, TransferCost
from tiercel.node.board import BoardFacts
from tiercel.plan import LoadPolicy
from tiercel.tiers.base import TierName

_UNKNOWN = TransferCost(0.0, float("inf"))
"""Of a tier that the board does not name: nothing speaks against it."""


class BoardChoice(LoadChoice):
    """Decides on what a board says."""

    def __init__(
        self,
        policy: LoadPolicy,
        *,
        tokens_per_block: int,
        block_bytes: int,
        facts: Callable[[], BoardFacts],
        decline: Callable[[Sequence[TierName]], None],
    ) -> None:
        """facts: reads the board. decline: tells the node of blocks that were not thought worth loading, by their tiers."""
        super().__init__(policy, tokens_per_block=tokens_per_block, block_bytes=block_bytes)
        self._facts = facts
        self._tell_declined = decline

    def queued_bytes(self) -> Mapping[TierName, int]:
        """Bytes that already wait to be loaded from each tier."""
        return {tier: queued for tier, (_, queued) in self._facts().tiers.items() if queued}

    def _curve(self) -> PrefillCurve | None:
        facts = self._facts()
        return facts.prefill if facts.num_prefills else None

    def _cost(self, tier: TierName) -> TransferCost:
        cost, _ = self._facts().tiers.get(tier, (_UNKNOWN, 0))
        return cost

    def _decline(self, tiers: Sequence[TierName]) -> None:
        self._tell_declined(tiers)
