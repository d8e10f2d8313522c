"""What a simulated or replayed run came to."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tiercel.tiers.base import TierName


@dataclass(frozen=True, kw_only=True)
class TierTraffic:
    """Blocks that crossed a tier's links.

    Attributes:
        blocks_read, blocks_written, evicted: over the whole run.
            Read are those that went from the tier towards the engine, written those that came into it from there.
        busy_s: time in which its links moved bytes.
        wait_s: time that its transfers waited for others, summed.
    """

    blocks_read: int
    blocks_written: int
    evicted: int
    busy_s: float
    wait_s: float


@dataclass(frozen=True, kw_only=True)
class SimulationResult:
    """One run. Arrays have an entry for each request of the trace, in its order.

    Attributes:
        trace: the trace's name.
        tokens_per_block, block_bytes: of the cache.
        input_tokens: tokens of each prompt.
        full_blocks: blocks of each prompt that a cache can hold.
        gpu_blocks: leading blocks that the engine itself still had when it came to compute.
        matched_blocks: leading blocks that any tier or the engine had when the request arrived.
        hit_blocks: blocks that were loaded, by the tier they came from.
        arrived_s, started_s, first_token_s, ended_s: when each request arrived, its prefill began, its first token and its
            last one came; seconds of the virtual clock.
        tiers: traffic by tier.
        prefill_busy_s: seconds in which the engines computed prompts.
        prefill_saved_s: seconds that computing what was loaded would have taken.
        ready_s: when each request had what it loads and began to wait for the engine alone; empty where nobody knows.
        refused: how often a queue was full, a budget spent or a deadline passed, by name.
        notes: what was assumed, a sentence each.
    """

    trace: str
    tokens_per_block: int
    block_bytes: int
    input_tokens: NDArray[np.int64]
    full_blocks: NDArray[np.int64]
    gpu_blocks: NDArray[np.int64]
    matched_blocks: NDArray[np.int64]
    hit_blocks: Mapping[TierName, NDArray[np.int64]]
    arrived_s: NDArray[np.float64]
    started_s: NDArray[np.float64]
    first_token_s: NDArray[np.float64]
    ended_s: NDArray[np.float64]
    tiers: Mapping[TierName, TierTraffic]
    prefill_busy_s: float
    prefill_saved_s: float
    ready_s: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    refused: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def ttft_s(self) -> NDArray[np.float64]:
        """Time to first token of each request."""
        return self.first_token_s - self.arrived_s

    @property
    def block_hit_rate(self) -> float:
        """Share of all prompts' full blocks that needed no computing: block-weighted."""
        return _share(float(self._held_blocks().sum()), float(self.full_blocks.sum()))

    @property
    def token_hit_rate(self) -> float:
        """Share of all prompts' tokens that needed no computing: token-weighted."""
        return _share(float(self._held_blocks().sum()) * self.tokens_per_block, float(self.input_tokens.sum()))

    @property
    def request_hit_rate(self) -> float:
        """Mean over requests with a full block of the share of its blocks that needed no computing."""
        asked = self.full_blocks > 0
        return float((self._held_blocks()[asked] / self.full_blocks[asked]).mean()) if asked.any() else 0.0

    def tier_hit_rate(self, tier: TierName) -> float:
        """Share of all prompts' full blocks that were loaded from a tier."""
        return _share(float(self.hit_blocks[tier].sum()), float(self.full_blocks.sum()))

    def _held_blocks(self) -> NDArray[np.int64]:
        held = self.gpu_blocks.copy()
        for blocks in self.hit_blocks.values():
            held += blocks
        return held


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
