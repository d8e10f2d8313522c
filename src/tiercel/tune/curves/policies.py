"""What other policies than LRU would hit, by running them: the index itself, over a sample of the blocks.

A miniature simulation (Waldspurger et al., ATC'17) replays the blocks that a `Sample` follows through the real index under
the real policy, with the capacity scaled by the sample's rate. Hot blocks are all followed and take the room that they take
in the full cache: of C slots H go to the hot blocks, and of the others as many as the rate says. A miniature of few slots is
no picture of a cache, so small capacities run at a higher rate, up to all blocks.

What LRU hits is known exactly at every capacity (`lru_curve`), and the same miniature tells LRU's hits too. By how much it
is off for LRU, the other policies are taken to be off as well: their rates are corrected by that difference.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

import tiercel.hashing as hashing
from tiercel._native import nearest_kept
from tiercel.index import EVICTION_POLICIES, Index
from tiercel.tune.curves.lru import Capacities, LruCurve, as_capacities, lru_curve
from tiercel.tune.curves.requests import RequestSizes, request_sizes
from tiercel.tune.curves.sample import HOT, HOT_SHARE, Sample, SampleUnit, sample_blocks
from tiercel.tune.curves.weighting import Weighting
from tiercel.tune.traces import NO_BLOCK, Trace

NUM_SLOTS_MIN = 512
"""Fewest slots of a miniature, beside those for hot blocks."""
_LRU = "lru"
_ROOT = bytes(16)


@dataclass(frozen=True, kw_only=True)
class PolicyRun:
    """One policy at one capacity.

    Attributes:
        capacity: blocks.
        sample_rate: share of the blocks that was followed; 1 for a full run, which is exact.
        hit_rates: by what is counted.
        correction: what was added to the share of blocks hit, which is by how much the same miniature was off for LRU.
    """

    policy: str
    capacity: int
    sample_rate: float
    hit_rates: dict[Weighting, float]
    correction: float

    @property
    def hit_rate(self) -> float:
        """Share of all blocks that is hit."""
        return self.hit_rates[Weighting.BLOCKS]


@dataclass(frozen=True, kw_only=True)
class Miniature:
    """How a policy is run.

    Attributes:
        rate: share of the blocks to follow; 1 for full runs.
        seed: chooses the blocks.
        unit: what is followed or not as a whole.
        hot_share: follow each block that takes more than this share of all references.
        num_slots_min: fewest slots beside those for hot blocks; smaller capacities are run at a higher rate.
        corrected: take by how much a miniature is off for LRU off the other policies' rates, too.
    """

    rate: float = 1.0
    seed: int = 0
    unit: SampleUnit = SampleUnit.BLOCK
    hot_share: float = HOT_SHARE
    num_slots_min: int = NUM_SLOTS_MIN
    corrected: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate = {self.rate}: more than 0 and at most 1")
        if self.num_slots_min < 1:
            raise ValueError(f"num_slots_min = {self.num_slots_min}: at least 1")


FULL = Miniature()
"""Every block: exact, and as slow as the trace is long."""


def run_policies(
    trace: Trace, policies: Sequence[str], capacities: Capacities, miniature: Miniature = FULL
) -> list[PolicyRun]:
    """Run each policy at each capacity, by capacity within policy.

    A full run takes about 1 us a block reference and policy and capacity; what runs at one rate shares the hashing. Ctrl-C
    ends it.

    Args:
        policies: names of `tiercel.index.EVICTION_POLICIES`.
        capacities: blocks.

    Raises:
        ValueError: a policy is unknown, a capacity is less than 1, or the trace is inconsistent.
    """
    unknown = [policy for policy in policies if policy not in EVICTION_POLICIES]
    if unknown:
        raise ValueError(f"policy {unknown[0]!r}: known are {', '.join(EVICTION_POLICIES)}")
    asked = as_capacities(capacities).tolist()
    if any(capacity < 1 for capacity in asked):
        raise ValueError("capacities: at least 1 block")
    sizes = request_sizes(trace)
    curve = lru_curve(trace) if miniature.rate < 1 else None
    num_hot = sample_blocks(trace, rate=1.0, hot_share=miniature.hot_share).num_hot
    by_rate: dict[float, list[int]] = defaultdict(list)
    for capacity in dict.fromkeys(asked):
        by_rate[_rate_for(capacity, num_hot, miniature)].append(capacity)
    done: dict[tuple[str, int], PolicyRun] = {}
    for rate, group in by_rate.items():
        sample = sample_blocks(
            trace, rate=rate, seed=miniature.seed, hot_share=miniature.hot_share, unit=miniature.unit
        )
        known = curve if rate < 1 and miniature.corrected else None
        for run in _run_sample(trace, sizes, sample, (policies, group), known):
            done[run.policy, run.capacity] = run
    return [done[policy, capacity] for policy in policies for capacity in asked]


def _rate_for(capacity: int, num_hot: int, miniature: Miniature) -> float:
    """The first of rate, 2 rate, 4 rate, ... that leaves a miniature enough slots."""
    rate = miniature.rate
    while rate < 1 and (capacity - num_hot) * rate < miniature.num_slots_min:
        rate *= 2
    return min(rate, 1.0)


def _run_sample(
    trace: Trace,
    sizes: RequestSizes,
    sample: Sample,
    grid: tuple[Sequence[str], Sequence[int]],
    curve: LruCurve | None,
) -> Iterator[PolicyRun]:
    policies, capacities = grid
    wanted = [(policy, capacity) for policy in policies for capacity in capacities]
    extra = [(_LRU, capacity) for capacity in capacities if curve is not None and _LRU not in policies]
    hits = _replay(trace, sample, [*wanted, *extra])
    estimate = _Estimate(trace, sizes, sample)
    rates = {cell: estimate.hit_rates(of) for cell, of in zip([*wanted, *extra], hits, strict=True)}
    for policy, capacity in wanted:
        found = rates[policy, capacity]
        correction = 0.0
        if curve is not None:
            apart = {
                weighting: curve.hit_rate(capacity, weighting) - rate
                for weighting, rate in rates[_LRU, capacity].items()
            }
            correction = apart[Weighting.BLOCKS]
            found = {
                weighting: min(curve.hit_rate(curve.capacity_max, weighting), max(0.0, rate + apart[weighting]))
                for weighting, rate in found.items()
            }
        yield PolicyRun(
            policy=policy, capacity=capacity, sample_rate=sample.rate, hit_rates=found, correction=correction
        )


def _replay(trace: Trace, sample: Sample, cells: Sequence[tuple[str, int]]) -> NDArray[np.int32]:
    """Of each policy and capacity the leading blocks followed that each request hits: int32[cells, num_requests]."""
    indexes = [
        Index(
            [_scaled(capacity, sample)],
            policies=[policy],
            tokens_per_block=max(1, round(trace.tokens_per_block / sample.rate)),
        )
        for policy, capacity in cells
    ]
    hits = np.zeros((len(cells), trace.num_requests), np.int32)
    followed = replace(trace, parents=sample.parents, leaves=sample.leaves)
    for request, (path, now_s) in enumerate(zip(followed.paths(), trace.arrivals_s.tolist(), strict=True)):
        if len(path):
            sequence = hashing.Sequence(_ROOT, 1, path)
            hits[:, request] = [look_up_and_store(index, sequence, now_s) for index in indexes]
    return hits


def look_up_and_store(index: Index, sequence: hashing.Sequence, now_s: float) -> int:
    """Ask a cache of one tier for a sequence and give it what it lacks; return the leading blocks that it had."""
    match = index.match(sequence, now_s=now_s)
    num_hits = match.num_blocks
    match.release()
    if num_hits < sequence.num_blocks:
        index.commit(index.reserve(sequence, 0, owner=1, now_s=now_s))
    return num_hits


def _scaled(capacity: int, sample: Sample) -> int:
    num_hot = min(sample.num_hot, capacity)
    return max(1, round(num_hot + (capacity - num_hot) * sample.rate))


class _Estimate:
    """From the blocks followed that were hit to all blocks."""

    def __init__(self, trace: Trace, sizes: RequestSizes, sample: Sample) -> None:
        self._sizes = sizes
        self._tokens_per_block = trace.tokens_per_block
        self._lengths, self._num_hot = _lengths(trace, sample)
        self._tail_missing = np.where(sample.has_leaf, sizes.tail_missing, 0)
        self._block_totals = sizes.totals | {Weighting.TOKENS: sizes.block_tokens}
        self._all = self._counts(self._lengths)

    def hit_rates(self, hits: NDArray[np.int32]) -> dict[Weighting, float]:
        """Hot blocks count once; the others for as many as there are beside each one followed."""
        found = self._counts(hits)
        rates = {}
        for weighting, (hot, others) in found.items():
            hot_all, others_all = self._all[weighting]
            scale = (self._block_totals[weighting] - hot_all) / others_all if others_all else 0.0
            total = self._sizes.totals[weighting]
            rates[weighting] = (hot + scale * others) / total if total else 0.0
        return rates

    def _counts(self, hits: NDArray[np.integer]) -> dict[Weighting, tuple[float, float]]:
        """What so many leading blocks followed count for, hot ones and others. A path's hot blocks are its first ones."""
        hot = np.minimum(hits, self._num_hot).astype(np.float64)
        others = hits - hot
        short = np.where((hits == self._lengths) & (hits > 0), self._tail_missing, 0)
        ends_hot = hits <= self._num_hot
        tokens = self._tokens_per_block
        shares = self._sizes.shares
        return {
            Weighting.BLOCKS: (float(hot.sum()), float(others.sum())),
            Weighting.TOKENS: (
                float((hot * tokens - np.where(ends_hot, short, 0)).sum()),
                float((others * tokens - np.where(ends_hot, 0, short)).sum()),
            ),
            Weighting.REQUESTS: (float((hot * shares).sum()), float((others * shares).sum())),
        }


def _lengths(trace: Trace, sample: Sample) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each request the blocks followed, and how many of them are hot."""
    depths = replace(trace, parents=sample.parents, leaves=sample.leaves).depths
    is_hot = sample.groups == HOT
    last_hot = nearest_kept(sample.parents, is_hot.view(np.uint8))
    lengths, num_hot = np.zeros((2, len(sample.leaves)), np.int64)
    held = np.flatnonzero(sample.leaves != NO_BLOCK)
    lengths[held] = depths[sample.leaves[held]] + 1
    held = held[last_hot[sample.leaves[held]] != NO_BLOCK]
    num_hot[held] = depths[is_hot][last_hot[sample.leaves[held]]] + 1
    return lengths, num_hot
