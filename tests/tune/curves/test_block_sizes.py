"""A trace in blocks of another size is what its tokens cut anew give."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.seeds import chosen_seed
from tests.helpers.trace_requests import random_trace
from tiercel.tune.curves import Weighting, lru_curve, reblock, sweep_block_sizes
from tiercel.tune.traces import NO_BLOCK, Trace, TraceBuilder

SIZES = [1, 2, 4, 8, 16, 32, 64]


def cut_anew(trace: Trace, tokens_per_block: int) -> Trace:
    """The same from the tokens of each request, of full blocks only."""
    builder = TraceBuilder("anew", tokens_per_block=tokens_per_block)
    names: dict[bytes, int] = {}

    def name_of(tokens: NDArray[np.int32]) -> int:
        return names.setdefault(tokens.tobytes(), len(names))

    for request in range(trace.num_requests):
        tokens = trace.tokens(request)
        count = len(tokens) // tokens_per_block
        builder.add(
            [name_of(tokens[: (block + 1) * tokens_per_block]) for block in range(count)],
            arrival_s=float(trace.arrivals_s[request]),
            input_tokens=len(tokens),
        )
    return builder.build()


@pytest.mark.parametrize("size", SIZES)
def test_the_curve_of_another_size_is_that_of_the_tokens_cut_anew(size: int) -> None:
    trace = random_trace(np.random.default_rng(chosen_seed()), 120, tokens_per_block=8)
    capacities = [1, 3, 10, 50, 200, 1000]
    expected = lru_curve(cut_anew(trace, size))
    found = lru_curve(reblock(trace, size).without_partial_blocks())
    for weighting in Weighting:
        assert found.hit_rates(capacities, weighting) == pytest.approx(expected.hit_rates(capacities, weighting))


@pytest.mark.parametrize("size", SIZES)
def test_every_request_keeps_its_tokens_and_has_as_many_blocks_as_they_fill(size: int) -> None:
    trace = random_trace(np.random.default_rng(chosen_seed()), 100, tokens_per_block=8)
    found = reblock(trace, size)
    assert found.tokens_per_block == size
    for request in range(trace.num_requests):
        assert found.num_blocks_of(request) == -(-int(trace.input_tokens[request]) // size)


def test_merged_and_split_again_full_blocks_are_shared_as_before() -> None:
    trace = random_trace(np.random.default_rng(chosen_seed()), 100, tokens_per_block=8).without_partial_blocks()
    again = reblock(reblock(trace, 4), 8).without_partial_blocks()
    capacities = list(range(0, 300, 7))
    assert lru_curve(again).hit_rates(capacities) == pytest.approx(lru_curve(trace).hit_rates(capacities))


def test_requests_without_blocks_keep_none() -> None:
    builder = TraceBuilder("few", tokens_per_block=8)
    builder.add([], arrival_s=0.0, input_tokens=3)
    builder.add([5, 6], arrival_s=1.0, input_tokens=16)
    trace = builder.build()
    for size in SIZES:
        assert reblock(trace, size).leaves[0] == NO_BLOCK


def test_a_sweep_gives_the_same_room_to_every_size() -> None:
    trace = random_trace(np.random.default_rng(chosen_seed()), 150, tokens_per_block=8)
    rows = sweep_block_sizes(trace, [4, 8, 16], [64, 512, 10**6])
    assert [row.tokens_per_block for row in rows] == [4, 8, 16]
    ideals = [row.ideal for row in rows]
    assert ideals == sorted(ideals, reverse=True)
    for row in rows:
        curve = lru_curve(reblock(trace, row.tokens_per_block).without_partial_blocks())
        assert row.hit_rates[1] == curve.hit_rate(512 // row.tokens_per_block, Weighting.TOKENS)
        assert row.hit_rates[2] == pytest.approx(row.ideal)


def test_sizes_that_do_not_divide_each_other_are_refused() -> None:
    trace = random_trace(np.random.default_rng(1), 5, tokens_per_block=8)
    with pytest.raises(ValueError, match="tokens_per_block = 12: trace random has blocks of 8 tokens"):
        reblock(trace, 12)
    with pytest.raises(ValueError, match="tokens_per_block = 0"):
        reblock(trace, 0)
