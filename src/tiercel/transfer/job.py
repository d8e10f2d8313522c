"""One plan under way: what of each move is done, and what may start next.

A move is run in chunks, so that a move that waits for another starts with the other's first chunk, a cancelled plan stops
early and many plans share a lane fairly. `Job` keeps the account; `engine` runs the chunks. A job's methods are called under
the engine's lock.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tiercel.plan import NO_MOVE, Completion, Move, Plan
from tiercel.telemetry.logs import current_request_id
from tiercel.tiers.base import BlockStatus, TierName
from tiercel.transfer.guard import Guard, GuardedMemory
from tiercel.transfer.layers import LayerArrivals
from tiercel.transfer.queues import NOBODY, Owner
from tiercel.transfer.remote import RemoteMemory
from tiercel.transfer.sides import EngineSide

_OK, _GPU = int(BlockStatus.OK), TierName.GPU


@dataclass(frozen=True, slots=True)
class Chunk:
    """Blocks [start, stop) of a move of a job; of a move in groups of layers, this group of theirs and, while the chunk
    waits, all later groups of all blocks behind it."""

    job: "Job"
    move: int
    start: int
    stop: int
    group: int = 0

    @property
    def holder(self) -> object | None:
        """Who copies the blocks, if other processes do; see `RemoteMemory.holder`."""
        return self.job.holder if self.job.touches_engine[self.move] else None


class Job:
    """The state of a plan's moves.

    Attributes:
        owner: in whose queues its chunks wait.
        cancelled: whether what has not started is to end as `CANCELLED`.
        queued: whether its first chunks were queued or dropped; not so while it waits for the engine. Some are not, too, if a
            signal interrupted the thread that submitted it.
        begun: moves of which a chunk was taken off its queue, to be run or dropped.
        num_unreported: moves whose completion has not been taken yet.
        request_id: what the job's lines are logged under, on whatever thread.
        holder: whose processes hold the engine's memory, None if this one does.
        touches_engine: of each move, whether its blocks come from the engine's memory or go there.
    """

    def __init__(self, plan: Plan, side: EngineSide | None, launched_at: float, owner: Owner = NOBODY) -> None:
        self.plan = plan
        self.owner = owner
        self.on_gpu = side is not None and side.on_gpu
        self.guard = Guard() if side is None else side.guard()
        self.holder = side.memory.holder if side is not None and isinstance(side.memory, RemoteMemory) else None
        self.touches_engine = [_GPU in (move.source, move.target) for move in plan.moves]
        self.memory = None if side is None else GuardedMemory(side.memory, self.guard)
        self._layers = None if side is None else side.layers
        self.cancelled = False
        self.request_id = current_request_id()
        self.queued = False
        self.begun: set[int] = set()
        self.num_unreported = len(plan.moves)
        self._launched_at = launched_at
        self._statuses: list[NDArray[np.uint8]] = [np.zeros(m.num_blocks, np.uint8) for m in plan.moves]
        self._num_done = [0] * len(plan.moves)
        self._started_at: list[float | None] = [None] * len(plan.moves)
        self._busy_s = [0.0] * len(plan.moves)
        self._first_failed = [m.num_blocks for m in plan.moves]

    def first_chunks(self) -> list[Chunk]:
        """What can start at once: every move that waits for no other, whole."""
        return [Chunk(self, i, 0, m.num_blocks) for i, m in enumerate(self.plan.moves) if m.after == NO_MOVE]

    def num_groups(self, move: int) -> int:
        """Groups of layers that a move is done in: several if its blocks lie in host memory and wait for no other move, so that
        they can go in the order of their layers. A slower tier gives a block whole: it would be read anew for each group."""
        described = self.plan.moves[move]
        from_host = described.source is TierName.HOST and described.target is TierName.GPU
        if self._layers is None or not from_host or described.after != NO_MOVE:
            return 1
        return len(self._layers.groups)

    def share_bytes(self, chunk: Chunk, block_bytes: int) -> int:
        """Bytes of a block that a chunk moves."""
        if self._layers is None or self.num_groups(chunk.move) == 1:
            return block_bytes
        return self._layers.share_bytes[chunk.group]

    def rest(self, chunk: Chunk, stop: int) -> Chunk | None:
        """What is left of a waiting chunk when its blocks up to `stop` were taken."""
        if stop < chunk.stop:
            return replace(chunk, start=stop)
        if chunk.group + 1 < self.num_groups(chunk.move):
            return replace(chunk, start=0, group=chunk.group + 1)
        return None

    def parts(self, chunk: Chunk) -> list[Chunk]:
        """A waiting chunk, group by group."""
        later = range(chunk.group + 1, self.num_groups(chunk.move))
        return [chunk, *(replace(chunk, start=0, group=group) for group in later)]

    def memory_of(self, chunk: Chunk, start: int, stop: int) -> GuardedMemory:
        """Engine memory that a chunk's blocks lie in: blocks [start, stop) of the operation."""
        assert self.memory is not None, "a plan that touches the engine was submitted without memory"
        if self._layers is None or self.num_groups(chunk.move) == 1:
            return self.memory.slice(start, stop)
        return GuardedMemory(self._layers.groups[chunk.group], self.guard).slice(start, stop)

    def runnable_stop(self, chunk: Chunk) -> int:
        """End of the part of a chunk that is worth running: blocks behind a failed one of the move before are not."""
        move = self.plan.moves[chunk.move]
        if move.after == NO_MOVE:
            return chunk.stop
        return max(chunk.start, min(chunk.stop, self._first_failed[move.after] - self._offset(move)))

    def finish_chunk(
        self, chunk: Chunk, statuses: NDArray[np.uint8], *, started_at: float, busy_s: float, block_bytes: int
    ) -> tuple[list[Chunk], Completion | None]:
        """Enter a chunk's outcome. Returns the chunks that it set free and, if its move ended with it, the completion."""
        index, move = chunk.move, self.plan.moves[chunk.move]
        known = self._statuses[index][chunk.start : chunk.stop]
        np.copyto(known, statuses, where=known == _OK)  # a block fails with any of its groups
        if self._layers is not None and move.target is TierName.GPU:
            self._enter_arrival(self._layers.arrivals, chunk, int(np.count_nonzero(statuses == _OK)))
        if statuses.any():  # OK is 0
            failed = chunk.start + int(np.flatnonzero(statuses)[0])
            self._first_failed[index] = min(self._first_failed[index], failed)
        if self._started_at[index] is None:
            self._started_at[index] = started_at
        self._busy_s[index] += busy_s
        self._num_done[index] += chunk.stop - chunk.start
        return self._chunks_after(chunk), self._completion(index, move, block_bytes)

    def _enter_arrival(self, arrivals: LayerArrivals, chunk: Chunk, num_blocks: int) -> None:
        if self.num_groups(chunk.move) == 1:
            arrivals.arrived_whole(num_blocks)
        else:
            arrivals.arrived(chunk.group, num_blocks)

    def inherited(self, chunk: Chunk, runnable_stop: int) -> NDArray[np.uint8]:
        """Statuses of a chunk's blocks from `runnable_stop` on: the failed one's own, then `CANCELLED`."""
        move = self.plan.moves[chunk.move]
        statuses = np.full(chunk.stop - runnable_stop, BlockStatus.CANCELLED, np.uint8)
        if move.after != NO_MOVE:
            failed = self._first_failed[move.after]
            first_failed = failed - self._offset(move)
            if runnable_stop <= first_failed < chunk.stop:
                statuses[first_failed - runnable_stop] = self._statuses[move.after][failed]
        return statuses

    def _offset(self, move: Move) -> int:
        """Position of a move's block 0 in the move that it waits for."""
        return move.first_block - self.plan.moves[move.after].first_block

    def _chunks_after(self, chunk: Chunk) -> list[Chunk]:
        chunks = []
        for index, move in enumerate(self.plan.moves):
            if move.after == chunk.move:
                offset = self._offset(move)
                start, stop = max(0, chunk.start - offset), min(move.num_blocks, chunk.stop - offset)
                if start < stop:
                    chunks.append(Chunk(self, index, start, stop))
        return chunks

    def _completion(self, index: int, move: Move, block_bytes: int) -> Completion | None:
        if self._num_done[index] < move.num_blocks * self.num_groups(index):
            return None
        statuses = self._statuses[index].tobytes()
        started_at = self._started_at[index]
        return Completion(
            ticket=self.plan.ticket,
            move=index,
            statuses=statuses,
            num_bytes=statuses.count(_OK) * block_bytes,
            busy_s=self._busy_s[index],
            queued_s=0.0 if started_at is None else started_at - self._launched_at,
        )
