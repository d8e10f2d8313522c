"""What tiers keep about themselves: slots that come twice, or in any order, and calls that a signal cuts off."""

import sys
import threading
from types import FrameType

import numpy as np
import pytest

from tiercel.tiers._bookkeeping import CallGate, SlotStates, distinct


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


def test_a_call_whose_end_a_signal_cut_off_does_not_keep_the_gate_open() -> None:
    gate = CallGate("host")
    call = gate.call()
    call.__enter__()
    del call  # the exception came before its __exit__ had begun
    closed = threading.Thread(target=gate.close, daemon=True)
    closed.start()
    closed.join(5)
    assert not closed.is_alive()


class SignalError(Exception):
    """What a signal's handler raises."""


@pytest.mark.parametrize("at", range(8))
def test_a_call_that_is_cut_off_behind_any_native_call_leaves_nobody_inside(at: int) -> None:
    gate, left = CallGate("host"), at

    def cut_off(_: FrameType, event: str, __: object) -> None:
        nonlocal left
        if event == "c_return":
            left -= 1
            if left < 0:
                raise SignalError

    before = sys.getprofile()
    sys.setprofile(cut_off)
    try:
        with gate.call():
            pass
    except SignalError:
        pass
    finally:
        sys.setprofile(before)
    closed = threading.Thread(target=gate.close, daemon=True)
    closed.start()
    closed.join(5)
    assert not closed.is_alive()
