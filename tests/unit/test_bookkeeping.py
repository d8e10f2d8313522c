"""Slots' states: what is told of slots that come twice, or in any order."""

import numpy as np
import pytest

from tiercel.tiers._bookkeeping import SlotStates, distinct


@pytest.mark.parametrize("given", [[], [7], [3, 1, 2], [5, 5, 5], [9, 2, 9, 2, 4]])
def test_numbers_come_once_and_ascending(given: list[int]) -> None:
    assert distinct(np.array(given, np.uint32)).tolist() == sorted(set(given))


def test_a_slot_that_is_named_twice_is_voided_once() -> None:
    states = SlotStates(8)
    states.reserve(np.array([4, 1], np.uint32))
    states.mark_written(np.array([4, 1], np.uint32))
    assert states.num_written == 2
    assert states.void(np.array([4, 4, 2], np.uint32)).tolist() == [4]
    assert states.num_written == 1
