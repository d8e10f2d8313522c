"""Policies in full are the index's; in miniature they are near that."""

import numpy as np
import pytest

from tests.helpers.seeds import chosen_seed
from tests.helpers.trace_requests import random_trace, sequences_of
from tiercel.index import EVICTION_POLICIES, Index
from tiercel.tune.curves import BeladyBound, Miniature, SampleUnit, Weighting, lru_curve, run_policies
from tiercel.tune.curves.policies import look_up_and_store
from tiercel.tune.curves.survey import MINIATURE_ERRORS, miniature_notes

CAPACITIES = [60, 250, 1000, 2500]


def test_a_full_run_is_the_index_request_by_request() -> None:
    trace = random_trace(np.random.default_rng(chosen_seed()), 200)
    paths = list(trace.paths())
    lengths = np.array([len(path) for path in paths])
    for run in run_policies(trace, EVICTION_POLICIES, [20, 100]):
        index = Index([run.capacity], policies=[run.policy], tokens_per_block=trace.tokens_per_block)
        arrivals = trace.arrivals_s.tolist()
        hits = np.array(
            [look_up_and_store(index, each, now_s) for each, now_s in zip(sequences_of(paths), arrivals, strict=True)]
        )
        tokens = np.minimum(hits * trace.tokens_per_block, trace.input_tokens)
        assert run.sample_rate == 1
        assert run.hit_rate == pytest.approx(hits.sum() / lengths.sum())
        assert run.hit_rates[Weighting.TOKENS] == pytest.approx(tokens.sum() / trace.input_tokens.sum())
        assert run.hit_rates[Weighting.REQUESTS] == pytest.approx((hits / lengths).mean())


def test_a_full_run_of_lru_is_the_exact_curve() -> None:
    trace = random_trace(np.random.default_rng(chosen_seed()), 300)
    curve = lru_curve(trace)
    for run in run_policies(trace, ["lru"], CAPACITIES):
        for weighting, rate in run.hit_rates.items():
            assert rate == pytest.approx(curve.hit_rate(run.capacity, weighting))


def test_a_miniature_is_near_the_full_run_of_every_policy() -> None:
    apart = []
    for number in range(3):
        trace = random_trace(np.random.default_rng(number), 1500)
        full = run_policies(trace, EVICTION_POLICIES, CAPACITIES)
        small = run_policies(trace, EVICTION_POLICIES, CAPACITIES, Miniature(rate=0.2, seed=number, num_slots_min=50))
        assert {run.sample_rate for run in small} == {0.2, 0.4, 1.0}
        for exact, run in zip(full, small, strict=True):
            assert (exact.policy, exact.capacity) == (run.policy, run.capacity)
            apart.append(abs(exact.hit_rate - run.hit_rate))
    assert np.mean(apart) < 0.01
    assert np.max(apart) < 0.05


@pytest.mark.parametrize("unit", SampleUnit)
def test_what_a_miniature_is_off_for_lru_is_taken_off_all(unit: SampleUnit) -> None:
    trace = random_trace(np.random.default_rng(5), 600)
    curve = lru_curve(trace)
    miniature = Miniature(rate=0.25, unit=unit, num_slots_min=1)
    plain = run_policies(
        trace, ["lfu", "lru"], [300], Miniature(rate=0.25, unit=unit, num_slots_min=1, corrected=False)
    )
    lfu, lru = run_policies(trace, ["lfu", "lru"], [300], miniature)
    (alone,) = run_policies(trace, ["lfu"], [300], miniature)
    assert lru.hit_rate == pytest.approx(curve.hit_rate(300))
    assert lru.correction == pytest.approx(lru.hit_rate - plain[1].hit_rate)
    assert lfu.hit_rate == pytest.approx(plain[0].hit_rate + lru.correction)
    assert alone == lfu


def test_no_policy_hits_more_than_the_bound() -> None:
    trace = random_trace(np.random.default_rng(chosen_seed()), 400)
    bound = BeladyBound(trace)
    for run in run_policies(trace, EVICTION_POLICIES, [10, 50, 200]):
        assert run.hit_rate <= bound.hit_rate(run.capacity) + 1e-12, run.policy


def test_small_capacities_run_at_a_higher_rate() -> None:
    trace = random_trace(np.random.default_rng(2), 200)
    runs = run_policies(trace, ["lru"], [10, 100, 1000], Miniature(rate=0.1, num_slots_min=20, hot_share=1.0))
    assert [run.sample_rate for run in runs] == [1.0, 0.2, 0.1]


def test_unknown_policies_and_capacities_out_of_range_are_refused() -> None:
    trace = random_trace(np.random.default_rng(1), 10)
    with pytest.raises(ValueError, match="policy 'lur': known are lru"):
        run_policies(trace, ["lur"], [10])
    with pytest.raises(ValueError, match="capacities: at least 1 block"):
        run_policies(trace, ["lru"], [0])
    with pytest.raises(ValueError, match="rate = 0"):
        Miniature(rate=0)


def test_what_a_miniature_may_be_off_is_told_policy_by_policy_and_of_no_full_run() -> None:
    notes = miniature_notes(("2q", "lfu"), 0.1)
    assert [note.split()[0] for note in notes] == ["2q", "lfu"]
    assert "1.3 points off in the mean and 2.9 at most" in notes[0]
    assert miniature_notes(("2q", "lfu"), 1.0) == ()
    assert set(MINIATURE_ERRORS) == set(EVICTION_POLICIES) - {"lru"}
