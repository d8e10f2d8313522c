"""Threads that copy blocks, and what they leave behind for devices to end. Used by `copying` and `reading`."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for


class CopyThreads:
    """A fixed number of threads, and the devices' copies that have not ended. Thread-safe."""

    def __init__(self, name: str, num_threads: int, work: Callable[[], None]) -> None:
        """Make the threads, without starting them. work: returns when there is nothing more to copy."""
        self._unsettled: set[Future[None]] = set()
        self._threads = [threading.Thread(target=work, name=f"{name}-{i}", daemon=True) for i in range(num_threads)]

    def start(self) -> None:
        """Start the threads. Raises RuntimeError if the machine has none left; call `join` then, too."""
        for thread in self._threads:
            thread.start()

    def leave(self, settled: "Future[None]", then: Callable[[], None]) -> None:
        """Leave a copy to a device; then: called when that touches nothing of it any more."""

        def end(_: object) -> None:
            then()
            self._unsettled.discard(settled)

        self._unsettled.add(settled)
        settled.add_done_callback(end)

    def join(self, timeout_s: float) -> bool:
        """Wait so long for each thread, and for what was left to devices. Returns False if something goes on after that time.
        Idempotent."""
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(timeout_s)
        settled = not wait_for(list(self._unsettled), timeout_s).not_done
        return settled and not any(thread.is_alive() for thread in self._threads)
