"""The tree of a trace's blocks, held against plain Python."""

import numpy as np
import pytest

from tests.helpers.seeds import chosen_seed
from tests.helpers.trace_requests import random_requests
from tests.helpers.trace_samples import random_trace, shared_blocks, shared_tokens
from tiercel._native import TraceTree, trace_depths, trace_first_uses, trace_paths
from tiercel.tune.traces import NO_BLOCK, NO_REQUEST, NO_SESSION, TraceBuilder, with_tokens_per_block


def test_a_trace_gives_every_request_its_own_path_back() -> None:
    seed = chosen_seed()
    requests = random_requests(np.random.default_rng(seed), 400)
    builder = TraceBuilder("t", tokens_per_block=16)
    for number, request in enumerate(requests):
        builder.add(request, arrival_s=number, input_tokens=16 * len(request))
    trace = builder.build()
    known: dict[int, tuple[int, ...]] = {}
    for request, path in zip(requests, trace.paths(), strict=True):
        assert len(path) == len(request)
        for depth, (name, block) in enumerate(zip(request.tolist(), path.tolist(), strict=True)):
            assert known.setdefault(block, tuple(request[: depth + 1].tolist())) == tuple(request[: depth + 1].tolist())
            assert trace.depths[block] == depth
            assert trace.parents[block] == (path[depth - 1] if depth else NO_BLOCK)
            assert name == known[block][-1]
    assert len(known) == trace.num_blocks == len({tuple(r[: n + 1]) for r in requests for n in range(len(r))})
    assert trace.num_references == sum(map(len, requests))


def test_first_uses_and_seen_blocks_are_what_a_set_says() -> None:
    trace = random_trace(chosen_seed(), 200)
    seen: dict[int, int] = {}
    for request, path in enumerate(trace.paths()):
        assert trace.num_blocks_seen[request] == sum(block in seen for block in path.tolist())
        for block in path.tolist():
            seen.setdefault(block, request)
    assert trace.first_uses.tolist() == [seen[block] for block in range(trace.num_blocks)]


def test_equal_names_are_one_block_only_below_the_same_parent_and_in_one_scope() -> None:
    builder = TraceBuilder("t", tokens_per_block=1)
    for names, scope in (([1, 2], "a"), ([2, 2], "a"), ([1, 2], "b"), ([1, 2], "a"), ([], "a")):
        builder.add(names, arrival_s=0, input_tokens=2, scope=scope)
    trace = builder.build()
    assert trace.num_blocks == 6
    assert trace.leaves[0] == trace.leaves[3]
    assert len(set(trace.leaves.tolist())) == 4
    assert trace.leaves[4] == NO_BLOCK
    assert trace.path(4).tolist() == []


def test_names_of_64_bits_are_told_apart_and_longer_ones_refused() -> None:
    builder = TraceBuilder("t", tokens_per_block=1)
    for name in (2**64 - 1, 2**63, 2**63 - 1, 0):
        builder.add([name], arrival_s=0, input_tokens=1)
    with pytest.raises(OverflowError):
        builder.add([2**64], arrival_s=0, input_tokens=1)
    assert builder.num_requests == builder.num_blocks == 4


def test_requests_are_sorted_by_time_and_still_wait_for_the_same_ones() -> None:
    builder = TraceBuilder("t", tokens_per_block=1)
    late = builder.add([1], arrival_s=50, input_tokens=1, session="s")
    builder.add([2], arrival_s=40, input_tokens=2, after=late, delay_s=1.5, session="s")
    builder.add([3], arrival_s=10, input_tokens=3)
    trace = builder.build()
    assert trace.input_tokens.tolist() == [3, 1, 2]
    assert trace.arrivals_s.tolist() == [0, 40, 40]
    assert trace.after.tolist() == [NO_REQUEST, NO_REQUEST, 1]
    assert trace.sessions.tolist() == [NO_SESSION, 0, 0]
    assert builder.out_of_order() == ["1 requests stood behind later ones and were sorted by time"]


def test_a_trace_of_nothing_is_a_trace() -> None:
    trace = with_tokens_per_block(TraceBuilder("t", tokens_per_block=16).build(), 64)
    assert (trace.num_requests, trace.num_blocks, trace.num_references, trace.span_s) == (0, 0, 0, 0.0)
    assert trace.without_partial_blocks().num_requests == 0


def test_full_blocks_are_those_that_the_prompt_fills() -> None:
    trace = random_trace(chosen_seed(), 100)
    full = trace.without_partial_blocks()
    for request, path in enumerate(trace.paths()):
        count = min(len(path), int(trace.input_tokens[request]) // trace.tokens_per_block)
        assert full.path(request).tolist() == path[:count].tolist()


@pytest.mark.parametrize("tokens_per_block", [1, 2, 8, 12, 32, 48, 64, 512])
def test_blocks_of_another_size_share_what_the_tokens_share(tokens_per_block: int) -> None:
    trace = random_trace(chosen_seed(), 30)
    other = with_tokens_per_block(trace, tokens_per_block)
    expected = [[tokens // tokens_per_block for tokens in row] for row in shared_tokens(trace)]
    full = other.without_partial_blocks()
    assert other.tokens_per_block == tokens_per_block
    assert full.num_blocks_named.tolist() == (trace.input_tokens // tokens_per_block).tolist()
    assert shared_blocks(full) == expected
    assert np.all(trace_depths(other.parents) == other.depths)


def test_joining_what_was_cut_gives_the_trace_back() -> None:
    trace = random_trace(chosen_seed(), 30, tokens_per_block=64)
    back = with_tokens_per_block(with_tokens_per_block(trace, 16), 64)
    assert shared_blocks(back.without_partial_blocks()) == shared_blocks(trace.without_partial_blocks())
    assert back.num_blocks_named.tolist() == trace.num_blocks_named.tolist()


def test_a_tail_that_the_trace_does_not_name_stays_unnamed_in_every_size() -> None:
    builder = TraceBuilder("t", tokens_per_block=64)
    builder.add([1, 2], arrival_s=0, input_tokens=2 * 64 + 40)
    trace = builder.build()
    assert with_tokens_per_block(trace, 16).num_references == 8
    assert with_tokens_per_block(trace, 128).num_references == 1


def test_the_native_tree_refuses_what_is_no_tree() -> None:
    wrong = np.array([1, -1], np.int32)
    with pytest.raises(ValueError, match="parent must come before"):
        trace_depths(wrong)
    with pytest.raises(ValueError, match="parent must come before"):
        trace_first_uses(wrong, np.empty(0, np.int32))
    right = np.array([-1, 0], np.int32)
    for leaf in (2, -2):
        with pytest.raises(ValueError, match="none of the trace's"):
            trace_paths(right, trace_depths(right), np.array([leaf], np.int32))
        with pytest.raises(ValueError, match="none of the trace's"):
            trace_first_uses(right, np.array([leaf], np.int32))
    with pytest.raises(ValueError, match="scope"):
        TraceTree().add(np.array([1], np.uint64), -1)


def test_the_native_tree_tells_ten_thousands_of_branching_paths_apart() -> None:
    rng = np.random.default_rng(chosen_seed())
    tree = TraceTree()
    paths = [rng.integers(0, 4, rng.integers(1, 12)).astype(np.uint64) for _ in range(20_000)]
    leaves = [tree.add(path) for path in paths]
    prefixes = {tuple(path[: n + 1].tolist()) for path in paths for n in range(len(path))}
    assert tree.num_blocks == len(prefixes)
    assert len({tuple(path.tolist()) for path in paths}) == len(set(leaves))
