"""Grids of tiers: exclusive ones from one pass, inclusive ones as the index serves them."""

import numpy as np
import pytest

from tests.helpers.seeds import chosen_seed
from tests.helpers.trace_requests import plain_lru_hits_each, random_trace
from tiercel.tune.curves import exclusive_grid, inclusive_grid, inclusive_hits, lru_curve


def test_an_exclusive_grid_has_each_split_in_its_place() -> None:
    curve = lru_curve(random_trace(np.random.default_rng(chosen_seed()), 200))
    grid = exclusive_grid(curve, [1, 10], [20, 50, 100], [200, 400])
    assert grid.shape == (2, 3, 2, 3)
    assert grid[1, 2, 0] == pytest.approx(curve.split([10, 100, 200]))
    assert exclusive_grid(curve, [5, 6]).shape == (2, 1)


def test_inclusive_tiers_under_lru_are_lru_lists_of_their_own() -> None:
    trace = random_trace(np.random.default_rng(chosen_seed()), 300)
    paths = list(trace.paths())
    hits = inclusive_hits(trace, [20, 100, 300])
    for tier, capacity in enumerate([20, 100, 300]):
        assert hits[: tier + 1].sum(axis=0).tolist() == plain_lru_hits_each(paths, capacity)


def test_an_inclusive_grid_serves_what_the_slowest_tier_holds() -> None:
    trace = random_trace(np.random.default_rng(chosen_seed()), 150)
    curve = lru_curve(trace)
    grid = inclusive_grid(trace, [10, 40], [100, 200])
    assert grid.shape == (2, 2, 2)
    assert grid.sum(axis=2) == pytest.approx(np.broadcast_to(curve.hit_rates([100, 200]), (2, 2)))
    assert grid[:, 0, 0] == pytest.approx(curve.hit_rates([10, 40]))
    other = inclusive_grid(trace, [100], [200], policies=["mru", "lru"])
    assert other[0, 0, 0] < curve.hit_rate(100)
