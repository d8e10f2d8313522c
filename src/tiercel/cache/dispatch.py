"""Between the control half and the data half: tickets, deadlines, and the order in which plans are applied.

A `Dispatcher` owns every operation from its plan to its last completion. A ticket may resolve earlier than its operation ends
(cancelled, or its deadline passed while a device was busy): the operation's pins and slots then wait for the device, the
caller does not. Used by `cache` only.
"""

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from tiercel.cache.tickets import Outcome, Ticket, TransferResult
from tiercel.control import PENDING, Control, Lookup, Operation
from tiercel.errors import CacheClosedError, DeadlineError, ThrottledError
from tiercel.hashing import Sequence as TokenSequence
from tiercel.plan import Completion, Free, Move, OperationKind, unpack_slots
from tiercel.tiers.base import BlockMemory, BlockStatus, Tier, TierName
from tiercel.transfer import Deadlines, LaneName, TransferEngine, TransferSettings

_MOVES_PER_SEGMENT = 3
"""Most moves of one lane that a segment is split into: into the fastest tier, and past it on both sides."""


@dataclass(slots=True, eq=False)
class _Running:
    """An operation until its last move has ended; guarded by the dispatcher's lock.

    Attributes:
        owners: tickets that are writing blocks which this operation attached to.
    """

    ticket: Ticket
    operation: Operation
    launched_at: float
    open_moves: int
    source_moves: int
    owners: set[int]
    outcome: Outcome = Outcome.DONE

    @property
    def ended(self) -> bool:
        return self.open_moves == 0 and not self.owners


_Resolution = tuple[Ticket, TransferResult]
"""A ticket to resolve once the lock is released: its callbacks may call the cache again."""


def _resolve_all(ended: Sequence[_Resolution]) -> None:
    for ticket, result in ended:
        ticket.resolve(result)


class Dispatcher:
    """Runs operations of one cache and resolves their tickets. Thread-safe."""

    def __init__(
        self,
        control: Control,
        tiers: Mapping[TierName, Tier],
        settings: TransferSettings,
        *,
        on_completion: Callable[[Move, Completion], None],
        on_throttled: Callable[[str], None],
    ) -> None:
        """Start the threads.

        Args:
            on_completion: told of every move that ended, from a worker's thread, after the index knows.
            on_throttled: told the name of a queue that was full.
        """
        self._control = control
        self._tiers = dict(tiers)
        self._on_completion = on_completion
        self._on_throttled = on_throttled
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._running: dict[int, _Running] = {}
        self._closed = False
        self._resetting = False
        self._reset_lock = threading.Lock()
        self._deadlines = Deadlines(self._expire)
        self.transfer = TransferEngine(self._tiers, settings, on_completion=self._complete)

    @property
    def num_running(self) -> int:
        """Operations that have not ended."""
        return len(self._running)

    def check_open(self) -> None:
        """Raise CacheClosedError if `close` was called."""
        if self._closed:
            raise CacheClosedError("the cache is closed")

    def load(self, loads: Sequence[tuple[Lookup, BlockMemory]], timeout_s: float) -> list[Ticket]:
        """Launch loads, all or none. Raises ThrottledError, StaleTicketError, CacheClosedError or ValueError."""
        num_segments = sum(len(lookup.segments) for lookup, _ in loads)
        with self._lock:
            self._check_room([LaneName(tier, True) for tier in self._tiers], _MOVES_PER_SEGMENT * num_segments)
            self._control.check_launchable([lookup for lookup, _ in loads])
            started = [
                self._start(self._control.begin_load(next(self._numbers), lookup, deadline_s=timeout_s), target)
                for lookup, target in loads
            ]
        _resolve_all([resolution for _, ended in started for resolution in ended])
        return [ticket for ticket, _ in started]

    def prefetch(self, lookup: Lookup, timeout_s: float) -> Ticket:
        """Launch a prefetch. Raises as `load` does."""
        with self._lock:
            self._check_room([LaneName(segment.tier, True) for segment in lookup.segments], len(lookup.segments))
            operation = self._control.begin_prefetch(next(self._numbers), lookup, deadline_s=timeout_s)
            ticket, ended = self._start(operation, None)
        _resolve_all(ended)
        return ticket

    def store(self, sequence: TokenSequence, source: BlockMemory, first_block: int, timeout_s: float) -> Ticket:
        """Launch a store into every tier whose queue has room; the fastest one's must. Raises as `load` does."""
        with self._lock:
            lanes = [LaneName(tier, False) for tier in sorted(self._tiers)]
            self._check_room(lanes[:1], 1)
            targets = [lanes[0].tier]
            for lane in lanes[1:]:
                if self.transfer.has_room(lane, _MOVES_PER_SEGMENT):
                    targets.append(lane.tier)
                else:
                    self._on_throttled(str(lane))
            operation = self._control.begin_store(
                next(self._numbers),
                sequence,
                first_block=first_block,
                num_blocks=source.num_blocks,
                deadline_s=timeout_s,
                targets=targets,
            )
            ticket, ended = self._start(operation, source)
        _resolve_all(ended)
        return ticket

    def _check_room(self, lanes: Sequence[LaneName], num_moves: int) -> None:
        self.check_open()
        if self._resetting:
            raise ThrottledError("the cache is being reset; recompute, or try again when that is done")
        for lane in lanes:
            if not self.transfer.has_room(lane, num_moves):
                self._on_throttled(str(lane))
                raise ThrottledError(
                    f"the {lane} queue has no room for {num_moves} more moves; retry later, recompute, "
                    f"or raise transfer_queue_depth_max"
                )

    def _start(self, operation: Operation, memory: BlockMemory | None) -> tuple[Ticket, list[_Resolution]]:
        """Register an operation and submit its plan. Called under the lock, which keeps plans in the order of their making."""
        plan = operation.plan
        ticket = Ticket(plan.ticket, plan.kind, plan.num_blocks, self._cancel)
        running = _Running(
            ticket=ticket,
            operation=operation,
            launched_at=time.monotonic(),
            open_moves=len(plan.moves),
            source_moves=sum(move.source is TierName.GPU for move in plan.moves),
            owners={owner for _, _, owner in operation.attached if owner in self._running},
        )
        # Registered before a worker can see it: an interruption behind the submission leaves an operation that ends as any other.
        self._running[plan.ticket] = running
        self._deadlines.add(plan.ticket, plan.deadline_s)
        try:
            self.transfer.submit(plan, memory)
        except BaseException:
            if not self.transfer.is_open(plan.ticket):
                self._end(running)
            raise
        if running.source_moves == 0 and plan.kind is OperationKind.STORE:
            ticket.free_source()
        return ticket, [self._end(running)] if running.ended else []

    def _complete(self, completion: Completion) -> None:
        """Enter a completion; called by the transfer engine."""
        with self._lock:
            running = self._running[completion.ticket]
            operation = running.operation
            move = operation.plan.moves[completion.move]
            self.apply_frees(self._control.complete(operation, completion))
            running.open_moves -= 1
            source_free = move.source is TierName.GPU and running.source_moves == 1
            running.source_moves -= move.source is TierName.GPU
            ended = self._retire(running) if running.open_moves == 0 else []
        if source_free:
            running.ticket.free_source()
        _resolve_all(ended)
        self._on_completion(move, completion)

    def _retire(self, running: _Running) -> list[_Resolution]:
        """End an operation whose moves have all ended, and those that only waited for its blocks. Called under the lock."""
        number = running.operation.plan.ticket
        ended = [self._end(running)] if running.ended else []
        for follower in [other for other in self._running.values() if number in other.owners]:
            follower.owners.discard(number)
            if follower.ended:
                ended.append(self._end(follower))
        return ended

    def _end(self, running: _Running) -> _Resolution:
        operation = running.operation
        self._running.pop(operation.plan.ticket, None)
        self._deadlines.discard(operation.plan.ticket)
        if operation.attached:
            self._control.settle_attached(operation)
        self._control.finish(operation)
        return running.ticket, self._result(running)

    def _result(self, running: _Running) -> TransferResult:
        operation = running.operation
        statuses = operation.statuses.copy()
        statuses[statuses == PENDING] = BlockStatus.CANCELLED
        statuses.flags.writeable = False
        blocks = dict(operation.arrived)
        if operation.plan.kind is OperationKind.LOAD:
            blocks.clear()
            for s in operation.segments:
                window = statuses[s.first_block : s.first_block + s.num_blocks]
                blocks[s.tier] = blocks.get(s.tier, 0) + int((window == BlockStatus.OK).sum())
        block_bytes = self._control.settings.block_bytes
        return TransferResult(
            kind=operation.plan.kind,
            outcome=running.outcome,
            statuses=statuses,
            blocks_by_tier=MappingProxyType(blocks),
            bytes_by_tier=MappingProxyType({tier: count * block_bytes for tier, count in blocks.items()}),
            seconds=time.monotonic() - running.launched_at,
        )

    def apply_frees(self, frees: Sequence[Free]) -> None:
        """Free slots in their tiers. Called in the order in which the control half returned them."""
        for free in frees:
            self._tiers[free.tier].free(unpack_slots(free.slots))

    def _cancel(self, number: int) -> None:
        self._stop(number, Outcome.CANCELLED)

    def _expire(self, number: int) -> None:
        self._stop(number, Outcome.DEADLINE)

    def _stop(self, number: int, outcome: Outcome) -> None:
        """Resolve a ticket now; its operation ends when the device is done with it."""
        with self._lock:
            running = self._running.get(number)
            if running is None:
                return
            running.outcome = outcome
        self.transfer.cancel(number)
        with self._lock:
            ended = [(running.ticket, self._result(running))]
            if running.open_moves == 0 and number in self._running:
                running.owners.clear()
                ended = [self._end(running)]
        _resolve_all(ended)

    def cancel_all(self) -> None:
        """Cancel every open ticket."""
        for number in list(self._running):
            self._cancel(number)

    def reset(self, timeout_s: float, make_durable: Callable[[], None]) -> None:
        """Cancel everything and forget every block. What is launched meanwhile is throttled.

        Args:
            timeout_s: longest wait for the devices.
            make_durable: called when index and tiers are empty, before anything new may start.

        Raises:
            DeadlineError: a device was still busy; nothing was forgotten.
        """
        with self._reset_lock:
            with self._lock:
                self._resetting = True
            try:
                self.cancel_all()
                drained = self.transfer.drain(timeout_s)
                with self._lock:
                    if not drained or self._running:
                        raise DeadlineError(
                            f"a device is still busy {timeout_s} s after the reset began and nothing was forgotten; reset again"
                        )
                    self.apply_frees(self._control.reset())
                    make_durable()
            finally:
                self._resetting = False

    def close(self) -> bool:
        """Cancel everything and end the threads. Idempotent. False if a device was still busy when its time was over."""
        with self._lock:
            self._closed = True
        self.cancel_all()
        drained = self.transfer.close()
        self._deadlines.close()
        return drained
