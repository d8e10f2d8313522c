"""The threads that copy blocks between this process's engine and the node's memory. Used by `link` only."""

import logging
from collections.abc import Callable, Sequence

from tiercel.errors import TiercelError
from tiercel.node.client.threads import CopyThreads
from tiercel.node.client.tickets import TicketTable
from tiercel.node.codec import shortened
from tiercel.node.events import Copy
from tiercel.ranks.regions import MappedRegion
from tiercel.ranks.work import CopyQueue, Task
from tiercel.tiers.base import UnsettledError
from tiercel.transfer.guard import RevokedError

_log = logging.getLogger(__name__)

NUM_THREADS = 8
"""Copies at once: as many as a node asks one client for, two of each lane. Stores from a GPU wait here for the engine's pass, and
no load waits behind them."""

_DEFECT = "a copy met a defect"
_CANCELLED = "cancelled"


class Copyists:
    """What one connection asks to be copied."""

    def __init__(
        self,
        tickets: TicketTable,
        regions: Sequence[MappedRegion],
        block_bytes: int,
        answer: Callable[[int, str], None],
        on_defect: Callable[[str], None],
    ) -> None:
        """Make the threads, without starting them.

        Args:
            answer: tells the node that a copy touches nothing any more, and what failed; must not raise.
            on_defect: ends the connection.
        """
        self._tickets = tickets
        self._regions = tuple(regions)
        self._block_bytes = block_bytes
        self._answer = answer
        self._on_defect = on_defect
        self._queue: CopyQueue[Copy] = CopyQueue(answer, "the client is ending")
        self.add, self.cancel = self._queue.add, self._queue.cancel
        self._threads = CopyThreads("tiercel-node-copy", NUM_THREADS, self._work)
        self.start = self._threads.start

    def end(self, timeout_s: float) -> bool:
        """Refuse what has not begun and wait for the rest, a device's copies too. Returns False if one goes on after that time.
        Idempotent."""
        self._queue.end()
        return self._threads.join(timeout_s)

    def _work(self) -> None:
        while (task := self._queue.wait_take()) is not None:
            failure: str | None = _DEFECT
            try:
                failure = _CANCELLED if task.cancelled else self._copy(task)
            finally:
                self._queue.finish(task)
                if failure is not None:
                    self._answer(task.copy.number, failure)
                self._tickets.settle(task.copy.ticket)
                if failure is _DEFECT:
                    self._on_defect(_DEFECT)

    def _copy(self, task: Task[Copy]) -> str | None:
        """Run a copy. Returns what went wrong, "" for nothing; None if the node is answered later."""
        copy = task.copy
        try:
            if copy.region >= len(self._regions) or len(copy.pages) % 4:
                raise ValueError(f"copy {copy.number} names no blocks of this cache's")
            addresses = self._regions[copy.region].addresses(copy.pages, self._block_bytes)
            if not copy.loading:
                self._tickets.await_pass(copy.ticket, lambda: task.cancelled)
            memory = self._tickets.memory(copy.ticket, copy.loading)
            part = memory.slice(copy.first_block, copy.first_block + len(addresses))
            (part.scatter if copy.loading else part.gather)(addresses)
        except RevokedError:
            return _CANCELLED
        except UnsettledError as error:
            failure = shortened(str(error))
            self._threads.leave(error.settled, lambda: self._answer(copy.number, failure))
            return None
        except (TiercelError, ValueError) as error:
            _log.warning("copy %d for the node failed: %s", copy.number, error)
            return shortened(str(error)) or type(error).__name__
        return ""
