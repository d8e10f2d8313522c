"""A block size hits what the trace's tokens, cut anew, hit in the same room."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.seeds import chosen_seed
from tests.helpers.trace_requests import random_trace
from tiercel.tune.curves import Weighting, lru_curve, sweep_block_sizes
from tiercel.tune.traces import Trace, TraceBuilder

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
def test_a_size_hits_what_the_tokens_cut_anew_hit_in_the_same_room(size: int) -> None:
    trace = random_trace(np.random.default_rng(chosen_seed()), 120, tokens_per_block=8)
    rooms = [8, 100, 640, 5000, 10**6]
    expected = lru_curve(cut_anew(trace, size))
    (row,) = sweep_block_sizes(trace, [size], rooms)
    assert row.tokens_per_block == size
    assert row.hit_rates == pytest.approx(expected.hit_rates([room // size for room in rooms], Weighting.TOKENS))
    assert row.ideal == pytest.approx(expected.hit_rate(10**6, Weighting.TOKENS))


def test_larger_blocks_find_less_to_share() -> None:
    trace = random_trace(np.random.default_rng(chosen_seed()), 150, tokens_per_block=8)
    ideals = [row.ideal for row in sweep_block_sizes(trace, SIZES, [64])]
    assert ideals == sorted(ideals, reverse=True)
    assert ideals[-1] < ideals[0]
