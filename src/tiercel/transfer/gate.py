"""Where stores wait for the engine: blocks can be read when the pass that writes them has run.

That takes tens of milliseconds, in which a lane's worker could do nothing else and the clock of its transfer would run. So a
store is queued when its blocks are ready, and the wait counts as waiting. One thread waits, in the order of the stores:
events of one engine's stream pass in that order. Loads do not come here; requests wait for them, so their copies are queued
on the device behind the event and begin when it passes.
"""

import logging
import queue
from collections.abc import Callable
from typing import NamedTuple

from tiercel.errors import DeviceError
from tiercel.transfer.job import Job

_logger = logging.getLogger(__name__)

_LOOK_S = 0.05
"""How often the thread looks whether the store that it waits for has been cancelled."""

Ready = Callable[[float], bool]
"""Waits at most so many seconds for an engine to be done with its blocks, and says whether it is."""


class _Held(NamedTuple):
    job: Job
    ready: Ready


class Gate:
    """Holds jobs back until their blocks are ready. One of a transfer engine, whose thread calls `run`."""

    def __init__(self, start: Callable[[Job], None]) -> None:
        """start: called with each job, from the gate's thread; with one that was cancelled meanwhile, too."""
        self._start = start
        self._held: queue.SimpleQueue[_Held | None] = queue.SimpleQueue()

    def hold(self, job: Job, ready: Ready) -> None:
        """Start a job when its blocks are ready, or when it was cancelled."""
        self._held.put(_Held(job, ready))

    def close(self) -> None:
        """End the thread when what is held has started or was cancelled."""
        self._held.put(None)

    def run(self) -> None:
        """Start jobs until closed."""
        while True:
            held = self._held.get()
            if held is None:
                return
            self._wait(held)
            self._start(held.job)
            del held  # memory and event are the engine's, and this thread may now wait for hours

    @staticmethod
    def _wait(held: _Held) -> None:
        try:
            while not held.job.queued and not held.ready(_LOOK_S):
                pass
        except DeviceError as error:
            # The copy meets the same failure, and reports it block by block.
            _logger.warning("cannot wait for the engine: %s", error, extra={"ticket": held.job.plan.ticket})
