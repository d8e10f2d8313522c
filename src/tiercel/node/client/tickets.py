"""The tickets of a client: their memory and its fence, and their end, whoever brings it about. Used by `client` only.

    open ──Ended, and nothing of it is copied any more──► resolved
      ├──cancelled here: fenced, then the node answers, or not in time──► resolved
      ├──deadline and a grace have passed: the node was stopped──► resolved
      └──the node is gone──► resolved

The fence is a ticket's `Guard`: a copy that begins later is refused, one that runs is waited for.
"""

import itertools
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tiercel.cache import Outcome, Ticket, TransferResult
from tiercel.errors import DeadlineError
from tiercel.node.events import Ended
from tiercel.plan import OperationKind
from tiercel.tiers.base import BlockStatus, TierName
from tiercel.transfer import Deadlines, EngineSide
from tiercel.transfer.guard import Guard, GuardedMemory, RevokedError

GRACE_S = 0.5
"""How much longer than its deadline a ticket waits for the node to end it."""

_CANCEL_S = 0.5
"""Longest wait for the node's answer to a cancelled ticket; its memory is not touched any more by then."""

_FENCE_S, _LOOK_AGAIN_S = 0.3, 1.0
"""How long a thread that serves all tickets waits at once for what touches one's memory, and how soon it looks again."""

_PASS_LOOK_S = 0.05
"""How often a copy that waits for the engine's pass looks whether it is still wanted."""


class OpenTicket:
    """A ticket that has not ended.

    Attributes:
        packed_slots: of the blocks of a load that is read here, uint32 each; empty if the node is asked.
        ended: how the node says that it ended, while a copy still runs.
        stopped: how it ends without the node, while a copy still runs: as who stopped it first said.
    """

    def __init__(self, ticket: Ticket, side: EngineSide | None, packed_slots: bytes) -> None:
        self.ticket = ticket
        self.packed_slots = packed_slots
        self.guard = Guard() if side is None else side.guard()
        self.memory = None if side is None else GuardedMemory(side.memory, self.guard)
        self.on_gpu = side is not None and side.on_gpu
        self.ready = None if side is None else side.ready
        self.started_at = time.monotonic()
        self.ended: Ended | None = None
        self.stopped: tuple[Outcome, BlockStatus] | None = None

    @property
    def asked(self) -> bool:
        """Whether the node knows it."""
        return not self.packed_slots


class TicketTable:
    """The open tickets of one client. Thread-safe."""

    def __init__(self, block_bytes: int, tell_cancelled: Callable[[int], None]) -> None:
        """Start the thread that watches deadlines.

        Args:
            tell_cancelled: tells the node that nobody waits for a ticket any more; must not raise.
        """
        self._block_bytes = block_bytes
        self._tell_cancelled = tell_cancelled
        self._numbers = itertools.count(1)
        self._open: dict[int, OpenTicket] = {}
        self._listener: int | None = None
        self._deadlines = Deadlines(self._expire)

    def __len__(self) -> int:
        return len(self._open)

    def listened_by(self, thread: int) -> None:
        """The thread that brings the node's messages: it cannot wait for one."""
        self._listener = thread

    def open(
        self,
        kind: OperationKind,
        num_blocks: int,
        side: EngineSide | None,
        timeout_s: float,
        *,
        packed_slots: bytes = b"",
    ) -> OpenTicket:
        """Make a ticket, before the node hears of it. packed_slots: as of `OpenTicket`."""
        ticket = Ticket(next(self._numbers), kind, num_blocks, self._cancel)
        opened = OpenTicket(ticket, side, packed_slots)
        # First: whatever comes between, it ends.
        self._deadlines.add(ticket.number, timeout_s + GRACE_S if opened.asked else timeout_s)
        self._open[ticket.number] = opened
        return opened

    def withdraw(self, opened: OpenTicket) -> None:
        """Forget a ticket that was not launched."""
        opened.guard.revoke(_FENCE_S)
        self._open.pop(opened.ticket.number, None)
        self._deadlines.discard(opened.ticket.number)

    def memory(self, number: int, loading: bool) -> GuardedMemory:
        """Return the memory of an open ticket, for a copy. Raises RevokedError if there is none any more."""
        opened = self._open.get(number)
        if opened is None or opened.memory is None or loading != (opened.ticket.kind is OperationKind.LOAD):
            raise RevokedError
        return opened.memory

    def await_pass(self, number: int, given_up: Callable[[], bool]) -> None:
        """Wait until the engine is done with what a store reads, or nobody wants it any more. Outside the fence: whoever takes
        the memory back does not wait for the pass. Raises DeviceError."""
        opened = self._open.get(number)
        if opened is not None and opened.ready is not None:
            while number in self._open and not given_up() and not opened.ready(_PASS_LOOK_S):
                pass

    def free_source(self, number: int) -> None:
        """The node has read what it wanted of a store's source."""
        opened = self._open.get(number)
        if opened is not None:
            opened.ticket.free_source()

    def end(self, message: Ended) -> None:
        """The node says how a ticket ended. It resolves when nothing of it is copied here any more."""
        opened = self._open.get(message.ticket)
        if opened is not None:
            opened.ended = message
            self.settle(message.ticket)

    def settle(self, number: int) -> None:
        """Resolve a ticket that has ended or was stopped, unless a copy of it still runs. Called after each copy, too."""
        opened = self._open.get(number)
        if opened is None:
            return
        if opened.stopped is not None:
            self._resolve_stopped(opened, 0.0)
            return
        ended = opened.ended
        if ended is None or not opened.guard.revoke(0.0):
            return
        blocks = {TierName(each.tier): each.num_blocks for each in ended.blocks}
        self._resolve(opened, Outcome(ended.outcome), np.frombuffer(ended.statuses, np.uint8), blocks, ended.seconds)

    def finish(self, opened: OpenTicket, status: BlockStatus) -> None:
        """Resolve a ticket without the node, with this status for each of its blocks; later, if a copy of it does not end."""
        outcome = Outcome.CANCELLED if status is BlockStatus.CANCELLED else Outcome.DONE
        self._stop(opened, outcome, status, _FENCE_S)

    def finish_read(self, opened: OpenTicket) -> None:
        """Resolve a load whose blocks were all read here out of the node's host memory."""
        num_blocks = opened.ticket.num_blocks
        statuses = np.full(num_blocks, BlockStatus.OK, np.uint8)
        self._resolve(opened, Outcome.DONE, statuses, {TierName.HOST: num_blocks})

    def lose(self) -> None:
        """Resolve every open ticket: the node is gone."""
        for opened in list(self._open.values()):
            self.finish(opened, BlockStatus.IO_ERROR)

    def close(self) -> None:
        """Cancel every open ticket without the node, and end the thread. Idempotent."""
        for opened in list(self._open.values()):
            self._stop(opened, Outcome.CANCELLED, BlockStatus.CANCELLED, _FENCE_S)
        self._deadlines.close()

    def _cancel(self, number: int) -> None:
        opened = self._open.get(number)
        if opened is None:
            return
        opened.guard.revoke()
        if opened.asked:
            self._tell_cancelled(number)
            if threading.get_ident() != self._listener:
                with suppress(DeadlineError):
                    opened.ticket.wait(_CANCEL_S)
        self._stop(opened, Outcome.CANCELLED, BlockStatus.CANCELLED, None)

    def _expire(self, number: int) -> None:
        opened = self._open.get(number)
        if opened is None:
            return
        if opened.asked:
            self._tell_cancelled(number)
        self._stop(opened, Outcome.DEADLINE, BlockStatus.CANCELLED, _FENCE_S)

    def _stop(self, opened: OpenTicket, outcome: Outcome, status: BlockStatus, timeout_s: float | None) -> None:
        """Resolve a ticket now, or if a copy of it still runs after that time, when that ends."""
        if opened.stopped is None:
            opened.stopped = outcome, status
        if not self._resolve_stopped(opened, timeout_s):
            self._deadlines.add(opened.ticket.number, _LOOK_AGAIN_S)  # who ends the copy may not say so

    def _resolve_stopped(self, opened: OpenTicket, timeout_s: float | None) -> bool:
        assert opened.stopped is not None
        outcome, status = opened.stopped
        if not opened.guard.revoke(timeout_s):
            return False
        self._resolve(opened, outcome, np.full(opened.ticket.num_blocks, status, np.uint8))
        return True

    def _resolve(
        self,
        opened: OpenTicket,
        outcome: Outcome,
        statuses: NDArray[np.uint8],
        blocks: dict[TierName, int] | None = None,
        seconds: float | None = None,
    ) -> None:
        ticket, found = opened.ticket, blocks or {}
        self._open.pop(ticket.number, None)
        self._deadlines.discard(ticket.number)
        lacking = ticket.num_blocks - len(statuses)  # blocks behind what one message can name
        if lacking > 0:
            statuses = np.concatenate([statuses, np.full(lacking, BlockStatus.MISSING, np.uint8)])
        statuses.flags.writeable = False
        ticket.resolve(
            TransferResult(
                kind=ticket.kind,
                outcome=outcome,
                statuses=statuses,
                blocks_by_tier=MappingProxyType(found),
                bytes_by_tier=MappingProxyType({tier: count * self._block_bytes for tier, count in found.items()}),
                seconds=time.monotonic() - opened.started_at if seconds is None else seconds,
            )
        )
