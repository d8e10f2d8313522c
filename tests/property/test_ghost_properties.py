"""The ghost index against an LRU cache that is simulated block by block: exact with all blocks, close with a sample."""

import numpy as np
import pytest
from hypothesis import given, note, seed, settings
from hypothesis import strategies as st

from tests.helpers.trace_requests import plain_lru_hits, random_requests, sequences_of
from tiercel.index import GhostIndex

CAPACITIES = [1, 2, 3, 5, 8, 13, 21, 34, 55, 63]
"""Small enough for the ghost's histogram to keep each distance apart."""


def plain_curve(requests: list[np.ndarray[tuple[int], np.dtype[np.int32]]], capacities: list[int]) -> list[float]:
    num_blocks = sum(len(request) for request in requests)
    return [plain_lru_hits(requests, capacity) / num_blocks for capacity in capacities]


@settings(max_examples=40, deadline=None)
@given(number=st.integers(0, 2**32 - 1), num_requests=st.integers(1, 120), hot_share=st.sampled_from([0.01, 0.1, 1.0]))
def test_a_ghost_of_all_blocks_tells_the_exact_hit_rate(number: int, num_requests: int, hot_share: float) -> None:
    note(f"seed {number}")
    requests = random_requests(np.random.default_rng(number), num_requests)
    ghost = GhostIndex(sample_rate=1.0, num_samples_max=4096, hot_share=hot_share)
    for sequence in sequences_of(requests):
        ghost.observe(sequence)
    rates, _ = ghost.curve(np.array(CAPACITIES, np.uint64))
    assert rates == pytest.approx(plain_curve(requests, CAPACITIES), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(number=st.integers(0, 2**32 - 1), num_requests=st.integers(1, 120), hot_share=st.sampled_from([0.01, 0.1, 1.0]))
def test_lookups_that_hash_a_part_tell_the_same_once_their_sequences_are_stored(
    number: int, num_requests: int, hot_share: float
) -> None:
    note(f"seed {number}")
    rng = np.random.default_rng(number)
    requests = random_requests(rng, num_requests)
    ghost = GhostIndex(sample_rate=1.0, num_samples_max=4096, hot_share=hot_share)
    for sequence in sequences_of(requests):
        sequence.keys(0, int(rng.integers(0, sequence.num_blocks + 1)))
        num_hashed = sequence.num_hashed_blocks
        ghost.observe_hashed(sequence, sequence.num_blocks)
        assert sequence.num_hashed_blocks == num_hashed
        ghost.insert(sequence, limit_blocks=int(rng.integers(0, sequence.num_blocks + 1)))
        ghost.insert(sequence)
    rates, _ = ghost.curve(np.array(CAPACITIES, np.uint64))
    assert rates == pytest.approx(plain_curve(requests, CAPACITIES), abs=1e-9)
    assert ghost.stats().num_blocks == sum(len(request) for request in requests)


@settings(max_examples=10, deadline=None)
@given(number=st.integers(0, 2**32 - 1))
def test_renumbering_positions_and_forgetting_beyond_the_span_change_no_answer(number: int) -> None:
    note(f"seed {number}")
    requests = random_requests(np.random.default_rng(number), 400)
    ghost = GhostIndex(sample_rate=1.0, num_samples_max=128, hot_share=1.0, span_blocks=63)
    for sequence in sequences_of(requests):
        ghost.observe(sequence)
    rates, _ = ghost.curve(np.array(CAPACITIES, np.uint64))
    stats = ghost.stats()
    assert stats.num_blocks == sum(len(request) for request in requests) > 20 * stats.num_samples
    assert stats.num_samples <= 128
    if stats.sample_rate == 1.0:  # one path alone may be longer than the ghost has room for
        assert rates == pytest.approx(plain_curve(requests, CAPACITIES), abs=1e-9)


@seed(7)
@settings(max_examples=5, deadline=None)
@given(number=st.integers(0, 2**32 - 1))
def test_a_sample_tells_the_hit_rate_within_a_few_of_its_own_errors(number: int) -> None:
    note(f"seed {number}")
    requests = random_requests(np.random.default_rng(number), 2000, num_prompts=20)
    capacities = [64, 256, 1024]
    ghost = GhostIndex(sample_rate=1.0, num_samples_max=1024, hot_share=0.005)
    for sequence in sequences_of(requests):
        ghost.observe(sequence)
    rates, errors = ghost.curve(np.array(capacities, np.uint64))
    stats = ghost.stats()
    assert stats.sample_rate < 0.5
    assert stats.num_samples <= 1024
    exact = np.array(plain_curve(requests, capacities))
    assert np.all(np.abs(rates - exact) <= 5 * errors + 0.02), (rates, exact, errors)


@seed(11)
@settings(max_examples=5, deadline=None)
@given(number=st.integers(0, 2**32 - 1))
def test_a_coarse_ghost_tells_the_same_above_twice_its_resolution(number: int) -> None:
    note(f"seed {number}")
    requests = random_requests(np.random.default_rng(number), 3000, num_prompts=3)
    capacities = [128, 256, 1024]
    ghost = GhostIndex(sample_rate=1.0, num_samples_max=1 << 16, hot_share=0.02, resolution_blocks=64)
    for sequence in sequences_of(requests):
        ghost.observe(sequence)
    rates, _ = ghost.curve(np.array(capacities, np.uint64))
    assert ghost.stats().num_hot > 0, "else nothing was told coarsely"
    assert rates == pytest.approx(plain_curve(requests, capacities), abs=0.02)
