"""Tickets: the handles of running loads, stores and prefetches.

A ticket is resolved once, by the facade, from whatever thread learns the outcome; waiting for it works from threads and from
asyncio alike. It holds no bytes and no pins itself: those belong to the operation behind it, which outlives a ticket that was
cancelled while the device was still busy.
"""

import asyncio
import enum
import logging
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import DeadlineError
from tiercel.layout import stream_handle
from tiercel.plan import OperationKind
from tiercel.telemetry.logs import current_request_id
from tiercel.telemetry.tracing import EndedMove
from tiercel.tiers.base import BlockStatus, TierName
from tiercel.transfer import LayerArrivals, longest_wait

_logger = logging.getLogger(__name__)

_OK_BYTE = bytes((BlockStatus.OK,))


class Outcome(enum.Enum):
    """How a ticket ended as a whole; each block has a status of its own."""

    DONE = "done"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TransferResult:
    """The outcome of a ticket.

    Attributes:
        statuses: uint8[num_blocks], a `BlockStatus` per block, read-only.
        blocks_by_tier: of a load: blocks that arrived, by the tier that they came from; of a store or prefetch: blocks that were
            written, by the tier that they went to (blocks stored before are not counted).
        bytes_by_tier: the same in bytes.
        seconds: from the launch to the outcome.
    """

    kind: OperationKind
    outcome: Outcome
    statuses: NDArray[np.uint8]
    blocks_by_tier: Mapping[TierName, int]
    bytes_by_tier: Mapping[TierName, int]
    seconds: float

    @property
    def num_blocks(self) -> int:
        """Blocks that the ticket covered."""
        return len(self.statuses)

    @property
    def num_blocks_ok(self) -> int:
        """Leading blocks that arrived (load, prefetch) or are stored (store): what may be relied on."""
        statuses = self.statuses.tobytes()
        return len(statuses) - len(statuses.lstrip(_OK_BYTE))

    @property
    def ok(self) -> bool:
        """Whether every block is fine."""
        return self.num_blocks_ok == self.num_blocks


class Ticket:
    """A running load, store or prefetch. Thread-safe.

    It always resolves: at the latest at its deadline, or where a device holds the engine's memory itself (`direct`), when that
    has answered. After it resolved, no move touches the engine's memory any more.
    """

    def __init__(
        self,
        number: int,
        kind: OperationKind,
        num_blocks: int,
        cancel: Callable[[int], None],
        layers: LayerArrivals | None = None,
    ) -> None:
        """Made by the facade only."""
        self.number = number
        self.kind = kind
        self.num_blocks = num_blocks
        self.request_id = current_request_id()
        """What was bound with `bind_request_id` when the ticket was made."""
        self.ended_moves: list[EndedMove] = []
        """What spans tell of the moves; kept only while spans are wanted."""
        self._cancel = cancel
        self._layers = layers
        self._lock = threading.Lock()
        # Two, so that who waits for the outcome is not woken, for nothing, when the source is free.
        self._resolved = threading.Condition(self._lock)
        self._source_freed = threading.Condition(self._lock)
        self._result: TransferResult | None = None
        self._source_free = False
        self._callbacks: list[Callable[[], None]] = []
        self._source_callbacks: list[Callable[[], None]] = []

    @property
    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._result is not None

    @property
    def source_free(self) -> bool:
        """Whether the engine's memory of a store may be written again; for other kinds, whether the outcome is known."""
        return self._source_free

    def wait(self, timeout_s: float | None = None) -> TransferResult:
        """Wait for the outcome. Without a timeout the ticket's own deadline bounds the wait.

        Raises:
            DeadlineError: `timeout_s` passed first. The ticket goes on.
            TypeError, ValueError: `timeout_s` is no time.
        """
        bound_s = longest_wait(timeout_s)
        with self._lock:
            if not self._resolved.wait_for(lambda: self._result is not None, bound_s):
                raise DeadlineError(f"{self.kind.value} ticket {self.number} has no outcome after {timeout_s} s")
            assert self._result is not None
            return self._result

    def try_wait(self) -> TransferResult | None:
        """Return the outcome if it is known."""
        return self._result

    def wait_source(self, timeout_s: float | None = None) -> None:
        """Wait until the engine's memory of a store may be written again; for other kinds, until the outcome.

        Raises:
            DeadlineError: `timeout_s` passed first. The ticket goes on.
            TypeError, ValueError: `timeout_s` is no time.
        """
        bound_s = longest_wait(timeout_s)
        with self._lock:
            if not self._source_freed.wait_for(lambda: self._source_free or self._result is not None, bound_s):
                raise DeadlineError(f"store ticket {self.number} still reads its source after {timeout_s} s")

    def wait_layer(self, layer: int, *, stream: object | None = None, timeout_s: float | None = None) -> bool:
        """Wait until a layer of every block has arrived, of a load that was launched `by_layer`.

        With a stream the caller waits only until the layer's copies are queued; the stream then waits for the copies, and
        for no other layer's. What a copy's device makes of it is known later: whoever computed on a layer asks `wait` for
        the outcome before the result is used.

        Args:
            layer: its number.
            stream: the engine's stream that is to wait (a torch.cuda.Stream, or a CUstream as a number); None waits here.
            timeout_s: longest wait; without one the ticket's own deadline bounds it.

        Returns:
            Whether the layer arrived, or is ordered before what the stream does next; False if the load ended without it.

        Raises:
            DeadlineError: `timeout_s` passed first. The ticket goes on.
            ValueError: there is no such layer, or the load was not launched `by_layer`.
            TypeError: the stream is none.
        """
        if self._layers is None:
            raise ValueError(
                f"{self.kind.value} ticket {self.number} does not wait for layers: launch it with by_layer"
            )
        return self._layers.wait(layer, None if stream is None else stream_handle(stream), timeout_s)

    def cancel(self) -> None:
        """End what has not started; blocks that are already moved keep their status. When this returns, the engine's memory
        is not touched any more. Idempotent; without effect on a ticket that has ended."""
        self._cancel(self.number)

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        """Call back once when the ticket resolves, from the resolving thread, or at once if it has. Must not block; what it
        raises is logged, because the resolving thread has others to serve."""
        with self._lock:
            if self._result is None:
                self._callbacks.append(callback)
                return
        self._call_back(callback)

    def add_source_callback(self, callback: Callable[[], None]) -> None:
        """Call back once when the engine's memory may be written again, as `add_done_callback` does of the outcome. It is called
        before the callbacks of the outcome."""
        with self._lock:
            if not self._source_free:
                self._source_callbacks.append(callback)
                return
        self._call_back(callback)

    def __await__(self) -> Generator[Any, None, TransferResult]:
        """Wait for the outcome in asyncio. Cancelling the waiting task cancels the ticket."""
        return self._wait_async().__await__()

    async def _wait_async(self) -> TransferResult:
        loop = asyncio.get_running_loop()
        resolved = loop.create_future()

        def settle() -> None:
            if not resolved.done():
                resolved.set_result(None)

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle)

        self.add_done_callback(wake)
        try:
            await resolved
        except asyncio.CancelledError:
            self.cancel()
            raise
        assert self._result is not None
        return self._result

    def free_source(self) -> None:
        """Tell waiters that the source memory is free. Called by the facade."""
        with self._lock:
            self._source_free = True
            callbacks, self._source_callbacks = self._source_callbacks, []
            self._source_freed.notify_all()
        for callback in callbacks:
            self._call_back(callback)

    def resolve(self, result: TransferResult) -> bool:
        """Set the outcome; False if there was one. Called by the facade."""
        with self._lock:
            if self._result is not None:
                return False
            self._result = result
            self._source_free = True
            callbacks = [*self._source_callbacks, *self._callbacks]
            self._source_callbacks, self._callbacks = [], []
            self._resolved.notify_all()
            self._source_freed.notify_all()
        if self._layers is not None:
            self._layers.end()
        for callback in callbacks:
            self._call_back(callback)
        return True

    def _call_back(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            _logger.exception("a done callback of %r failed", self)

    def __repr__(self) -> str:
        state = "running" if self._result is None else self._result.outcome.value
        return f"Ticket({self.number}, {self.kind.value}, {self.num_blocks} blocks, {state})"
