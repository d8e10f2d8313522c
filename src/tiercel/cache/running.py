"""Operations under way: what the dispatcher keeps of each, and the result that its ticket is resolved with."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from tiercel.cache.tickets import Outcome, Ticket, TransferResult
from tiercel.control import PENDING, Operation
from tiercel.plan import Completion, Move, OperationKind
from tiercel.tiers.base import BlockStatus

_LOAD = OperationKind.LOAD
_OK, _CANCELLED = int(BlockStatus.OK), int(BlockStatus.CANCELLED)

Resolution = tuple[Ticket, TransferResult]
"""A ticket to resolve once the lock is released: its callbacks may call the cache again."""


def resolve_all(ended: Sequence[Resolution]) -> None:
    """Resolve tickets. Called without any lock."""
    for ticket, result in ended:
        ticket.resolve(result)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Who is told of what happens to operations.

    Attributes:
        on_move: told of every move that ended, from a worker's thread, when the index knows and before the ticket resolves.
        after_move: told of it after that.
        on_throttled: told the name of a queue that was full, or of what held blocks back from a tier.
        on_pressure: told, under the lock, that the dispatcher's `relieve` would find something to do.
    """

    on_move: Callable[[Ticket, Move, Completion], None]
    after_move: Callable[[Move], None]
    on_throttled: Callable[[str], None]
    on_pressure: Callable[[], None]


@dataclass(slots=True, eq=False)
class Running:
    """An operation until its last move has ended; guarded by the dispatcher's lock.

    Attributes:
        owners: tickets that are writing blocks which this operation attached to.
        followers: operations that attached to blocks which this one is writing.
    """

    ticket: Ticket
    operation: Operation
    launched_at: float
    open_moves: int
    source_moves: int
    owners: set[int]
    followers: list["Running"]
    outcome: Outcome = Outcome.DONE

    @property
    def ended(self) -> bool:
        """Whether nothing is left to wait for."""
        return self.open_moves == 0 and not self.owners

    def result(self, block_bytes: int) -> TransferResult:
        """The outcome as far as it is known; the rest counts as cancelled."""
        operation = self.operation
        statuses = operation.statuses.copy()
        statuses[statuses == PENDING] = _CANCELLED
        statuses.flags.writeable = False
        blocks = dict(operation.arrived)
        if operation.plan.kind is _LOAD:
            blocks.clear()
            base = operation.plan.first_block
            for s in operation.segments:
                window = statuses[s.first_block - base : s.first_block - base + s.num_blocks]
                blocks[s.tier] = blocks.get(s.tier, 0) + window.tobytes().count(_OK)
        return TransferResult(
            kind=operation.plan.kind,
            outcome=self.outcome,
            statuses=statuses,
            blocks_by_tier=MappingProxyType(blocks),
            bytes_by_tier=MappingProxyType({tier: count * block_bytes for tier, count in blocks.items()}),
            seconds=time.monotonic() - self.launched_at,
        )
