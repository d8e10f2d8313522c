"""The copies that a process was asked for: which may start, which run, which are not wanted any more.

    add ──► ready ──taken──► running ──► finished
              └──cancelled, or the queue ends──► refused

Loads are taken before stores. `steps` has the queue of a rank, whose copies may wait for the engine first.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from tiercel.errors import DeadlineError


class AskedCopy(Protocol):
    """A message that asks for a copy."""

    @property
    def number(self) -> int: ...

    @property
    def loading(self) -> bool: ...


C = TypeVar("C", bound=AskedCopy)


@dataclass(eq=False, slots=True)
class Task(Generic[C]):
    """A copy, the event that it waits for, and whether it is wanted no more."""

    copy: C
    event: object | None = None
    cancelled: bool = False


class CopyQueue(Generic[C]):
    """Copies of one process. Thread-safe."""

    def __init__(self, refuse: Callable[[int, str], None], ending: str) -> None:
        """Start empty.

        Args:
            refuse: told the number of each copy that is not going to run, and why.
            ending: why copies do not run once the queue has ended.
        """
        self._refuse = refuse
        self._ending = ending
        self._lock = threading.RLock()
        self._wanted = threading.Condition(self._lock)
        """Told of each copy that may run: one thread takes it."""
        self._settled = threading.Condition(self._lock)
        """Told of each copy that ended, for who waits in `fence`."""
        self._loads: deque[Task[C]] = deque()
        self._stores: deque[Task[C]] = deque()
        self._running: dict[int, Task[C]] = {}
        self._ended = False

    def add(self, copy: C) -> None:
        """Take a copy."""
        with self._lock:
            ended = self._ended
            if not ended:
                self._enter(copy)
        if ended:
            self._refuse(copy.number, self._ending)

    def cancel(self, number: int) -> None:
        """Refuse a copy, or if it runs, have `fence` wait for it. Unknown ones have ended."""
        with self._lock:
            running = self._running.get(number)
            if running is not None:
                running.cancelled = True
            dropped = self._drop(number)
        if dropped:
            self._refuse(number, "cancelled")

    def take(self) -> Task[C] | None:
        """Begin a copy that may run. None if there is none."""
        with self._lock:
            if not self._loads and not self._stores:
                return None
            task = (self._loads or self._stores).popleft()
            self._running[task.copy.number] = task
            return task

    def wait_take(self) -> Task[C] | None:
        """Wait for a copy that may run, and begin it. None once the queue has ended."""
        with self._lock:
            self._wanted.wait_for(lambda: self._loads or self._stores or self._ended)
            return self.take()

    def finish(self, task: Task[C]) -> None:
        """End a copy that was taken."""
        with self._lock:
            del self._running[task.copy.number]
            self._settled.notify_all()

    def fence(self, timeout_s: float) -> None:
        """Wait until no cancelled copy runs. Raises DeadlineError."""
        with self._lock:
            if not self._settled.wait_for(lambda: not any(t.cancelled for t in self._running.values()), timeout_s):
                raise DeadlineError(f"a cancelled copy still touches the engine's memory after {timeout_s:g} s")

    def end(self) -> None:
        """Refuse everything that does not run. Idempotent."""
        with self._lock:
            self._ended = True
            left = self._take_all()
            self._wanted.notify_all()
        for number in left:
            self._refuse(number, self._ending)

    def _enter(self, copy: C) -> None:
        """Keep a copy. Called under the lock, as what follows."""
        self._make_ready(Task(copy))

    def _make_ready(self, task: Task[C]) -> None:
        (self._loads if task.copy.loading else self._stores).append(task)
        self._wanted.notify()

    def _drop(self, number: int) -> bool:
        """Forget a copy that has not begun. Returns whether there was one."""
        for queue in (self._loads, self._stores):
            for task in queue:
                if task.copy.number == number:
                    queue.remove(task)
                    return True
        return False

    def _take_all(self) -> list[int]:
        """Forget every copy that has not begun. Returns their numbers."""
        left = [task.copy.number for task in (*self._loads, *self._stores)]
        self._loads.clear()
        self._stores.clear()
        return left
