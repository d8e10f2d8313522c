"""The virtual clock: what is to happen, in order of time, and among equal times in the order in which it was asked for."""

import heapq
from collections.abc import Callable
from typing import Any


class Clock:
    """Runs events until there are none left.

    Attributes:
        now_s: time of the event that runs.
    """

    __slots__ = ("_events", "_number", "now_s")

    def __init__(self) -> None:
        self.now_s = 0.0
        self._number = 0
        self._events: list[tuple[float, int, Callable[[Any], None], Any]] = []

    def at(self, time_s: float, act: Callable[[Any], None], argument: Any = None) -> None:
        """Call `act(argument)` at a time that is not past."""
        assert time_s >= self.now_s, f"an event at {time_s} s was asked for at {self.now_s} s"
        self._number += 1
        heapq.heappush(self._events, (time_s, self._number, act, argument))

    def run(self) -> None:
        """Run events, and those that they ask for, until none is left."""
        events, pop = self._events, heapq.heappop
        while events:
            self.now_s, _, act, argument = pop(events)
            act(argument)
