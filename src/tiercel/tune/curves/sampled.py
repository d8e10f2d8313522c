"""The hit rate of LRU at any capacity from a sample of the blocks, and how far off it may be.

SHARDS (Waldspurger et al., FAST'15) over prefix trees: a sampled block stands for as many as the inverse of the rate. Blocks
that take a large share of all uses would make the error large by being in the sample or not; they are followed exactly. For
traces too large for the exact pass; a running cache has the ghost index (`tiercel.index.GhostIndex`), which does the same
from keys.
"""

import numpy as np
from numpy.typing import NDArray

from tiercel._native import SAMPLE_PARTS, sampled_lru_hits
from tiercel.tune.curves.lru import Capacities, as_capacities
from tiercel.tune.curves.requests import request_sizes, share
from tiercel.tune.curves.sample import HOT, Sample, sample_blocks
from tiercel.tune.curves.weighting import Weighting
from tiercel.tune.traces import Trace

_WEIGHTINGS = (Weighting.BLOCKS, Weighting.TOKENS, Weighting.REQUESTS)
"""In the native pass's order."""
HOT_SHARE = 0.0001
"""Blocks that take a larger share of all references are followed exactly; there can be 10,000 of them."""
_STEPS_PER_DOUBLING = 32
"""Of the native pass's counts by distance."""


class SampledLruCurve:
    """Estimated hit rates of an LRU cache by its capacity in blocks, with their errors. Memory is fixed: 400 KiB."""

    def __init__(self, trace: Trace, sample: Sample) -> None:
        """Run the pass over a sample of the trace. Use `sampled_lru_curve`."""
        sizes = request_sizes(trace)
        self.name = trace.name
        self.tokens_per_block = trace.tokens_per_block
        self.rate = sample.rate
        self.num_followed = len(sample.parents)
        self._totals = sizes.totals
        self._block_totals = sizes.totals | {Weighting.TOKENS: sizes.block_tokens}
        self._hits = sampled_lru_hits(
            sample.parents,
            sample.groups,
            sample.leaves,
            sizes.shares,
            (trace.tokens_per_block - np.where(sample.has_leaf, sizes.tail_missing, 0)).astype(np.float64),
            rate=sample.rate,
            tokens_per_block=float(trace.tokens_per_block),
        )
        self._uses = self._hits.uses()

    @property
    def ideal(self) -> float:
        """Estimated share of all blocks that a cache without end hits."""
        return self.hit_rate(2**31)

    def hit_rate(self, capacity: int, weighting: Weighting = Weighting.BLOCKS) -> float:
        """Return the estimated hit rate with room for so many blocks."""
        return float(self.hit_rates([capacity], weighting)[0])

    def hit_rates(self, capacities: Capacities, weighting: Weighting = Weighting.BLOCKS) -> NDArray[np.float64]:
        """Return the estimated hit rate of each capacity in blocks. Raises ValueError for a negative one."""
        return self._estimate(as_capacities(capacities), weighting)[0]

    def errors(self, capacities: Capacities, weighting: Weighting = Weighting.BLOCKS) -> NDArray[np.float64]:
        """Return one standard error of each estimated hit rate.

        Two things make it: which blocks were sampled, told by how much the parts of the sample differ, and never less than a
        single hit; and that distances are estimates too, told by how steep the curve is within one standard error of them.
        """
        asked = as_capacities(capacities)
        _, sampling = self._estimate(asked, weighting)
        apart = np.sqrt(asked * (1 - self.rate) / self.rate + (asked / _STEPS_PER_DOUBLING) ** 2 / 12)
        above, _ = self._estimate(np.ceil(asked + apart).astype(np.int64), weighting)
        below, _ = self._estimate(np.maximum(0, np.floor(asked - apart)).astype(np.int64), weighting)
        return np.hypot(sampling, (above - below) / 2)

    def _estimate(
        self, capacities: NDArray[np.int64], weighting: Weighting
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rates, and the standard error that the choice of blocks makes."""
        number = _WEIGHTINGS.index(weighting)
        hits = self._hits.hits(capacities.astype(np.uint64))[number]
        uses = self._uses[number]
        sampled = uses[:HOT].sum()
        total = self._totals[weighting]
        if not sampled:
            return share(hits[HOT], total), np.zeros(len(capacities))
        ratio = hits[:HOT].sum(axis=0) / sampled
        num_others = self._block_totals[weighting] - uses[HOT]
        apart = hits[:HOT] - ratio * uses[:HOT, None]
        # Where no sampled block is hit the parts do not differ: a single hit may have been missed all the same.
        one_use = sampled / self._uses[0][:HOT].sum()
        squares = np.maximum((apart**2).sum(axis=0) * SAMPLE_PARTS / (SAMPLE_PARTS - 1), one_use**2)
        spread = np.sqrt(squares * (1 - self.rate)) / sampled
        return share(hits[HOT] + ratio * num_others, total), share(spread * num_others, total)


def sampled_lru_curve(
    trace: Trace, *, rate: float = 0.01, seed: int = 0, hot_share: float = HOT_SHARE, num_samples_max: int | None = None
) -> SampledLruCurve:
    """Return the estimated hit rate of LRU at every capacity, with its standard error.

    Args:
        rate: share of the blocks to follow; more than 0, at most 1.
        seed: chooses the blocks.
        hot_share: follow each block that takes more than this share of all references.
        num_samples_max: lower the rate until about so many blocks are followed, however large the trace.

    Raises:
        ValueError: a value is out of range, or the trace is inconsistent.
    """
    sample = sample_blocks(trace, rate=rate, seed=seed, hot_share=hot_share, num_samples_max=num_samples_max)
    return SampledLruCurve(trace, sample)
