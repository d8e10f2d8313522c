"""Priorities of stores: the leading run that is stored, and the steps that the index is told."""

import itertools

import numpy as np
import pytest

from tests.helpers.control_samples import DISK, HOST, Bench, sequence
from tests.helpers.seeds import chosen_seed
from tiercel.control import Priority, check_priority
from tiercel.control.priorities import STEPS_MAX, Ladder


def test_a_store_below_the_least_priority_stores_nothing() -> None:
    bench = Bench(min_store_priority=10)
    assert set(bench.store(sequence(8, seed=1), priority=9).statuses) == {1}
    assert (bench.num_ready(HOST), bench.num_ready(DISK)) == (0, 0)
    assert set(bench.store(sequence(8, seed=1), priority=10).statuses) == {0}
    assert (bench.num_ready(HOST), bench.num_ready(DISK)) == (8, 8)


def test_the_first_block_below_the_least_priority_ends_what_is_stored() -> None:
    bench = Bench(min_store_priority=10)
    request = sequence(8, seed=1)
    stored = bench.store(request, priority=np.array([50, 50, 20, 9, 50, 50, 50, 50]))
    assert stored.statuses.tolist() == [0] * 3 + [1] * 5
    assert (bench.num_held(HOST, request), bench.num_held(DISK, request)) == (3, 3)
    later = bench.store(request, first_block=6, priority=np.array([50, 50]))
    assert later.statuses.tolist() == [1, 1]
    assert bench.num_ready(HOST) == 3
    bench.check()


def test_a_store_of_several_priorities_stores_every_block() -> None:
    bench = Bench()
    request = sequence(40, seed=1)
    stored = bench.store(request, priority=np.repeat([80, 60, 40, 20], 10))
    assert set(stored.statuses) == {0}
    assert (bench.num_held(HOST, request), bench.num_held(DISK, request)) == (40, 40)
    moves = stored.plan.moves
    assert [m.num_blocks for m in moves if m.target is HOST] == [10, 10, 20]
    assert all(m.after >= 0 for m in moves if m.target is DISK)
    bench.check()


def test_the_steps_go_down_and_cover_every_block() -> None:
    seed = chosen_seed()
    rng = np.random.default_rng(seed)
    for _ in range(300):
        count = int(rng.integers(1, 40))
        priority = rng.integers(0, 101, count)
        first = int(rng.integers(0, 5))
        steps = list(Ladder(priority, first, first + count).steps(first, first + count))
        assert steps[-1][0] == first + count
        assert len(steps) <= STEPS_MAX
        assert all(a[0] < b[0] and a[1] > b[1] for a, b in itertools.pairwise(steps))
        assert steps[0][1] == priority.max()


@pytest.mark.parametrize("priority", [-1, 101, np.array([1, 2]), np.array([1, 2, 3, 101]), np.array([1, -2, 3, 4])])
def test_a_priority_out_of_range_or_of_another_length_is_refused(priority: Priority) -> None:
    with pytest.raises(ValueError, match="priority"):
        check_priority(priority, 4)


@pytest.mark.parametrize("priority", [1.5, True, "high", np.array([1.0, 2.0, 3.0, 4.0]), np.zeros((2, 2), np.int32)])
def test_a_priority_of_another_kind_is_refused(priority: object) -> None:
    with pytest.raises(TypeError, match="priority"):
        check_priority(priority, 4)  # type: ignore[arg-type]
