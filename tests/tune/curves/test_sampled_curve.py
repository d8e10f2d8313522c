"""A sample's curve is as far from the exact one as it says, and follows what is used most exactly."""

import numpy as np
import pytest

from tests.helpers.seeds import chosen_seed
from tests.helpers.trace_requests import random_requests, random_trace, trace_of
from tiercel.tune.curves import Weighting, lru_curve, sampled_lru_curve
from tiercel.tune.curves.sample import HOT, SampleUnit, sample_blocks
from tiercel.tune.traces import NO_BLOCK, Trace

CAPACITIES = [1, 5, 20, 60, 150, 400, 1000, 3000, 10_000]


def test_a_sample_of_everything_is_the_exact_curve_where_distances_are_counted_one_by_one() -> None:
    trace = random_trace(np.random.default_rng(chosen_seed()), 300)
    exact, sampled = lru_curve(trace), sampled_lru_curve(trace, rate=1.0)
    for weighting in Weighting:
        assert sampled.hit_rates(range(60), weighting) == pytest.approx(
            exact.hit_rates(range(60), weighting), abs=1e-12
        )
        assert sampled.hit_rate(10**6, weighting) == pytest.approx(exact.hit_rate(10**6, weighting), abs=1e-12)


@pytest.mark.parametrize("weighting", Weighting)
def test_the_stated_error_is_the_one_that_is_made(weighting: Weighting) -> None:
    """Over many samples of several traces, two in three lie within one standard error and nearly all within three."""
    apart = []
    for number in range(6):
        trace = random_trace(np.random.default_rng(number), 1500)
        exact = lru_curve(trace).hit_rates(CAPACITIES, weighting)
        for seed in range(10):
            sampled = sampled_lru_curve(trace, rate=0.1, seed=seed)
            errors = np.maximum(sampled.errors(CAPACITIES, weighting), 1e-9)
            apart.append((sampled.hit_rates(CAPACITIES, weighting) - exact) / errors)
    distances = np.abs(np.array(apart))
    assert (distances <= 1).mean() > 0.6
    assert (distances <= 3).mean() > 0.98


def test_the_error_shrinks_with_the_square_root_of_the_rate() -> None:
    trace = random_trace(np.random.default_rng(3), 2000)
    exact = lru_curve(trace).hit_rates(CAPACITIES)
    made = {
        rate: np.mean(
            [np.abs(sampled_lru_curve(trace, rate=rate, seed=seed).hit_rates(CAPACITIES) - exact) for seed in range(20)]
        )
        for rate in (0.02, 0.32)
    }
    assert made[0.32] < made[0.02] / 2
    assert made[0.32] < 0.01


def trace_below_one_prompt() -> Trace:
    """Three of ten references are to the one block at everybody's beginning."""
    rng = np.random.default_rng(7)
    return trace_of([np.concatenate([[0], 1 + path[:2]]) for path in random_requests(rng, 3000, num_prompts=40)])


def test_a_very_hot_block_followed_exactly_keeps_a_small_sample_from_going_wrong() -> None:
    trace = trace_below_one_prompt()
    exact = lru_curve(trace).hit_rates(CAPACITIES)

    def mean_error(hot_share: float) -> float:
        curves = [sampled_lru_curve(trace, rate=0.05, seed=seed, hot_share=hot_share) for seed in range(10)]
        return float(np.mean([np.abs(curve.hit_rates(CAPACITIES) - exact) for curve in curves]))

    assert mean_error(0.001) < mean_error(1.0) / 4


def test_few_samples_are_kept_however_large_the_trace() -> None:
    trace = random_trace(np.random.default_rng(1), 3000)
    assert trace.num_blocks > 4000
    sample = sample_blocks(trace, rate=1.0, num_samples_max=200, hot_share=1.0)
    assert 100 < len(sample.parents) < 300


@pytest.mark.parametrize("unit", SampleUnit)
def test_a_sample_is_the_tree_of_its_blocks_and_holds_every_hot_one(unit: SampleUnit) -> None:
    trace = random_trace(np.random.default_rng(chosen_seed()), 300)
    sample = sample_blocks(trace, rate=0.3, hot_share=0.01, unit=unit)
    uses = np.bincount(np.concatenate(list(trace.paths())), minlength=trace.num_blocks)
    hot = np.flatnonzero(uses > 0.01 * uses.sum())
    assert sample.num_hot == len(hot) == np.count_nonzero(sample.groups == HOT)
    assert (sample.parents < np.arange(len(sample.parents))).all()
    shortest = 0
    for request, path in enumerate(trace.paths()):
        followed, block = [], int(sample.leaves[request])
        while block != NO_BLOCK:
            followed.append(int(sample.groups[block]))
            block = int(sample.parents[block])
        num_hot = int(np.isin(path, hot).sum())
        assert followed[::-1][:num_hot] == [HOT] * num_hot
        assert HOT not in followed[::-1][num_hot:]
        shortest += len(followed) < len(path)
    assert shortest > 0


def test_other_seeds_choose_other_blocks() -> None:
    trace = random_trace(np.random.default_rng(1), 2000)
    chosen = [sample_blocks(trace, rate=0.2, seed=seed, hot_share=1.0).leaves for seed in (1, 2, 1)]
    assert (chosen[0] == chosen[2]).all()
    assert (chosen[0] != chosen[1]).mean() > 0.5


def test_values_out_of_range_are_refused_by_name() -> None:
    trace = random_trace(np.random.default_rng(1), 10)
    with pytest.raises(ValueError, match="rate = 0"):
        sampled_lru_curve(trace, rate=0.0)
    with pytest.raises(ValueError, match="hot_share = 2"):
        sampled_lru_curve(trace, hot_share=2.0)
    with pytest.raises(ValueError, match="num_samples_max = 0"):
        sampled_lru_curve(trace, num_samples_max=0)
