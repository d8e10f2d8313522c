"""Threads for calls: so that one that waits for a device holds up no other, and none holds up the thread that listens.

What is queued is bounded by who queues: each connection has one call at a time.
"""

import logging
import queue
import threading
from collections.abc import Callable

_logger = logging.getLogger(__name__)

Work = Callable[[], None]


class Workers:
    """A few threads that run what they are given, in order. Thread-safe."""

    def __init__(self, name: str, num_threads: int) -> None:
        """Start the threads. Raises RuntimeError if the machine has none left; then none runs on."""
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"tiercel-{name}-{number}", daemon=True)
            for number in range(num_threads)
        ]
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self.close(0.0)
            raise

    def put(self, work: Work) -> None:
        """Have something done soon. It must not raise; if it does, that is logged as a defect."""
        self._queue.put(work)

    def close(self, timeout_s: float) -> None:
        """Let the threads end when what is queued is done, and wait so long for each. Idempotent."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(timeout_s)

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            try:
                work()
            except Exception:
                _logger.critical("defect in a node's call", exc_info=True)
            del work  # what it refers to must not live until the next call
