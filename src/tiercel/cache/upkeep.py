"""What a cache does in the background, on one thread: room ahead of need, demotions, the disk tier's checkpoints, and tuning.

The facade starts it, the dispatcher and finished writes wake it. Each round is short and bounded; it does nothing unless it was
woken or an interval asks for it, and a round in which something fails costs no more than what it would have brought.
"""

import logging
import threading
from collections.abc import Callable

from tiercel.errors import TiercelError

_logger = logging.getLogger(__name__)


class Upkeep:
    """One thread that runs tasks when woken. Thread-safe."""

    def __init__(self, tasks: tuple[Callable[[], None], ...], interval_s: float | None = None) -> None:
        """Name the tasks of a round, in order; none may block longer than a write to the slowest tier.

        Args:
            interval_s: longest time between two rounds; None waits until it is woken.
        """
        self._tasks = tasks
        self._interval_s = interval_s
        self._wanted = threading.Event()
        self._closing = False
        self._at_work = False
        self._thread = threading.Thread(target=self._work, name="tiercel-upkeep", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Ask for a round. Never blocks."""
        if not self._wanted.is_set():
            self._wanted.set()

    @property
    def idle(self) -> bool:
        """Whether no round is wanted or in progress."""
        return not self._wanted.is_set() and not self._at_work

    def _work(self) -> None:
        while True:
            self._at_work = False
            self._wanted.wait(self._interval_s)
            self._at_work = True  # before the wish is cleared: who looks in between must not find it idle
            self._wanted.clear()
            if self._closing:
                return
            for task in self._tasks:
                try:
                    task()
                except (TiercelError, OSError) as error:
                    # A cache without room ahead of need still works, and the next round tries again.
                    _logger.warning("background upkeep failed: %s", error)
                except Exception:
                    _logger.critical("defect in background upkeep", exc_info=True)

    def end(self) -> None:
        """Let the round in progress be the last one. Does not wait for it. Idempotent."""
        self._closing = True
        self._wanted.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the last round, after `end`. False if it still runs then: a device does not answer."""
        if self._thread.ident is not None and threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)
            return not self._thread.is_alive()
        return True
