"""What the benchmarks hold policies against, and that the index's LRU is LRU on a real trace, to the block."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from _bounds import Request, belady_hit_rate, hit_rates, lru_distances
from _replay import replay
from _traces import DEFAULT_FOLDER, SKIPPED, TRACE_FILES, Trace, read_trace

from tests.helpers.trace_requests import plain_lru_hits, random_requests, sequences_of
from tiercel.index import Index

TRACE_REQUESTS = 2000
TRACE_CAPACITIES = [100, 913, 3_656, 9_140, 18_279, 36_558]
SEEDS = range(5)


def num_references(requests: list[Request]) -> int:
    return sum(len(request) for request in requests)


@pytest.mark.parametrize("number", SEEDS)
def test_one_pass_gives_lru_at_every_capacity(number: int) -> None:
    requests = random_requests(np.random.default_rng(number), 150)
    capacities = [1, 2, 3, 7, 20, 50, 200, 10_000]
    rates = hit_rates(lru_distances(requests), capacities)
    expected = [plain_lru_hits(requests, capacity) / num_references(requests) for capacity in capacities]
    assert rates == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("number", SEEDS)
def test_belady_lies_between_lru_and_a_cache_without_end(number: int) -> None:
    requests = random_requests(np.random.default_rng(number), 150)
    distances = lru_distances(requests)
    for capacity in (1, 5, 20, 100):
        (lru,) = hit_rates(distances, [capacity])
        assert lru <= belady_hit_rate(requests, capacity) <= np.mean(distances > 0)
    assert belady_hit_rate(requests, 10_000) == pytest.approx(np.mean(distances > 0))


def best_hits(requests: list[list[int]], capacity: int) -> int:
    """The most hits of all ways to choose what to keep after each request."""
    reached: dict[frozenset[int], int] = {frozenset(): 0}
    for path in requests:
        following: dict[frozenset[int], int] = {}
        for cached, num_hits in reached.items():
            now = num_hits + next((depth for depth, block in enumerate(path) if block not in cached), len(path))
            choices = sorted(cached | set(path))
            for kept in itertools.combinations(choices, min(capacity, len(choices))):
                following[frozenset(kept)] = max(following.get(frozenset(kept), 0), now)
        reached = following
    return max(reached.values())


@pytest.mark.parametrize("number", range(8))
def test_no_way_to_choose_what_stays_hits_more_than_belady(number: int) -> None:
    requests = [request[:4] for request in random_requests(np.random.default_rng(number), 7, num_prompts=2)]
    for capacity in (1, 2, 4):
        expected = best_hits([request.tolist() for request in requests], capacity) / num_references(requests)
        assert belady_hit_rate(requests, capacity) == pytest.approx(expected), f"seed {number}, capacity {capacity}"


def conversation_trace() -> Trace:
    file = TRACE_FILES["conversation"]
    found: list[Path] = sorted(DEFAULT_FOLDER.rglob(file)) if DEFAULT_FOLDER.is_dir() else []
    if not found:
        pytest.skip(SKIPPED.format(file=file, folder=DEFAULT_FOLDER))
    return read_trace("conversation", found[0])


def test_the_index_under_lru_hits_on_a_trace_exactly_what_the_one_pass_curve_says() -> None:
    trace = conversation_trace()
    requests = trace.requests[:TRACE_REQUESTS]
    total = num_references(requests)
    rates = hit_rates(lru_distances(requests), TRACE_CAPACITIES)
    for capacity, rate in zip(TRACE_CAPACITIES, rates, strict=True):
        index = Index([capacity])
        assert replay(index, sequences_of(requests)) == round(rate * total), f"{capacity} blocks"
        index.check()
        index.check()
