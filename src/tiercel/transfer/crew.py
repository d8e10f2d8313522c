"""The threads that run lanes' chunks: a few for each lane, and more while some of these wait for other processes.

Used by `engine`, under whose lock lanes live. A lane that runs nothing but what this process copies itself never gets more
threads than it began with, since no more chunks may run (`Lane`).
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable

from tiercel.transfer.job import Chunk
from tiercel.transfer.lanes import Lane

_logger = logging.getLogger(__name__)

_LOOK_S = 1.0
"""How often a worker looks for work unasked: a `notify` that a signal's exception interrupted may have woken nobody."""

_SPARE_S = 5.0
"""How long a thread without work is kept that a lane got because its others wait for other processes."""


class Crew:
    """The threads of an engine's lanes."""

    def __init__(
        self,
        lanes: Iterable[Lane],
        lock: threading.Lock,
        num_workers: int,
        bytes_of: Callable[[Chunk], int],
        run: Callable[[Lane, Chunk], None],
    ) -> None:
        """Make the threads, without starting them.

        Args:
            num_workers: threads that each lane always has.
            bytes_of: how many bytes of a waiting chunk are moved first.
            run: runs a chunk that was taken from a lane; called without the lock.
        """
        self._lock = lock
        self._bytes_of = bytes_of
        self._run = run
        self._ended = False
        self._spares: set[threading.Thread] = set()
        self._threads = [
            threading.Thread(target=self._work, args=(lane,), name=f"tiercel-{lane.name}-{i}", daemon=True)
            for lane in lanes
            for i in range(num_workers)
        ]

    def start(self) -> None:
        """Start the threads. Raises RuntimeError if the machine has none left; those that run are `end`ed then."""
        for thread in self._threads:
            thread.start()

    def wake(self, lane: Lane) -> None:
        """Have a thread look at a lane if there is something for it there. What may start only when another chunk has ended wakes
        nobody: the thread that ends that one takes it. Called under the lock."""
        now_s = time.monotonic()
        if lane.next(now_s) is not None or lane.waiting.wait_s(now_s) is not None:
            lane.has_work.notify()
            self._staff(lane)

    def _staff(self, lane: Lane) -> None:
        """Give a lane another thread if one more chunk may start and all its threads are with others."""
        if self._ended or not lane.wants_thread(time.monotonic()):
            return
        thread = threading.Thread(target=self._help, args=(lane,), name=f"tiercel-{lane.name}-spare", daemon=True)
        lane.num_threads += 1
        self._spares.add(thread)
        try:
            thread.start()
        except RuntimeError as error:  # the chunk waits for one of the threads that there are
            _logger.warning("the lane %s gets no further thread: %s", lane.name, error)
            lane.num_threads -= 1
            self._spares.discard(thread)

    def end(self) -> None:
        """Let threads end that find no work. Called under the lock, when nothing more will be queued."""
        self._ended = True

    def join(self, timeout_s: float) -> None:
        """Wait so long for each thread, after `end`. Idempotent."""
        with self._lock:
            threads = [*self._threads, *self._spares]
        for thread in threads:
            if thread.ident is not None:
                thread.join(timeout_s)
        self._threads.clear()  # here, where no signal can hit the callbacks that `threading` has for each one's end

    def _help(self, lane: Lane) -> None:
        self._work(lane, _SPARE_S)
        with self._lock:
            self._spares.discard(threading.current_thread())

    def _work(self, lane: Lane, patience_s: float = float("inf")) -> None:
        """Run a lane's chunks until the end, or until there was nothing to do for that long."""
        while True:
            with self._lock:
                chunk = self._await_chunk(lane, patience_s)
                if chunk is None:
                    lane.num_threads -= 1
                    return
                lane.begin(chunk, self._bytes_of(chunk), time.monotonic())
                self.wake(lane)
            try:
                self._run(lane, chunk)
            finally:
                with self._lock:
                    lane.end(chunk)
                    if lane.is_idle(time.monotonic()):
                        lane.idled.notify_all()

    def _await_chunk(self, lane: Lane, patience_s: float) -> Chunk | None:
        stop_at = time.monotonic() + patience_s
        while (chunk := lane.next(now_s := time.monotonic())) is None and not (self._ended and not lane.waiting):
            if now_s >= stop_at:
                return None
            lane.has_work.wait(min(_LOOK_S, lane.waiting.wait_s(now_s) or _LOOK_S))
        return chunk
