"""A rank's side: the thread that does the copies of this process's share of every block.

    agent = RankAgent(directory, rank, EngineMemory.from_arrays(geometry, ..., head_range=(0, 4)))   # returns at once
    agent.wait_ready(60)             # where the cache starts first; otherwise its group's `wait_ready` tells
    for step in ...:
        agent.fence()                # before the engine writes to blocks that were given anew
        ...                          # enqueue the step
        agent.mark_step(step, event) # now what was stored of it may be read

The fence: when a ticket is cancelled or late, the cache tells every rank, and the engine may give the ticket's blocks to
somebody else. A rank that was stopped meanwhile may be in the middle of a copy into them. What the cache said before it resolved
the ticket lies in this process's socket by then, so `fence` reads it and waits for that copy.

When the cache's process ends, the agent lets go of its memory and ends too; the engine computes without it.
"""

import logging
import select
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import final

import numpy as np

from tiercel.errors import ConfigError, DeadlineError, DeviceError, TiercelError
from tiercel.layout import EngineMemory
from tiercel.layout.events import check_event
from tiercel.ranks import sockets
from tiercel.ranks.joining import RankLink, join
from tiercel.ranks.messages import Bye, Cancel, Copy, Done, MessageError, Ready, Refused, decode_for_rank, shortened
from tiercel.ranks.steps import StepQueue
from tiercel.ranks.work import Task
from tiercel.transfer import Devices, GpuCopySettings

_log = logging.getLogger(__name__)

_MEASURED = GpuCopySettings()

_END_S = 30.0
"""Longest wait for a copy in progress when ending."""

_DEFECT = "a copy met a defect"


@final
class RankAgent:
    """Serves one cache with the blocks of this process. Use as a context manager or call `close`. Thread-safe."""

    def __init__(
        self,
        directory: Path,
        rank: int,
        memory: EngineMemory,
        *,
        connect_timeout_s: float = 60.0,
        step_timeout_s: float = 30.0,
        num_threads: int = 8,
        gpu_settings: GpuCopySettings = _MEASURED,
    ) -> None:
        """Start to look for the cache. Returns at once: the cache may start later, in a process that waits for this one.

        Args:
            directory: the group's.
            rank: this process's number among the engine's ranks.
            memory: this rank's share of the engine's blocks.
            connect_timeout_s: how long to look for the cache.
            step_timeout_s: longest wait of a copy for its step to be marked.
            num_threads: copies at once; by default two of each of a cache's lanes and direction, so that no load waits behind
                stores that wait for a step. Whichever has nothing to copy listens to the cache.
            gpu_settings: how a GPU copies; by default as it was measured to be best.
        """
        self._directory = directory
        self._rank = rank
        self._memory = memory
        self._gpu_settings = gpu_settings
        self._connect_timeout_s = connect_timeout_s
        self._num_threads = num_threads
        self._queue = StepQueue(step_timeout_s, self._answer)
        self._link: RankLink | None = None
        self._receiving = threading.Lock()
        self._listening = threading.Lock()
        self._lock = threading.Lock()
        self._ending = False
        self._reason: Exception = DeviceError(f"rank {rank} was closed")
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._waker, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._main, name=f"tiercel-rank-{rank}", daemon=True)
        self._thread.start()

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until the cache has been found and its memory is mapped.

        Raises:
            DeadlineError: not after that time, or no cache was found in the time given to look for it.
            ConfigError: this rank does not fit the cache, or its directory is open to others.
            DeviceError: the memory cannot be mapped or pinned, or the cache ended.
        """
        if not self._ready.wait(timeout_s):
            raise DeadlineError(f"rank {self._rank} has found no cache at {self._directory} after {timeout_s:g} s")
        if self._ending:
            raise type(self._reason)(str(self._reason))

    @property
    def ended(self) -> threading.Event:
        """Set when the agent serves no more and has let go of the cache's memory."""
        return self._ended

    def mark_step(self, step: int, event: object | None = None) -> None:
        """Tell that a step has been enqueued: what was to come after it may be copied now.

        Args:
            step: its number, higher than the last one's; the steps between are taken for enqueued too.
            event: in GPU memory, what the engine's stream records behind the step (a recorded torch.cuda.Event, or a CUevent as a
                number); valid until 64 more steps were marked. None: the step is over.

        Raises:
            ValueError: the step is not higher, or the event does not fit the memory.
            TypeError: it is no event.
        """
        if event is not None:
            check_event(event, self._memory.device)
        if self._queue.mark_step(step, event):
            self._wake()

    def fence(self, timeout_s: float = 10.0) -> None:
        """Return when no copy that the cache gave up before this call touches the engine's memory. Microseconds, mostly.

        Raises:
            DeadlineError: such a copy is not over after that time.
        """
        if self._receive():
            self._wake()  # whoever listens may have seen nothing of what was taken here
        self._queue.fence(timeout_s)

    def close(self) -> None:
        """End the copies in progress, refuse others, and let go of the cache's memory. Idempotent; bounded."""
        self._end(None)
        self._thread.join(_END_S)

    def __enter__(self) -> "RankAgent":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _main(self) -> None:
        try:
            link = join(self._directory, self._rank, self._memory, self._connect_timeout_s, lambda: self._ending)
            if link is not None:
                self._serve(link)
        except (ConfigError, DeadlineError, DeviceError) as error:
            self._end(error)
        except (TiercelError, OSError, ValueError) as error:
            self._end(DeviceError(f"rank {self._rank}: {error}"))
        finally:
            self._end(DeviceError(f"rank {self._rank} has ended"))
            with self._lock:
                self._ended.set()
                self._waker.close()
                self._woken.close()
            self._ready.set()

    def _serve(self, link: RankLink) -> None:
        """Serve until either side ends, and let go of everything."""
        devices = link.devices(self._gpu_settings, note=_log.warning)
        threads = [
            threading.Thread(
                target=self._work, args=(link, devices), name=f"tiercel-rank-{self._rank}-{i}", daemon=True
            )
            for i in range(1, self._num_threads)
        ]
        try:
            try:
                devices.attach(self._memory)
            except TiercelError as error:
                link.send(Refused(shortened(str(error))))
                raise
            self._link = link
            for thread in threads:
                thread.start()
            link.send(Ready())
            self._ready.set()
            self._work(link, devices)
        finally:
            self._let_go(link, devices, [thread for thread in threads if thread.ident is not None])

    def _next(self, link: RankLink) -> Task[Copy] | None:
        """Listen until a copy may run; None at the end. One thread at a time does: it takes what comes without waking another."""
        poll = select.poll()
        poll.register(link.socket, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        with self._listening:
            while True:
                self._receive()  # first, so that nothing starts that was cancelled before
                if self._ending:
                    return None
                task = self._queue.take()
                if task is not None:
                    return task
                wait_s = self._queue.expire()
                poll.poll(None if wait_s is None else max(1.0, wait_s * 1000))
                with suppress(BlockingIOError):
                    self._woken.recv(64, socket.MSG_DONTWAIT)

    def _let_go(self, link: RankLink, devices: Devices, threads: list[threading.Thread]) -> None:
        self._queue.end()
        for thread in threads:
            thread.join(_END_S)
        if any(thread.is_alive() for thread in threads):
            _log.error(
                "rank %d: a copy does not end; the cache's memory stays mapped until the process ends", self._rank
            )
            return
        devices.close()
        with self._receiving:
            self._link = None
            with suppress(OSError):  # the cache may have ended before
                link.send(Bye())
            link.close()

    def _receive(self) -> bool:
        """Take everything that the cache has said. Returns whether a copy was among it."""
        took_copy = False
        with self._receiving:
            link = self._link
            if link is None:
                return False
            try:
                while (data := sockets.receive(link.socket)) is not None:
                    if not data:
                        self._end(DeviceError(f"rank {self._rank}: the cache has ended"))
                        break
                    message = decode_for_rank(data)
                    if isinstance(message, Copy):
                        self._queue.add(message)
                        took_copy = True
                    elif isinstance(message, Cancel):
                        self._queue.cancel(message.number)
                    else:
                        reason = message.reason if isinstance(message, Refused) else "it welcomed this rank twice"
                        self._end(DeviceError(f"rank {self._rank}: the cache cut it off: {reason}"))
                        break
            except (OSError, MessageError) as error:
                self._end(DeviceError(f"rank {self._rank}: the cache cannot be understood: {error}"))
        return took_copy

    def _work(self, link: RankLink, devices: Devices) -> None:
        while (task := self._next(link)) is not None:
            failure = _DEFECT
            try:
                failure = "cancelled" if task.cancelled else self._copy(task, link, devices)
            finally:
                self._queue.finish(task)
                self._answer(task.copy.number, failure)
                if failure is _DEFECT:
                    self._end(DeviceError(f"rank {self._rank}: {_DEFECT}"))

    def _copy(self, task: Task[Copy], link: RankLink, devices: Devices) -> str:
        """Run a copy. Returns what went wrong, "" for nothing."""
        copy = task.copy
        try:
            addresses = link.addresses(copy)
            ids = np.frombuffer(copy.ids, "<u4").astype(np.int64)
            reached = devices.reach(self._memory.blocks(ids, after=task.event)).memory
            (reached.scatter if copy.loading else reached.gather)(addresses)
        except (TiercelError, ValueError) as error:
            _log.warning("rank %d: copy %d failed: %s", self._rank, copy.number, error)
            return shortened(str(error)) or type(error).__name__
        return ""

    def _answer(self, number: int, failure: str) -> None:
        link = self._link
        if link is not None:
            with suppress(OSError):  # the cache has ended, or will notice that it was not answered
                link.send(Done(number, failure))

    def _end(self, reason: Exception | None) -> None:
        """Begin to end, for the first reason given. Takes no time."""
        with self._lock:
            if self._ending:
                return
            self._ending = True
            if reason is not None:
                self._reason = reason
                _log.warning("%s", reason)
        self._wake()

    def _wake(self) -> None:
        """Have the thread that listens look around."""
        with self._lock:
            if not self._ended.is_set():
                with suppress(BlockingIOError):  # it has been told often enough
                    self._waker.send(b"!", socket.MSG_DONTWAIT)
