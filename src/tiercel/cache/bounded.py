"""Work that must be done once, whatever interrupts those who wait for it, and that a device may never let end. Used by `cache`.

Signals' exceptions are raised on a process's main thread only. What runs on a thread of its own is therefore not cut off in the
middle by Ctrl-C; whoever waited for it is, and may wait again.
"""

import threading
from collections.abc import Callable


class Errand:
    """Work that is done once, on a thread of its own, from the first `wait` on. Thread-safe."""

    def __init__(self, work: Callable[[], None], *, name: str) -> None:
        """Note what is to be done. name: the thread's."""
        self._work = work
        self._name = name
        self._begun = threading.Lock()
        self._ended = threading.Event()
        self._failures: list[BaseException] = []

    def wait(self, timeout_s: float | None = None) -> bool:
        """Begin the work if nobody has, and wait for its end.

        Where no thread can be had, because the machine has none left or the interpreter is ending, the caller works itself.

        Args:
            timeout_s: longest wait; None for work that is bounded by itself.

        Returns:
            False if the work goes on behind the caller's back.

        Raises:
            BaseException: what the work raised, to the first who waits for its end.
        """
        if not self._begun.locked():
            try:
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
            except RuntimeError:
                self._run()
        if not self._ended.wait(timeout_s):
            return False
        if self._failures:
            raise self._failures.pop()
        return True

    def _run(self) -> None:
        if not self._begun.acquire(blocking=False):
            return
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._failures.append(error)
        finally:
            self._ended.set()
