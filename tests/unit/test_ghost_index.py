"""What the ghost index counts, forgets and refuses."""

import threading

import numpy as np
import pytest

from tests.helpers.trace_requests import random_requests, sequences_of
from tiercel.hashing import Sequence
from tiercel.index import GhostIndex


def sequence_of(*tokens: int) -> Sequence:
    return Sequence(bytes(16), 1, np.array(tokens, np.int32))


def hit_rate(ghost: GhostIndex, capacity: int) -> float:
    return float(ghost.curve(np.array([capacity], np.uint64))[0][0])


def test_a_prompt_that_is_looked_up_again_before_it_is_stored_counts_once_where_it_was_not_hashed() -> None:
    ghost = GhostIndex(sample_rate=1.0)
    sequence = Sequence(bytes(16), 16, np.arange(40 * 16, dtype=np.int32))
    sequence.keys(0, 4)
    for _ in range(3):
        ghost.observe_hashed(sequence, 39)
    assert ghost.stats().num_blocks == 3 * 4
    ghost.insert(sequence, limit_blocks=20)
    assert ghost.stats().num_blocks == 3 * 4 + 16
    ghost.observe_hashed(sequence, 10)
    ghost.insert(sequence)
    ghost.insert(sequence)
    assert ghost.stats().num_blocks == 3 * 4 + 16 + 10 + 19


def test_a_curve_of_hardly_any_samples_says_that_it_knows_little() -> None:
    ghost = GhostIndex(sample_rate=0.001)
    for _ in range(5):  # fewer than make a block hot
        ghost.observe(sequence_of(*range(8, 16)))
    assert ghost.stats().num_samples == 0
    assert ghost.curve(np.array([8], np.uint64))[1][0] > 0.25
    every = GhostIndex(sample_rate=1.0)
    for _ in range(5):
        every.observe(sequence_of(*range(8)))
    rates, errors = every.curve(np.array([8], np.uint64))
    assert (rates[0], errors[0]) == (0.8, 0), "all blocks are followed, so nothing is left open"


def test_a_new_ghost_tells_a_hit_rate_of_zero_without_error() -> None:
    rates, errors = GhostIndex().curve(np.array([1, 10**9], np.uint64))
    assert rates.tolist() == [0, 0]
    assert errors.tolist() == [0, 0]


def test_a_prefix_looked_up_again_hits_where_the_capacity_holds_what_came_between() -> None:
    ghost = GhostIndex(sample_rate=1.0)
    ghost.observe(sequence_of(1, 2, 3))
    ghost.observe(sequence_of(4, 5))
    ghost.observe(sequence_of(1, 2, 6))
    # Of the eight blocks looked up, block 1 comes again after 4, 5 and itself; block 2 after those and block 1.
    assert hit_rate(ghost, 2) == 0
    assert hit_rate(ghost, 3) == pytest.approx(1 / 8)
    assert hit_rate(ghost, 4) == pytest.approx(2 / 8)
    assert hit_rate(ghost, 1000) == pytest.approx(2 / 8)


def test_a_store_counts_as_use_but_not_as_lookup() -> None:
    ghost = GhostIndex(sample_rate=1.0)
    ghost.observe(sequence_of(1))
    ghost.insert(sequence_of(1, 2, 3))
    ghost.observe(sequence_of(1, 2, 3))
    assert ghost.stats().num_blocks == 4
    assert hit_rate(ghost, 3) == pytest.approx(3 / 4)


def test_only_the_blocks_below_the_limit_are_looked_up() -> None:
    ghost = GhostIndex(sample_rate=1.0)
    sequence = sequence_of(1, 2, 3)
    ghost.observe(sequence, limit_blocks=2)
    assert ghost.stats().num_blocks == 2
    assert sequence.num_hashed_blocks == 2
    ghost.observe(sequence, limit_blocks=9)
    assert ghost.stats().num_blocks == 5


def test_hot_blocks_are_followed_whatever_the_sample() -> None:
    ghost = GhostIndex(sample_rate=1e-9, hot_share=0.1)
    for number in range(2000):
        ghost.observe(sequence_of(7, 100 + number))
    stats = ghost.stats()
    assert (stats.num_samples, stats.num_hot) == (0, 1)
    assert hit_rate(ghost, 3) == pytest.approx(0.5, abs=0.02)


def test_what_was_hot_is_let_go_when_it_is_used_no_more() -> None:
    ghost = GhostIndex(sample_rate=1e-9, hot_share=0.1)
    for number in range(3000):
        ghost.observe(sequence_of(7, 100 + number))
    assert ghost.stats().num_hot == 1
    for number in range(100_000):
        ghost.observe(sequence_of(1_000_000 + number))
    assert ghost.stats().num_hot == 0


def test_memory_stays_what_it_was_however_many_blocks_come() -> None:
    ghost = GhostIndex(sample_rate=1.0, num_samples_max=256)
    ghost.observe(sequence_of(*range(1, 200)))
    before = ghost.stats()
    for start in range(1000, 50_000, 100):
        ghost.observe(sequence_of(*range(start, start + 100)))
    after = ghost.stats()
    assert after.num_samples <= 256
    assert after.sample_rate < before.sample_rate == 1.0
    assert after.memory_bytes == before.memory_bytes


def test_with_a_span_the_rate_falls_no_further_than_the_span_needs() -> None:
    ghost = GhostIndex(sample_rate=1.0, num_samples_max=256, span_blocks=1000)
    for start in range(1000, 200_000, 10):
        ghost.observe(sequence_of(*range(start, start + 10)))
    assert 0.1 < ghost.stats().sample_rate < 0.3


def test_clear_starts_again_at_the_first_rate() -> None:
    ghost = GhostIndex(sample_rate=1.0, num_samples_max=64)
    ghost.observe(sequence_of(*range(500)))
    assert ghost.stats().sample_rate < 1
    ghost.clear()
    ghost.observe(sequence_of(1))
    stats = ghost.stats()
    assert (stats.sample_rate, stats.num_blocks, stats.num_samples) == (1.0, 1, 1)
    assert hit_rate(ghost, 100) == 0


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"sample_rate": 0.0}, "sample_rate"),
        ({"sample_rate": 1.5}, "sample_rate"),
        ({"sample_rate": float("nan")}, "sample_rate"),
        ({"hot_share": 0.0}, "hot_share"),
        ({"num_samples_max": 63}, "num_samples_max"),
        ({"span_blocks": 0}, "span_blocks"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(arguments: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        GhostIndex(**arguments)  # type: ignore[arg-type]


def test_a_capacity_above_the_span_is_refused() -> None:
    ghost = GhostIndex(span_blocks=100)
    with pytest.raises(ValueError, match="101 is above span_blocks = 100"):
        ghost.curve(np.array([100, 101], np.uint64))


def test_many_threads_lose_no_lookup() -> None:
    ghost = GhostIndex(sample_rate=0.5, num_samples_max=128)
    requests = random_requests(np.random.default_rng(3), 300)
    sequences = sequences_of(requests)

    def look_up(first: int) -> None:
        for sequence in sequences[first::4]:
            ghost.observe(sequence)
            ghost.insert(sequence)

    threads = [threading.Thread(target=look_up, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ghost.stats().num_blocks == sum(len(request) for request in requests)


def test_what_was_counted_long_ago_fades() -> None:
    ghost = GhostIndex(sample_rate=1.0, window_blocks=100)
    for _ in range(50):
        ghost.observe(sequence_of(1, 2, 3, 4))
    assert hit_rate(ghost, 4) > 0.9
    for number in range(200):
        ghost.observe(sequence_of(*range(1000 + 4 * number, 1004 + 4 * number)))
    assert hit_rate(ghost, 4) < 0.02, "the old hits are 50 of 1000 lookups, long ago"
    assert ghost.stats().num_blocks == 50 * 4 + 200 * 4


def test_hot_blocks_used_of_late_are_counted_without_being_touched() -> None:
    ghost = GhostIndex(sample_rate=1e-9, hot_share=0.01, resolution_blocks=1000)
    for number in range(6000):
        ghost.observe(sequence_of(*range(1, 9), 1_000_000 + number))
    stats = ghost.stats()
    assert stats.num_hot == 8
    assert hit_rate(ghost, 2000) == pytest.approx(8 / 9, abs=0.2)  # less what came before they were known to be hot


@pytest.mark.parametrize("num_blocks", [1, 15, 16, 17, 63, 64, 65, 1000])
@pytest.mark.parametrize("rate", [0.004, 0.1, 0.7, 1.0])
def test_exactly_the_blocks_whose_keys_lie_below_the_rate_are_sampled(num_blocks: int, rate: float) -> None:
    ghost = GhostIndex(sample_rate=rate, resolution_blocks=10)
    sequence = sequence_of(*range(num_blocks))
    ghost.observe(sequence)
    low = sequence.keys(0, num_blocks)[:, :8].copy().view("<u8")[:, 0]
    expected = sum(int(value) <= min(rate * 2**64, 2**64 - 1) for value in low)
    assert ghost.stats().num_samples == expected
