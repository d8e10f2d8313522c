"""The hit rate of LRU at every capacity, and of every exclusive split into tiers, exactly and from one pass.

The pass is native (native/core/curve): how many different blocks were used since a block's last use, all distances of a
request taken when it arrives, its blocks then used from the leaf to the root (Mattson et al., 1970, over prefix trees). A
cache of C blocks that evicts leaves first hits exactly the blocks with a distance of C at most, so the counts by distance
are the whole curve. The index under `lru` hits the same blocks, which tests hold.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiercel._native import lru_hits
from tiercel.tune.curves.requests import request_sizes, share
from tiercel.tune.curves.weighting import Weighting
from tiercel.tune.traces import Trace

Capacities = Sequence[int] | NDArray[np.integer]


class LruCurve:
    """Hit rates of an LRU cache by its capacity in blocks. Memory: 16 bytes a block of the trace."""

    def __init__(self, trace: Trace) -> None:
        """Run the pass. Use `lru_curve`."""
        self.name = trace.name
        self.tokens_per_block = trace.tokens_per_block
        self._totals = request_sizes(trace).totals
        blocks, shares, tail_ranks, tail_missing = lru_hits(
            trace.parents, trace.leaves, trace.input_tokens, trace.tokens_per_block
        )
        self._blocks = blocks
        self._shares = shares
        order = np.argsort(tail_ranks, kind="stable")
        self._tail_ranks = tail_ranks[order]
        self._missing_before = np.concatenate([[0], np.cumsum(tail_missing[order])])

    @property
    def capacity_max(self) -> int:
        """Smallest capacity that hits all that any can, in blocks."""
        return len(self._blocks) - 1

    @property
    def ideal(self) -> float:
        """Share of all blocks that a cache without end hits."""
        return self.hit_rate(self.capacity_max)

    def hit_rate(self, capacity: int, weighting: Weighting = Weighting.BLOCKS) -> float:
        """Return the hit rate with room for so many blocks. Raises ValueError for a negative capacity."""
        return float(self.hit_rates([capacity], weighting)[0])

    def hit_rates(self, capacities: Capacities, weighting: Weighting = Weighting.BLOCKS) -> NDArray[np.float64]:
        """Return the hit rate of each capacity in blocks: float64[len(capacities)].

        Raises:
            ValueError: a capacity is negative.
        """
        asked = as_capacities(capacities)
        known = np.minimum(asked, self.capacity_max)
        if weighting is Weighting.REQUESTS:
            hits = self._shares[known]
        else:
            hits = self._blocks[known].astype(np.float64)
        if weighting is Weighting.TOKENS:
            tails = np.searchsorted(self._tail_ranks, asked, side="right")
            hits = hits * self.tokens_per_block - self._missing_before[tails]
        return share(hits, self._totals[weighting])

    def capacity_for(self, share_of_ideal: float) -> int:
        """Return the fewest blocks that hit at least this share of the blocks that a cache without end hits.

        Raises:
            ValueError: the share does not lie between 0 and 1.
        """
        if not 0 <= share_of_ideal <= 1:
            raise ValueError(f"share_of_ideal = {share_of_ideal}: 0 to 1")
        return int(np.searchsorted(self._blocks, share_of_ideal * self._blocks[-1], side="left"))

    def split(self, capacities: Capacities, weighting: Weighting = Weighting.BLOCKS) -> NDArray[np.float64]:
        """Return the share that each tier serves, of tiers that hold nothing twice.

        Together the tiers are one LRU list: what leaves a tier goes to the next slower one, what is hit comes back to the
        first. So tier k serves the distances above the capacities of the tiers before it, up to those with its own.

        Args:
            capacities: blocks of each tier, the fastest first.

        Returns:
            float64[len(capacities)]; their sum is the hit rate of all together.
        """
        ends = self.hit_rates(np.cumsum(as_capacities(capacities)), weighting)
        return np.diff(ends, prepend=0.0)


def lru_curve(trace: Trace) -> LruCurve:
    """Return the exact hit rate of LRU at every capacity.

    All blocks that the trace names count; `trace.without_partial_blocks()` has those that a cache can hold. Takes some 10
    to 40 ns a reference and some 25 bytes a block; other threads run meanwhile, and Ctrl-C ends it.

    Raises:
        ValueError: a request has fewer tokens than its blocks need, or the blocks are no tree.
    """
    return LruCurve(trace)


def as_capacities(capacities: Capacities) -> NDArray[np.int64]:
    """Return capacities in blocks as an array. Raises ValueError for a negative one."""
    asked = np.asarray(capacities, np.int64)
    if (asked < 0).any():
        raise ValueError(f"capacities: {int(asked.min())} is negative")
    return asked
