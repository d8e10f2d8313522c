"""Deadlines call back for tickets that are still watched, and for no others."""

import threading

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
