"""From completions to index states and block statuses, until an operation has ended. Used by `control` only."""

import numpy as np

from tiercel.control.operation import PENDING, Operation
from tiercel.costs import TransferCostModel
from tiercel.index import Index
from tiercel.plan import NO_MOVE, Completion, Free, Move, OperationKind, pack_slots, unpack_slots
from tiercel.tiers.base import BlockStatus, Slots, TierName

# Members of an enum are slow to reach by name, and these are reached for every move.
_GPU, _LOAD, _PREFETCH, _OK = TierName.GPU, OperationKind.LOAD, OperationKind.PREFETCH, int(BlockStatus.OK)

_LOST = (int(BlockStatus.MISSING), int(BlockStatus.CORRUPT), int(BlockStatus.IO_ERROR))
"""Outcomes of a read after which the block is forgotten."""


class Outcomes:
    """Enters what became of moves, and lets go of what operations hold."""

    def __init__(
        self, index: Index, tiers: tuple[TierName, ...], transfer_costs: tuple[TransferCostModel, ...]
    ) -> None:
        self._index = index
        self._numbers = {tier: number for number, tier in enumerate(tiers)}
        self._transfer_costs = transfer_costs
        # Loads that read from slots which they wrote themselves: all others read what matches pin.
        self._passing: dict[int, Operation] = {}

    def open(self, operation: Operation) -> None:
        """Keep an operation in mind whose moves read what its own moves wrote."""
        if operation.plan.kind is _LOAD:
            self._passing[operation.plan.ticket] = operation

    def complete(self, operation: Operation, completion: Completion) -> tuple[Free, ...]:
        """Take in how a move ended. Returns the slots that became void, to be freed in their tiers."""
        move = operation.plan.moves[completion.move]
        num_ok = completion.statuses.count(_OK)
        failed = num_ok < move.num_blocks
        frees: list[Free] = []
        reservation = operation.reservations.get(completion.move)
        if reservation is not None:
            flags = np.frombuffer(completion.statuses, np.uint8) != _OK if failed else None
            self._void(frees, move.target, self._index.commit(reservation, flags))
        operation.arrived[move.target] = operation.arrived.get(move.target, 0) + num_ok
        if move.source > move.target:
            if failed and move.after == NO_MOVE:
                self._void(frees, move.source, self._forget_lost(operation, move, completion.statuses))
            self._transfer_costs[move.source].observe(completion.num_bytes, completion.busy_s)
        if move.target is _GPU or operation.plan.kind is not _LOAD:
            window = operation.statuses[move.first_block : move.first_block + move.num_blocks]
            if failed:
                np.putmask(window, window == PENDING, np.frombuffer(completion.statuses, np.uint8))
            elif PENDING in window.tobytes():  # not so where an earlier move of the store has brought them elsewhere
                window[window == PENDING] = _OK
        return tuple(frees)

    def _void(self, frees: list[Free], tier: TierName, slots: Slots) -> None:
        """Free slots of a tier, except those that an open load passes its blocks through: a store that fails takes the blocks
        behind its own out of the tier, but what a load has brought there it may still deliver."""
        if len(slots) == 0:
            return
        for load in self._passing.values():
            for move in load.plan.moves:
                if move.target is tier:
                    # Neither names a slot twice.
                    used = np.isin(slots, unpack_slots(move.target_slots), assume_unique=True)
                    if used.any():
                        load.deferred.append(Free(tier=tier, slots=pack_slots(slots[used])))
                        slots = slots[~used]
        if len(slots):
            frees.append(Free(tier=tier, slots=pack_slots(slots)))

    def _forget_lost(self, operation: Operation, move: Move, statuses: bytes) -> Slots:
        """Forget the first block that its tier could not deliver, and those behind it. Returns the void slots."""
        lost = np.flatnonzero(np.isin(np.frombuffer(statuses, np.uint8), _LOST))
        if len(lost) == 0 or operation.sequence is None:
            return np.empty(0, np.uint32)
        block = operation.plan.first_block + move.first_block + int(lost[0])
        return self._index.drop(operation.sequence, block, self._numbers[move.source])

    def settle_attached(self, operation: Operation) -> None:
        """Decide the blocks that other tickets were writing, now that those have ended: stored (a prefetch: in the fastest
        tier), or missing."""
        assert operation.sequence is not None, "only what was asked for attaches"
        plan = operation.plan
        match = self._index.match(operation.sequence, limit_blocks=plan.first_block + plan.num_blocks, touch=False)
        ready = np.zeros(plan.first_block + plan.num_blocks, np.bool_)
        for tier, first, count in match.segments:
            ready[first : first + count] = tier == 0 or plan.kind is not _PREFETCH
        match.release()
        for first, count, _ in operation.attached:
            window = ready[plan.first_block + first : plan.first_block + first + count]
            operation.statuses[first : first + count] = np.where(window, BlockStatus.OK, BlockStatus.MISSING)
        operation.attached = ()

    def finish(self, operation: Operation) -> tuple[Free, ...]:
        """Let go of an operation's pins and reservations. Idempotent. Returns slots that only waited for it, to be freed."""
        if operation.match is not None:
            operation.match.release()
            operation.match = None
        if not operation.reservations:
            return ()
        for reservation in operation.reservations.values():
            reservation.release()
        operation.reservations.clear()
        self._passing.pop(operation.plan.ticket, None)
        frees, operation.deferred = tuple(operation.deferred), []
        return frees
