"""Operations from their plan to their last completion: tickets, deadlines, who waits for whom. Used by `dispatch` only."""

import threading
import time
from collections.abc import Mapping, Sequence

from tiercel.cache.running import Hooks, Resolution, Running, resolve_all
from tiercel.cache.tickets import Outcome, Ticket, TransferResult
from tiercel.control import Control, Operation
from tiercel.plan import Completion, Free, OperationKind, unpack_slots
from tiercel.telemetry.logs import bind_request_id
from tiercel.tiers.base import Tier, TierName
from tiercel.transfer import NOBODY, Deadlines, EngineSide, Owner, TransferEngine, TransferSettings

_FENCE_S, _LOOK_AGAIN_S = 0.3, 1.0
"""How long the thread of deadlines, which all tickets share, waits at once for what touches a late one's memory, and how soon it
looks again. Only a device that holds the memory itself takes so long."""

_GPU, _STORE, _DEMOTE = TierName.GPU, OperationKind.STORE, OperationKind.DEMOTE


class OperationTable:
    """The operations that have not ended, and the engine that runs their plans.

    Attributes:
        lock: held while a plan is made and started, so that plans are applied in the order of their making.
    """

    def __init__(
        self,
        control: Control,
        tiers: Mapping[TierName, Tier],
        settings: TransferSettings,
        hooks: Hooks,
    ) -> None:
        """Start the threads; as `Dispatcher`. Raises RuntimeError if one cannot start; then none runs."""
        self._control = control
        self._tiers = dict(tiers)
        self._hooks = hooks
        self.lock = threading.Lock()
        self._running: dict[int, Running] = {}
        self._deadlines = Deadlines(self._expire)
        try:
            self.transfer = TransferEngine(self._tiers, settings, on_completion=self._complete)
        except BaseException:
            self._deadlines.close()
            raise

    def __len__(self) -> int:
        return len(self._running)

    def start(
        self,
        operation: Operation,
        side: EngineSide | None,
        now_s: float,
        ended: list[Resolution],
        owner: Owner = NOBODY,
    ) -> Ticket:
        """Register an operation and submit its plan. Called under the lock, which keeps plans in the order of their making.
        What ends at once is added to `ended`. owner: in whose queues its moves wait."""
        plan = operation.plan
        layers = None if side is None or side.layers is None else side.layers.arrivals
        ticket = Ticket(plan.ticket, plan.kind, plan.num_blocks, self._cancel, layers)
        owners = {owner: self._running[owner] for _, _, owner in operation.attached if owner in self._running}
        running = Running(
            ticket=ticket,
            operation=operation,
            launched_at=now_s,
            open_moves=len(plan.moves),
            source_moves=sum([move.source is _GPU for move in plan.moves]),
            owners=set(owners),
            followers=[],
        )
        for writer in owners.values():
            writer.followers.append(running)
        # Registered before a worker can see it: an interruption behind the submission leaves an operation that ends as any other.
        self._running[plan.ticket] = running
        self._deadlines.add(plan.ticket, plan.deadline_s)
        try:
            self.transfer.submit(plan, side, owner)
        except BaseException:
            if not self.transfer.is_open(plan.ticket):
                self._end(running)
            raise
        for name in operation.refusals:
            self._hooks.on_throttled(name)
        if running.source_moves == 0 and plan.kind is _STORE:
            ticket.free_source()
        if running.ended:
            ended.append(self._end(running))
        elif self._control.relief.is_due():
            self._hooks.on_pressure()
        return ticket

    def _complete(self, completion: Completion) -> None:
        """Enter a completion; called by the transfer engine."""
        ended: list[Resolution] = []
        with self.lock:
            running = self._running[completion.ticket]
            operation = running.operation
            move = operation.plan.moves[completion.move]
            self.apply_frees(self._control.complete(operation, completion))
            running.open_moves -= 1
            source_free = move.source is _GPU and running.source_moves == 1
            running.source_moves -= move.source is _GPU
            if running.open_moves == 0:
                self._retire(running, ended)
        if source_free:
            running.ticket.free_source()
        self._hooks.on_move(running.ticket, move, completion)
        resolve_all(ended)
        self._hooks.after_move(move)

    def _retire(self, running: Running, ended: list[Resolution]) -> None:
        """End an operation whose moves have all ended, and those that only waited for its blocks. Called under the lock."""
        if running.ended:
            ended.append(self._end(running))
        for follower in running.followers:
            follower.owners.discard(running.operation.plan.ticket)
            if follower.ended and follower.operation.plan.ticket in self._running:
                ended.append(self._end(follower))
        running.followers.clear()

    def _end(self, running: Running) -> Resolution:
        operation = running.operation
        self._running.pop(operation.plan.ticket, None)
        self._deadlines.discard(operation.plan.ticket)
        if operation.attached:
            self._control.settle_attached(operation)
        self.apply_frees(self._control.finish(operation))
        demotion = operation.plan.kind is _DEMOTE
        if demotion:
            self._control.relief.end(operation, time.monotonic())
        if demotion or self._control.relief.is_due():
            self._hooks.on_pressure()
        return running.ticket, self._result(running)

    def _result(self, running: Running) -> TransferResult:
        return running.result(self._control.settings.block_bytes)

    def apply_frees(self, frees: Sequence[Free]) -> None:
        """Free slots in their tiers. Called in the order in which the control half returned them."""
        for free in frees:
            self._tiers[free.tier].free(unpack_slots(free.slots))

    def _cancel(self, number: int) -> None:
        self._stop(number, Outcome.CANCELLED, None)

    def _expire(self, number: int) -> None:
        if not self._stop(number, Outcome.DEADLINE, _FENCE_S):
            self._deadlines.add(number, _LOOK_AGAIN_S)

    def _stop(self, number: int, outcome: Outcome, timeout_s: float | None) -> bool:
        """Resolve a ticket now; its operation ends when the device is done with it. Returns False, and leaves the ticket to the
        operation's end, if the engine's memory is still touched after that time."""
        with self.lock:
            running = self._running.get(number)
            if running is None:
                return True
            running.outcome = outcome
        with bind_request_id(running.ticket.request_id):
            if not self.transfer.cancel(number, timeout_s):
                return False
        with self.lock:
            ended = [(running.ticket, self._result(running))]
            if running.open_moves == 0 and number in self._running:
                running.owners.clear()
                ended = [self._end(running)]
        resolve_all(ended)
        return True

    def cancel_all(self, timeout_s: float) -> None:
        """Cancel every open ticket, and wait so long for what touches engines' memory; tickets of that resolve when it ends."""
        stop_at = time.monotonic() + timeout_s
        for number in list(self._running):
            self._stop(number, Outcome.CANCELLED, max(0.0, stop_at - time.monotonic()))

    def close(self) -> bool:
        """Cancel everything and end the threads. Idempotent. False if a device was still busy when its time was over."""
        self.cancel_all(0.0)  # so that one that a device holds up does not hold up the others
        drained = self.transfer.close()
        self.cancel_all(0.0)  # those of which a copy was under way
        self._deadlines.close()
        return drained
