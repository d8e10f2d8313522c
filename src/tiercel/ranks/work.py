"""The copies that a rank was asked for: which may start, which wait for the engine's step, which are not wanted any more.

    add ──its step is marked, or it needs none──► ready ──taken──► running ──► finished
     └──it is not──► parked ──its time is over, or cancelled──► refused

Loads are taken before stores. Used by `agent` only.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tiercel.errors import DeadlineError
from tiercel.ranks.messages import Copy

_STEPS_KEPT = 64
"""Steps whose event is known; older ones are waited for by the event of the oldest."""


@dataclass(eq=False, slots=True)
class Task:
    """A copy, the event that it waits for, and whether it is wanted no more."""

    copy: Copy
    expires_at: float
    event: object | None = None
    cancelled: bool = False


class CopyQueue:
    """A rank's copies. Thread-safe."""

    def __init__(self, step_timeout_s: float, refuse: Callable[[int, str], None]) -> None:
        """Start empty.

        Args:
            step_timeout_s: longest wait for a step to be marked.
            refuse: told the number of each copy that is not going to run, and why.
        """
        self._step_timeout_s = step_timeout_s
        self._refuse = refuse
        self._changed = threading.Condition()
        self._parked: dict[int, Task] = {}
        self._loads: deque[Task] = deque()
        self._stores: deque[Task] = deque()
        self._running: dict[int, Task] = {}
        self._events: dict[int, object | None] = {}
        self._last_step = -1
        self._ended = False

    def mark_step(self, step: int, event: object | None) -> bool:
        """Let what waits for a step, or an earlier one, run after this event. Returns whether something did. Raises ValueError if
        steps go back."""
        with self._changed:
            if step <= self._last_step:
                raise ValueError(
                    f"step {step} after step {self._last_step}: steps are marked in their order, each once"
                )
            self._last_step = step
            self._events[step] = event
            if len(self._events) > _STEPS_KEPT:
                del self._events[next(iter(self._events))]
            released = [n for n, task in self._parked.items() if (task.copy.after_step or 0) <= step]
            for number in released:
                self._make_ready(self._parked.pop(number))
            return bool(released)

    def add(self, copy: Copy) -> None:
        """Take a copy."""
        task = Task(copy, time.monotonic() + self._step_timeout_s)
        with self._changed:
            ended = self._ended
            if not ended and copy.after_step is not None and copy.after_step > self._last_step:
                self._parked[copy.number] = task
            elif not ended:
                self._make_ready(task)
        if ended:
            self._refuse(copy.number, "the rank is ending")

    def cancel(self, number: int) -> None:
        """Refuse a copy, or if it runs, have `fence` wait for it. Unknown ones have ended."""
        with self._changed:
            running = self._running.get(number)
            if running is not None:
                running.cancelled = True
            dropped = self._drop(number)
        if dropped:
            self._refuse(number, "cancelled")

    def expire(self) -> float | None:
        """Refuse what has waited too long for its step. Returns the seconds until the next one, None without any."""
        now = time.monotonic()
        with self._changed:
            late = [task.copy for task in self._parked.values() if task.expires_at <= now]
            for copy in late:
                del self._parked[copy.number]
            last = self._last_step
            left = [task.expires_at - now for task in self._parked.values()]
        for copy in late:
            self._refuse(copy.number, f"step {copy.after_step} was not marked in time; the last one is {last}")
        return min(left) if left else None

    def take(self) -> Task | None:
        """Begin a copy that may run. None if there is none."""
        with self._changed:
            if not self._loads and not self._stores:
                return None
            task = (self._loads or self._stores).popleft()
            self._running[task.copy.number] = task
            return task

    def finish(self, task: Task) -> None:
        """End a copy that was taken."""
        with self._changed:
            del self._running[task.copy.number]
            self._changed.notify_all()

    def fence(self, timeout_s: float) -> None:
        """Wait until no cancelled copy runs. Raises DeadlineError."""
        with self._changed:
            if not self._changed.wait_for(lambda: not any(t.cancelled for t in self._running.values()), timeout_s):
                raise DeadlineError(f"a cancelled copy still touches the engine's memory after {timeout_s:g} s")

    def end(self) -> None:
        """Refuse everything that does not run. Idempotent."""
        with self._changed:
            self._ended = True
            left = [*self._parked, *(task.copy.number for task in (*self._loads, *self._stores))]
            self._parked.clear()
            self._loads.clear()
            self._stores.clear()
        for number in left:
            self._refuse(number, "the rank is ending")

    def _make_ready(self, task: Task) -> None:
        step = task.copy.after_step
        if step is not None and self._events:
            # Events of one stream pass in order, so that of the first step kept from `step` on is early enough and late enough.
            task.event = self._events[next(known for known in self._events if known >= step)]
        (self._loads if task.copy.loading else self._stores).append(task)

    def _drop(self, number: int) -> bool:
        if self._parked.pop(number, None) is not None:
            return True
        for queue in (self._loads, self._stores):
            for task in queue:
                if task.copy.number == number:
                    queue.remove(task)
                    return True
        return False
