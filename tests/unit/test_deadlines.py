"""Deadlines call back for tickets that are still watched, and for no others."""

import linecache
import sys
import threading
import time
from types import FrameType
from typing import Any

import pytest

from tiercel.transfer import Deadlines


def test_expired_tickets_are_reported_in_order_and_discarded_ones_are_not() -> None:
    seen: list[int] = []
    last = threading.Event()

    def note(ticket: int) -> None:
        seen.append(ticket)
        if ticket == 3:
            last.set()

    deadlines = Deadlines(note)
    deadlines.add(3, 0.06)
    deadlines.add(1, 0.02)
    deadlines.add(2, 0.03)
    deadlines.discard(2)
    assert last.wait(5)
    deadlines.close()
    assert seen == [1, 3]


def test_ended_tickets_do_not_pile_up() -> None:
    deadlines = Deadlines(lambda _: None)
    for ticket in range(5000):
        deadlines.add(ticket, 1000.0)
        deadlines.discard(ticket)
    assert len(deadlines._heap) < 1000
    deadlines.close()


def test_a_signal_in_the_middle_of_waking_the_thread_does_not_keep_it_from_ending() -> None:
    called: list[int] = []
    deadlines = Deadlines(called.append)

    def interrupt(frame: FrameType, event: str, _: object) -> Any:
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        if frame.f_code.co_name == "notify" and "waiters.remove(" in line and event == "line":
            raise KeyboardInterrupt
        return interrupt

    time.sleep(0.1)  # the thread waits
    sys.settrace(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            deadlines.add(1, 60.0)
    finally:
        sys.settrace(None)
    time.sleep(0.1)  # it was woken, and waits again
    closing = threading.Thread(target=deadlines.close, daemon=True)
    closing.start()
    closing.join(5)
    assert not closing.is_alive(), "the thread was not woken"
    assert called == []
