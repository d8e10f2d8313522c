"""One thread that calls back when a ticket's deadline passes, and what times a caller may give.

It alone waits for changes, and is woken by `notify_all` all the same: a `notify` that a signal's exception interrupts leaves a
waiter behind that is gone, and the next `notify` goes to that one (CPython's gh-92530 mends half of it).
"""

import heapq
import math
import reprlib
import threading
import time
from collections.abc import Callable
from typing import SupportsFloat

_END_TIMEOUT_S = 5.0
"""Longest wait for a callback in progress, which may itself be what closes."""

_SLACK = 256
"""Entries of ended tickets that may lie in the heap before it is cleaned."""


def as_seconds(name: str, value: object) -> float:
    """Return a time that a caller gave as a plain float: a thread's clock takes no other kind of number, such as numpy's.

    Raises:
        TypeError: it is no number.
    """
    if isinstance(value, float | int | SupportsFloat):
        try:
            return float(value)
        except (OverflowError, ValueError):  # an integer beyond floats, a number that is none
            pass
    raise TypeError(f"{name} = {reprlib.repr(value)}: must be a number of seconds")


def longest_wait(timeout_s: float | None) -> float | None:
    """Return the bound of a caller's wait as `Condition.wait_for` takes it; one beyond what clocks hold is none.

    Raises:
        TypeError: it is no number.
        ValueError: it is not a number that time can pass.
    """
    if timeout_s is None:
        return None
    seconds = as_seconds("timeout_s", timeout_s)
    if math.isnan(seconds):
        raise ValueError("timeout_s = nan: must be a number of seconds, or None for no bound of its own")
    return min(seconds, threading.TIMEOUT_MAX)


class Deadlines:
    """Deadlines of open tickets. Thread-safe; sleeps until the next one."""

    def __init__(self, on_deadline: Callable[[int], None]) -> None:
        """Start the thread. on_deadline: called on it with the ticket's number; must not raise."""
        self._on_deadline = on_deadline
        self._open: set[int] = set()
        self._heap: list[tuple[float, int]] = []
        # Entered as it is: a condition is entered by Python code, in which a signal's exception would leave the lock held.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._closing = False
        self._thread = threading.Thread(target=self._watch, name="tiercel-deadlines", daemon=True)
        self._thread.start()

    def add(self, ticket: int, timeout_s: float) -> None:
        """Watch a ticket from now on for `timeout_s` seconds."""
        at = time.monotonic() + timeout_s
        with self._lock:
            if len(self._heap) > 2 * len(self._open) + _SLACK:
                self._heap = [entry for entry in self._heap if entry[1] in self._open]
                heapq.heapify(self._heap)
            self._open.add(ticket)
            heapq.heappush(self._heap, (at, ticket))
            if self._heap[0][1] == ticket:
                self._changed.notify_all()

    def discard(self, ticket: int) -> None:
        """Stop watching a ticket. Unknown ones are left alone."""
        with self._lock:
            self._open.discard(ticket)

    def _watch(self) -> None:
        while (ticket := self._next()) is not None:
            self._on_deadline(ticket)

    def _next(self) -> int | None:
        """Wait for the next deadline of an open ticket; None when closing."""
        with self._lock:
            while not self._closing:
                remaining = self._heap[0][0] - time.monotonic() if self._heap else None
                if remaining is not None and remaining <= 0:
                    ticket = heapq.heappop(self._heap)[1]
                    if ticket in self._open:
                        self._open.discard(ticket)
                        return ticket
                else:
                    self._changed.wait(remaining)
            return None

    def close(self) -> None:
        """End the thread and wait for it, but not long. Idempotent; no callback starts after this."""
        with self._lock:
            self._closing = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(_END_TIMEOUT_S)
