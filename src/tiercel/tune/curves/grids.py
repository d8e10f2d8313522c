"""What each tier would serve, for every combination of capacities.

Exclusive tiers hold nothing twice and are one LRU list together: a grid of any size comes from the one pass. Inclusive
ones hold what is stored each for itself, as this cache's tiers do, so each combination is a run of the index.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

import tiercel.hashing as hashing
from tiercel.index import Index
from tiercel.tune.curves.lru import Capacities, LruCurve, as_capacities
from tiercel.tune.curves.requests import request_sizes, share
from tiercel.tune.curves.weighting import Weighting
from tiercel.tune.traces import Trace

_ROOT = bytes(16)


def exclusive_grid(
    curve: LruCurve, *capacities: Capacities, weighting: Weighting = Weighting.BLOCKS
) -> NDArray[np.float64]:
    """Return the share that each of several exclusive tiers serves, for every combination of their capacities.

    Args:
        capacities: for each tier, the fastest first, the capacities to combine, in blocks.

    Returns:
        float64[len(capacities[0]), len(capacities[1]), ..., num_tiers].
    """
    shape = tuple(len(of_tier) for of_tier in capacities)
    cells = [curve.split(cell, weighting) for cell in product(*(as_capacities(each).tolist() for each in capacities))]
    return np.array(cells, np.float64).reshape(*shape, len(capacities))


def inclusive_hits(trace: Trace, capacities: Sequence[int], policies: Sequence[str] | None = None) -> NDArray[np.int32]:
    """Run the index with tiers that each store everything, and return what each tier serves of each request.

    A block is served by the fastest tier that has it. Everything is written through to every tier at once.

    Args:
        capacities: blocks of each tier, the fastest first.
        policies: one of `tiercel.index.EVICTION_POLICIES` a tier; `lru` by default.

    Returns:
        int32[num_tiers, num_requests], leading blocks.

    Raises:
        ValueError: a capacity or a policy is out of range.
    """
    index = Index(
        list(capacities),
        policies=None if policies is None else list(policies),
        tokens_per_block=trace.tokens_per_block,
    )
    hits = np.zeros((len(capacities), trace.num_requests), np.int32)
    for request, (path, now_s) in enumerate(zip(trace.paths(), trace.arrivals_s.tolist(), strict=True)):
        if not len(path):
            continue
        sequence = hashing.Sequence(_ROOT, 1, path)
        match = index.match(sequence, now_s=now_s)
        for tier, _, count in match.segments:
            hits[tier, request] += count
        match.release()
        for tier in range(len(capacities)):
            index.commit(index.reserve(sequence, tier, owner=1, now_s=now_s))
    return hits


def inclusive_grid(trace: Trace, *capacities: Capacities, policies: Sequence[str] | None = None) -> NDArray[np.float64]:
    """Return the share of all blocks that each of several inclusive tiers serves, as `exclusive_grid` does.

    Each combination is a run over the whole trace: about 1 us a block reference and tier.
    """
    shape = tuple(len(of_tier) for of_tier in capacities)
    total = request_sizes(trace).totals[Weighting.BLOCKS]
    cells = [
        share(inclusive_hits(trace, cell, policies).sum(axis=1, dtype=np.float64), total)
        for cell in product(*(as_capacities(each).tolist() for each in capacities))
    ]
    return np.array(cells, np.float64).reshape(*shape, len(capacities))
