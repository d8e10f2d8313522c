"""The copies of a rank, which wait for the engine's step.

    add ──its step is marked, or it needs none──► ready (`work`)
     └──it is not──► parked ──its time is over, or cancelled──► refused

Used by `agent` only.
"""

import time
from collections.abc import Callable

from tiercel.ranks.messages import Copy
from tiercel.ranks.work import CopyQueue, Task

_STEPS_KEPT = 64
"""Steps whose event is known; older ones are waited for by the event of the oldest."""


class StepQueue(CopyQueue[Copy]):
    """A rank's copies. Thread-safe."""

    def __init__(self, step_timeout_s: float, refuse: Callable[[int, str], None]) -> None:
        """Start empty.

        Args:
            step_timeout_s: longest wait for a step to be marked.
            refuse: told the number of each copy that is not going to run, and why.
        """
        super().__init__(refuse, "the rank is ending")
        self._step_timeout_s = step_timeout_s
        self._parked: dict[int, tuple[Copy, float]] = {}
        self._events: dict[int, object | None] = {}
        self._last_step = -1

    def mark_step(self, step: int, event: object | None) -> bool:
        """Let what waits for a step, or an earlier one, run after this event. Returns whether something did. Raises ValueError if
        steps go back."""
        with self._lock:
            if step <= self._last_step:
                raise ValueError(
                    f"step {step} after step {self._last_step}: steps are marked in their order, each once"
                )
            self._last_step = step
            self._events[step] = event
            if len(self._events) > _STEPS_KEPT:
                del self._events[next(iter(self._events))]
            released = [n for n, (copy, _) in self._parked.items() if (copy.after_step or 0) <= step]
            for number in released:
                self._release(self._parked.pop(number)[0])
            return bool(released)

    def expire(self) -> float | None:
        """Refuse what has waited too long for its step. Returns the seconds until the next one, None without any."""
        now = time.monotonic()
        with self._lock:
            late = [copy for copy, expires_at in self._parked.values() if expires_at <= now]
            for copy in late:
                del self._parked[copy.number]
            last = self._last_step
            left = [expires_at - now for _, expires_at in self._parked.values()]
        for copy in late:
            self._refuse(copy.number, f"step {copy.after_step} was not marked in time; the last one is {last}")
        return min(left) if left else None

    def _enter(self, copy: Copy) -> None:
        if copy.after_step is not None and copy.after_step > self._last_step:
            self._parked[copy.number] = (copy, time.monotonic() + self._step_timeout_s)
        else:
            self._release(copy)

    def _release(self, copy: Copy) -> None:
        task, step = Task(copy), copy.after_step
        if step is not None and self._events:
            # Events of one stream pass in order, so that of the first step kept from `step` on is early enough and late enough.
            task.event = self._events[next(known for known in self._events if known >= step)]
        self._make_ready(task)

    def _drop(self, number: int) -> bool:
        return self._parked.pop(number, None) is not None or super()._drop(number)

    def _take_all(self) -> list[int]:
        left = [*self._parked, *super()._take_all()]
        self._parked.clear()
        return left
