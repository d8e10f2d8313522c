"""The control half for blocks that their owner names one by one, in one tier.

A block here is a `Sequence` of a single block: its name enters the key as that block's extras (`hashing.named_block`). So
index, policies, admission, write budget and ghost index are those of `Control`, and every block is a run of its own under the
root: nothing is known of what precedes it, so nothing leaves because of it. Callers give blocks in the order of their
sequence; they are used from the last to the first, so that of one age a sequence's end leaves before its beginning.

`begin_*` take many blocks and make one operation with one move. They cover only what there is to move and say which
blocks those are. Serialised by the caller, as in `Control`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiercel.control.admission import BUDGET
from tiercel.control.control import Control
from tiercel.control.operation import PENDING, Operation
from tiercel.control.settings import ControlSettings
from tiercel.hashing import KEY_BYTES
from tiercel.hashing import Sequence as TokenSequence
from tiercel.index import Match, Reservation
from tiercel.plan import Completion, Free, Move, OperationKind, Plan, pack_keys, pack_slots
from tiercel.tiers.base import BlockStatus, Slots, TierName

_LOAD, _STORE = OperationKind.LOAD, OperationKind.STORE
_GPU = TierName.GPU
_OK = int(BlockStatus.OK)
_LOST = frozenset((int(BlockStatus.MISSING), int(BlockStatus.CORRUPT), int(BlockStatus.IO_ERROR)))

NO_ROOM = "no_room"
"""Name under which it is counted as throttled that a block found no slot: all others are being written or read."""

Positions = NDArray[np.int64]
"""Which of the blocks of a call an operation covers, in its order."""


class KeyedOperation(Operation, kw_only=True, eq=False):
    """An operation on blocks that share nothing.

    Attributes:
        blocks: the blocks, in the order of the move.
        pins: a load's hold on each.
        taken: a store's hold on each.
    """

    blocks: tuple[TokenSequence, ...] = ()
    pins: tuple[Match, ...] = ()
    taken: tuple[Reservation, ...] = ()


class KeyedControl(Control):
    """`Control` for named blocks in a single tier."""

    def __init__(self, settings: ControlSettings) -> None:
        """Raises ValueError for settings of several tiers."""
        if len(settings.capacities) != 1:
            raise ValueError(f"named blocks live in one tier, not in {len(settings.capacities)}")
        super().__init__(settings)
        self._tier = self.tiers[0]
        self._complete_others, self._finish_others = self.complete, self.finish
        self.complete, self.finish = self._complete, self._finish

    def find(self, block: TokenSequence, now_s: float) -> Match:
        """Pin a block if it is stored. `num_blocks` of the answer says so, `num_pending` that it is being written."""
        match = self.index.match(block, now_s=now_s)
        if self._ghost is not None:
            self._ghost.observe_hashed(block, 1)
        return match

    def touch(self, blocks: Sequence[TokenSequence], now_s: float) -> None:
        """Use blocks without reading them; the first one is used last."""
        for block in reversed(blocks):
            self.index.match(block, now_s=now_s).release()

    def begin_keyed_load(
        self, ticket: int, blocks: Sequence[TokenSequence], *, deadline_s: float, now_s: float
    ) -> tuple[Operation, Positions]:
        """Plan to bring those blocks to the engine that are stored. Returns the positions of these among `blocks`."""
        found: list[tuple[int, TokenSequence, Match]] = []
        for position in range(len(blocks) - 1, -1, -1):
            match = self.index.match(blocks[position], now_s=now_s)
            if match.num_blocks:
                found.append((position, blocks[position], match))
        found.reverse()
        slots = [match.slots() for _, _, match in found]
        moves = (self._move(self._tier, _GPU, slots, ()),) if found else ()
        operation = KeyedOperation(
            plan=self._plan(ticket, _LOAD, len(found), moves, (), deadline_s),
            statuses=np.full(len(found), PENDING, np.uint8),
            blocks=tuple([block for _, block, _ in found]),
            pins=tuple([match for _, _, match in found]),
        )
        return operation, np.array([position for position, _, _ in found], np.int64)

    def begin_keyed_store(
        self, ticket: int, blocks: Sequence[TokenSequence], *, deadline_s: float, now_s: float
    ) -> tuple[Operation, Positions]:
        """Plan to store those blocks that are neither stored nor being written, as far as admission, budget and room go.
        Returns the positions of these among `blocks`."""
        affordable = self._admission.num_affordable(now_s)
        refusals: list[str] = []
        taken: list[tuple[int, Reservation]] = []
        voided: list[Slots] = []
        for position in range(len(blocks) - 1, -1, -1):
            block = blocks[position]
            self._admission.see(block, 1)
            if self._ghost is not None:
                self._ghost.insert(block)
            if not self._admission.num_admitted(block, 1):
                continue
            if affordable is not None and len(taken) >= affordable:
                refusals = [BUDGET]
                break
            block.keys()  # the index reserves what is hashed
            reservation = self.index.reserve(block, 0, owner=ticket, now_s=now_s)
            if len(reservation.voided):
                voided.append(reservation.voided)
            if reservation.num_blocks:
                taken.append((position, reservation))
            elif reservation.num_short:
                refusals = [NO_ROOM]
        self._admission.spend(len(taken))
        slots = [reservation.slots for _, reservation in taken]
        keys = [reservation.keys() for _, reservation in taken]
        moves = (self._move(_GPU, self._tier, slots, keys),) if taken else ()
        frees = (Free(tier=self._tier, slots=pack_slots(np.concatenate(voided))),) if voided else ()
        operation = KeyedOperation(
            plan=self._plan(ticket, _STORE, len(taken), moves, frees, deadline_s),
            statuses=np.full(len(taken), PENDING, np.uint8),
            blocks=tuple([blocks[position] for position, _ in taken]),
            taken=tuple([reservation for _, reservation in taken]),
            refusals=tuple(refusals),
        )
        return operation, np.array([position for position, _ in taken], np.int64)

    def _plan(
        self,
        ticket: int,
        kind: OperationKind,
        num_blocks: int,
        moves: tuple[Move, ...],
        frees: tuple[Free, ...],
        s: float,
    ) -> Plan:
        return Plan(
            ticket=ticket, kind=kind, first_block=0, num_blocks=num_blocks, moves=moves, frees=frees, deadline_s=s
        )

    def _move(self, source: TierName, target: TierName, slots: list[Slots], keys: Sequence[NDArray[np.uint8]]) -> Move:
        packed = pack_slots(np.concatenate(slots))
        return Move(
            source=source,
            target=target,
            first_block=0,
            num_blocks=len(slots),
            source_slots=b"" if source is _GPU else packed,
            target_slots=b"" if target is _GPU else packed,
            parent_key=bytes(KEY_BYTES),
            keys=pack_keys(np.concatenate(keys)) if keys else b"",
        )

    def _complete(self, operation: Operation, completion: Completion) -> tuple[Free, ...]:
        """As `Control.complete`: each block by itself."""
        if not isinstance(operation, KeyedOperation):
            return self._complete_others(operation, completion)
        statuses = np.frombuffer(completion.statuses, np.uint8)
        np.copyto(operation.statuses, statuses, where=operation.statuses == PENDING)
        void: list[Slots] = []
        for reservation, status in zip(operation.taken, completion.statuses, strict=False):
            void.append(self.index.commit(reservation, None if status == _OK else np.ones(1, np.bool_)))
        if operation.pins:
            for block, status in zip(operation.blocks, completion.statuses, strict=True):
                if status in _LOST:
                    void.append(self.index.drop(block, 0, 0))
            self._choice.transfer_costs[self._tier].observe(completion.num_bytes, completion.busy_s)
        else:
            operation.arrived[self._tier] = completion.statuses.count(_OK)
        slots = np.concatenate([np.empty(0, np.uint32), *void])
        return (Free(tier=self._tier, slots=pack_slots(slots)),) if len(slots) else ()

    def _finish(self, operation: Operation) -> tuple[Free, ...]:
        """As `Control.finish`."""
        if not isinstance(operation, KeyedOperation):
            return self._finish_others(operation)
        for pin in operation.pins:
            pin.release()
        for reservation in operation.taken:
            reservation.release()
        operation.pins = operation.taken = ()
        return ()

    def restore_blocks(
        self, tier: TierName, parents: NDArray[np.uint8], keys: NDArray[np.uint8], slots: Slots
    ) -> NDArray[np.bool_]:
        """As `Control.restore_blocks`. What stood before a block in the write that recorded it means nothing here."""
        return super().restore_blocks(tier, np.zeros_like(parents), keys, slots)
