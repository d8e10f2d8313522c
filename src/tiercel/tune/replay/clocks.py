"""The two clocks of a replay: one that waits, and one that does not.

Both hold events for `simulate.Serving` and know how to go on when a load's ticket has ended. `RealClock` sleeps until an event is
due, and uses the time until then for chores. `StepClock` is virtual: it waits for transfers, and for nothing else.
"""

import heapq
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from tiercel import Cache, Ticket
from tiercel.tune.simulate.clock import Clock

Act = Callable[[Any], None]
Chore = Callable[[], bool]
"""A small step of work that is not urgent; returns whether there is more."""

SETTLE_TIMEOUT_S = 300.0

_WAIT_MAX_S = 1.0
"""Longest wait at once, so that a signal is never held up for long."""


class ReplayClock(Protocol):
    """What a replay asks of its clock, beside what `simulate` does."""

    @property
    def now_s(self) -> float: ...

    def at(self, time_s: float, act: Act, argument: Any = None) -> None:
        """Call `act(argument)` at a time that is not past."""

    def run(self) -> None:
        """Run events, and those that they ask for, until none is left."""

    def after_load(self, ticket: Ticket, act: Act, argument: Any) -> None:
        """Call `act(argument)` when a load's ticket has ended."""

    def after_store(self, ticket: Ticket) -> None:
        """Be told of a store that was launched."""

    def add_chore(self, chore: Chore) -> None:
        """Do some work step by step before `run` ends."""


class StepClock(Clock):
    """A virtual clock that stands still until every transfer has ended."""

    __slots__ = ("_cache",)

    def __init__(self, cache: Cache) -> None:
        super().__init__()
        self._cache = cache

    def after_load(self, ticket: Ticket, act: Act, argument: Any) -> None:
        """Wait for all that is under way, then call at the time that the load took."""
        load_s = ticket.wait().seconds
        settle(self._cache)
        self.at(self.now_s + load_s, act, argument)

    def after_store(self, ticket: Ticket) -> None:
        """Wait for it and for all that it led to."""
        ticket.wait()
        settle(self._cache)

    def add_chore(self, chore: Chore) -> None:
        """Do it now."""
        while chore():
            pass


class RealClock:
    """Seconds since `run` began. Events run on the thread of `run`; tickets end on others.

    Attributes:
        now_s: when the event that runs was due; of a ticket's end, when it happened.
        late_s: by how much an event ran late at most, because the machine was busy.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.late_s = 0.0
        self._began_s = 0.0
        self._number = 0
        self._events: list[tuple[float, int, Act, Any]] = []
        self._ended: SimpleQueue[tuple[float, Act, Any]] = SimpleQueue()
        self._num_loading = 0
        self._chores: deque[Chore] = deque()

    def at(self, time_s: float, act: Act, argument: Any = None) -> None:
        """Call `act(argument)` at a time that is not past."""
        self._number += 1
        heapq.heappush(self._events, (time_s, self._number, act, argument))

    def after_load(self, ticket: Ticket, act: Act, argument: Any) -> None:
        """Call when it has ended; whoever waits for other events is woken."""
        self._num_loading += 1
        ticket.add_done_callback(lambda: self._ended.put((time.monotonic(), act, argument)))

    def after_store(self, ticket: Ticket) -> None:
        """Nothing: stores end beside everything else."""

    def add_chore(self, chore: Chore) -> None:
        """Do it when nothing is due."""
        self._chores.append(chore)

    def run(self) -> None:
        """Run events as they fall due, until none is left and no load is under way."""
        self._began_s = time.monotonic()
        while self._events or self._num_loading or self._chores:
            while not self._ended.empty():
                self._enter(*self._ended.get())
            now_s = time.monotonic() - self._began_s
            if self._events and self._events[0][0] <= now_s:
                due_s, _, act, argument = heapq.heappop(self._events)
                self.now_s = max(self.now_s, due_s)
                self.late_s = max(self.late_s, now_s - due_s)
                act(argument)
            elif self._chores:
                if not self._chores[0]():
                    self._chores.popleft()
            else:
                self._wait(self._events[0][0] - now_s if self._events else _WAIT_MAX_S)

    def _wait(self, seconds: float) -> None:
        try:
            self._enter(*self._ended.get(timeout=min(seconds, _WAIT_MAX_S)))
        except Empty:
            return

    def _enter(self, ended_s: float, act: Act, argument: Any) -> None:
        self._num_loading -= 1
        self.at(max(self.now_s, ended_s - self._began_s), act, argument)


def settle(cache: Cache) -> None:
    """Wait for everything under way. Raises TimeoutError if it does not end."""
    if not cache.settle(SETTLE_TIMEOUT_S):
        raise TimeoutError(
            f"transfers of the replay did not end in {SETTLE_TIMEOUT_S:.0f} s; does the device still answer?"
        )
