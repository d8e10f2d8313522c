"""One pass gives LRU at every capacity and every exclusive split, whichever way hits are counted."""

import numpy as np
import pytest

from tests.helpers.seeds import chosen_seed
from tests.helpers.trace_requests import plain_lru_hits_each, random_requests, random_trace, sequences_of, trace_of
from tiercel.index import Index
from tiercel.tune.curves import Weighting, lru_curve
from tiercel.tune.curves.policies import look_up_and_store
from tiercel.tune.traces import Trace, TraceBuilder

CAPACITIES = [0, 1, 2, 3, 7, 20, 50, 200, 10_000]


def plain_rate(trace: Trace, capacity: int, weighting: Weighting) -> float:
    """The hit rate by its definition."""
    paths = list(trace.paths())
    hits = np.array(plain_lru_hits_each(paths, capacity))
    lengths = np.array([len(path) for path in paths])
    if weighting is Weighting.BLOCKS:
        return float(hits.sum() / lengths.sum())
    if weighting is Weighting.TOKENS:
        return float(np.minimum(hits * trace.tokens_per_block, trace.input_tokens).sum() / trace.input_tokens.sum())
    return float((hits / lengths).mean())


@pytest.mark.parametrize("weighting", Weighting)
def test_one_pass_gives_lru_at_every_capacity(weighting: Weighting) -> None:
    trace = random_trace(np.random.default_rng(chosen_seed()), 200)
    expected = [plain_rate(trace, capacity, weighting) for capacity in CAPACITIES]
    assert lru_curve(trace).hit_rates(CAPACITIES, weighting) == pytest.approx(expected, abs=1e-12)


def test_the_index_under_lru_hits_what_the_curve_says() -> None:
    requests = random_requests(np.random.default_rng(chosen_seed()), 400)
    curve = lru_curve(trace_of(requests))
    total = sum(map(len, requests))
    for capacity in (1, 5, 20, 100, 400):
        index = Index([capacity])
        hits = sum(look_up_and_store(index, sequence, 0.0) for sequence in sequences_of(requests))
        assert hits == round(curve.hit_rate(capacity) * total), f"{capacity} blocks"


def test_positions_that_run_out_are_given_anew() -> None:
    """Few blocks used over and over need many renumberings; a plain list is held against each distance."""
    rng = np.random.default_rng(chosen_seed())
    paths = [[0, 1, 2], [0, 1, 3], [0, 4], [5], [5, 6, 7, 8]]
    requests = [np.array(paths[int(rng.integers(len(paths)))], np.int32) for _ in range(3000)]
    trace = trace_of(requests)
    expected = [plain_rate(trace, capacity, Weighting.BLOCKS) for capacity in range(10)]
    assert lru_curve(trace).hit_rates(range(10)) == pytest.approx(expected, abs=1e-12)


def test_tiers_of_a_split_serve_the_distances_between_their_capacities() -> None:
    curve = lru_curve(random_trace(np.random.default_rng(chosen_seed()), 200))
    for weighting in Weighting:
        first, second, third = curve.split([5, 20, 100], weighting)
        assert first == pytest.approx(curve.hit_rate(5, weighting))
        assert second == pytest.approx(curve.hit_rate(25, weighting) - curve.hit_rate(5, weighting))
        assert first + second + third == pytest.approx(curve.hit_rate(125, weighting))


def test_the_capacity_for_a_share_is_the_smallest_that_reaches_it() -> None:
    curve = lru_curve(random_trace(np.random.default_rng(chosen_seed()), 200))
    for share in (0.1, 0.5, 0.9, 0.95, 1.0):
        capacity = curve.capacity_for(share)
        assert curve.hit_rate(capacity) >= share * curve.ideal - 1e-12
        assert curve.hit_rate(capacity - 1) < share * curve.ideal
    assert curve.capacity_for(0) == 0
    with pytest.raises(ValueError, match="share_of_ideal = 1\\.5"):
        curve.capacity_for(1.5)


def test_a_trace_without_blocks_hits_nothing() -> None:
    empty = TraceBuilder("empty", tokens_per_block=16)
    unnamed = TraceBuilder("unnamed", tokens_per_block=16)
    unnamed.add([], arrival_s=0.0, input_tokens=5)
    for trace in (empty.build(), unnamed.build()):
        curve = lru_curve(trace)
        assert curve.ideal == curve.capacity_max == 0
        for weighting in Weighting:
            assert curve.hit_rates([0, 10], weighting).tolist() == [0, 0]


def test_a_request_too_short_for_its_blocks_and_a_negative_capacity_are_refused() -> None:
    builder = TraceBuilder("wrong", tokens_per_block=16)
    builder.add([1, 2, 3], arrival_s=0.0, input_tokens=32)
    with pytest.raises(ValueError, match="trace wrong: request 0 has 32 tokens, too few for its 3 blocks of 16"):
        lru_curve(builder.build())
    curve = lru_curve(random_trace(np.random.default_rng(1), 5))
    with pytest.raises(ValueError, match="-1 is negative"):
        curve.hit_rate(-1)
