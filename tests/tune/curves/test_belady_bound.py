"""Belady's bound is what its plain form says, and no way to choose what stays hits more."""

import numpy as np
import pytest

from tests.helpers.seeds import chosen_seed
from tests.helpers.trace_bounds import best_hits, plain_belady_hits
from tests.helpers.trace_requests import random_requests, random_trace, trace_of
from tiercel.tune.curves import BeladyBound, lru_curve


def test_the_native_bound_hits_of_each_request_what_the_plain_one_hits() -> None:
    requests = random_requests(np.random.default_rng(chosen_seed()), 300)
    bound = BeladyBound(trace_of(requests))
    for capacity in (0, 1, 2, 5, 13, 40, 120, 10_000):
        assert bound.hits(capacity).tolist() == plain_belady_hits(requests, capacity), f"{capacity} blocks"


@pytest.mark.parametrize("number", range(8))
def test_no_way_to_choose_what_stays_hits_more(number: int) -> None:
    requests = [request[:4] for request in random_requests(np.random.default_rng(number), 7, num_prompts=2)]
    bound = BeladyBound(trace_of(requests))
    for capacity in (1, 2, 4):
        assert bound.hits(capacity).sum() == best_hits(requests, capacity), f"seed {number}, capacity {capacity}"


def test_the_bound_lies_between_lru_and_a_cache_without_end() -> None:
    trace = random_trace(np.random.default_rng(chosen_seed()), 200)
    curve, bound = lru_curve(trace), BeladyBound(trace)
    capacities = [1, 5, 20, 100, 400]
    assert (curve.hit_rates(capacities) <= bound.hit_rates(capacities)).all()
    assert (bound.hit_rates(capacities) <= curve.ideal + 1e-12).all()
    assert bound.hit_rate(10_000) == pytest.approx(curve.ideal)
