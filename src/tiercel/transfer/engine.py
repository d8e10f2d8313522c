"""Runs plans: a bounded queue and worker threads per slower tier and direction.

    lane                moves                          runs on
    (HOST, loading)     host -> gpu                    HostTier.read into engine memory
    (HOST, storing)     gpu -> host                    HostTier.write from engine memory
    (DISK, loading)     disk -> host, disk -> gpu      DiskTier.read into the arena, or through its buffers
    (DISK, storing)     host -> disk, gpu -> disk      DiskTier.write

A store is queued when the engine is done with its blocks (`gate`). Loads go ahead of stores of the same tier. Owners share a
lane by weight (`queues`), chunks of one owner's plans take turns; `mover` runs each. When a plan is cancelled, by its owner
or at its deadline, what has not started ends as `CANCELLED`, engine memory is fenced off, and what is already with the device
is waited for in the background: its completion comes when the device is done, so its slots stay out of use until then.

The facade submits plans in the order in which they were made and gets one `Completion` per move, from a worker's thread.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import CacheClosedError, ThrottledError, TierFailedError
from tiercel.plan import Completion, OperationKind, Plan, unpack_slots
from tiercel.telemetry.logs import adopt_request_id
from tiercel.tiers.base import BlockStatus, Tier, TierName, UnsettledError
from tiercel.transfer.crew import Crew
from tiercel.transfer.gate import Gate
from tiercel.transfer.job import Chunk, Job
from tiercel.transfer.lanes import Lane, LaneName, TransferSettings, lane_of
from tiercel.transfer.mover import Mover
from tiercel.transfer.queues import NOBODY, Owner
from tiercel.transfer.sides import EngineSide

_logger = logging.getLogger(__name__)


class TransferEngine:
    """Runs the plans of one cache over its tiers."""

    def __init__(
        self,
        tiers: Mapping[TierName, Tier],
        settings: TransferSettings,
        *,
        on_completion: Callable[[Completion], None],
    ) -> None:
        """Start the worker threads.

        Args:
            on_completion: called once per move of a submitted plan, from a worker's thread or from the thread that cancels.

        Raises:
            RuntimeError: the machine has no thread left. None was left behind.
        """
        self._tiers = dict(tiers)
        self._mover = Mover(self._tiers)
        self._settings = settings
        self._on_completion = on_completion
        self._block_bytes = next(iter(tiers.values())).block_bytes
        self._lock = threading.Lock()
        self._jobs: dict[int, Job] = {}
        self._drained = threading.Condition(self._lock)
        self._closing = False
        names = [LaneName(tier, loading) for tier, loading in itertools.product(sorted(tiers), (True, False))]
        self._lanes = {name: Lane(name, settings, self._lock) for name in names}
        self._loading = [(name.tier, lane) for name, lane in self._lanes.items() if name.loading]
        self._crew = Crew(self._lanes.values(), self._lock, settings.lane_workers, self._first_bytes, self._take_turn)
        self._gate = Gate(self._start)
        self._gate_thread = threading.Thread(target=self._gate.run, name="tiercel-gate", daemon=True)
        try:
            self._crew.start()
            self._gate_thread.start()
        except BaseException:
            self.close()
            raise

    def has_room(self, lane: LaneName, num_moves: int = 1, owner: Owner = NOBODY) -> bool:
        """Whether a lane takes that many more moves of an owner. Only the thread that submits may rely on the answer."""
        return self._lanes[lane].num_moves_of(owner) + num_moves <= self._settings.queue_depth_max

    def queued_bytes(self) -> dict[TierName, int]:
        """Bytes that wait to be loaded, for each tier where there are any."""
        return {tier: lane.num_bytes for tier, lane in self._loading if lane.num_bytes}

    def queue_depths(self) -> dict[str, int]:
        """Moves that wait or run, per lane."""
        return {str(name): lane.num_moves for name, lane in self._lanes.items()}

    def is_open(self, ticket: int) -> bool:
        """Whether a ticket's plan was taken and has moves that have not ended."""
        return ticket in self._jobs

    def submit(self, plan: Plan, side: EngineSide | None, owner: Owner = NOBODY) -> None:
        """Apply a plan's frees and reservations and queue its moves.

        Args:
            side: the engine's blocks, for a load or store.
            owner: in whose queues they wait.

        Raises:
            CacheClosedError: the engine is closing. Nothing was started.
            ThrottledError: a lane is full; ask `has_room` before. Nothing was started.
        """
        if not plan.moves:
            self._prepare(plan)
            return
        job = Job(plan, side, time.monotonic(), owner)
        with self._lock:
            if self._closing:
                raise CacheClosedError("the cache is closed")
            for name in {lane_of(m) for m in plan.moves}:
                count = sum(lane_of(m) == name for m in plan.moves)
                if not self.has_room(name, count, owner):
                    raise ThrottledError(
                        f"the {name} queue holds {self._lanes[name].num_moves_of(owner)} moves of at most "
                        f"{self._settings.queue_depth_max}; retry later, recompute, or raise transfer_queue_depth_max"
                    )
            for move in plan.moves:
                lane = self._lanes[lane_of(move)]
                lane.begin_move(owner)
                lane.num_bytes += move.num_blocks * self._block_bytes
            self._jobs[plan.ticket] = job
        self._prepare(plan)
        if side is not None and side.ready is not None and plan.kind is OperationKind.STORE:
            self._gate.hold(job, side.ready)
        else:
            self._start(job)

    def _start(self, job: Job) -> None:
        with self._lock:
            if not job.queued:
                job.queued = True
                self._enqueue(job.first_chunks())

    def _prepare(self, plan: Plan) -> None:
        for free in plan.frees:
            self._tiers[free.tier].free(unpack_slots(free.slots))
        for move in plan.moves:
            if move.target is not TierName.GPU:
                try:
                    self._tiers[move.target].reserve(unpack_slots(move.target_slots))
                except TierFailedError as error:
                    # The writes of this plan will fail by themselves and be reported block by block.
                    _logger.warning("cannot reserve in tier %s: %s", move.target.name.lower(), error)

    def _enqueue(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            lane = self._lanes[lane_of(chunk.job.plan.moves[chunk.move])]
            lane.waiting.add(chunk)
            self._crew.wake(lane)

    def _take_turn(self, lane: Lane, chunk: Chunk) -> None:
        adopt_request_id(chunk.job.request_id)
        if not lane.name.loading:
            self._let_loads_pass(lane.name.tier)
        self._run(chunk)

    def _let_loads_pass(self, tier: TierName) -> None:
        loads = self._lanes[LaneName(tier, True)]
        with self._lock:
            loads.idled.wait_for(
                lambda: loads.is_idle(time.monotonic()) or self._closing, timeout=self._settings.yield_s
            )

    def _run(self, chunk: Chunk) -> None:
        """Run the first part of a chunk; what is left of it goes to the end of the queue."""
        stop = min(chunk.stop, chunk.start + self._chunk_blocks(chunk))
        with self._lock:
            rest = chunk.job.rest(chunk, stop)
            if rest is not None:
                self._enqueue([rest])
            chunk = replace(chunk, stop=stop)
            runnable_stop = chunk.start if chunk.job.cancelled else chunk.job.runnable_stop(chunk)
        started_at = time.monotonic()
        try:
            statuses = self._mover.move(chunk, runnable_stop) if runnable_stop > chunk.start else np.empty(0, np.uint8)
        except UnsettledError as error:
            _logger.warning("move failed: %s", error, extra={"ticket": chunk.job.plan.ticket})
            lost = np.full(runnable_stop - chunk.start, BlockStatus.IO_ERROR, np.uint8)
            error.settled.add_done_callback(lambda _: self._finish(chunk, lost, runnable_stop, started_at))
            return
        self._finish(chunk, statuses, runnable_stop, started_at)

    def _first_bytes(self, chunk: Chunk) -> int:
        """Bytes of a waiting chunk that are moved first."""
        num_blocks = min(chunk.stop - chunk.start, self._chunk_blocks(chunk))
        return num_blocks * chunk.job.share_bytes(chunk, self._block_bytes)

    def _chunk_blocks(self, chunk: Chunk) -> int:
        """Blocks that are moved at once."""
        settings, move = self._settings, chunk.job.plan.moves[chunk.move]
        num_bytes = settings.chunk_bytes
        if chunk.job.on_gpu and {move.source, move.target} == {TierName.GPU, TierName.HOST}:
            num_bytes = max(num_bytes, settings.gpu_chunk_bytes)
        return max(1, num_bytes // chunk.job.share_bytes(chunk, self._block_bytes))

    def _finish(self, chunk: Chunk, statuses: NDArray[np.uint8], runnable_stop: int, started_at: float) -> None:
        job, move = chunk.job, chunk.job.plan.moves[chunk.move]
        busy_s = time.monotonic() - started_at if len(statuses) else 0.0
        with self._lock:
            lane = self._lanes[lane_of(move)]
            lane.num_bytes -= (chunk.stop - chunk.start) * job.share_bytes(chunk, self._block_bytes)
            if runnable_stop < chunk.stop:
                statuses = np.concatenate([statuses, job.inherited(chunk, runnable_stop)])
            after, completion = job.finish_chunk(
                chunk, statuses, started_at=started_at, busy_s=busy_s, block_bytes=self._block_bytes
            )
            self._enqueue(after)
            if completion is not None:
                lane.end_move(job.owner)
        if completion is not None:
            self._on_completion(completion)
            with self._lock:
                job.num_unreported -= 1
                if job.num_unreported == 0:
                    del self._jobs[job.plan.ticket]
                    self._drained.notify_all()

    def cancel(self, ticket: int, timeout_s: float | None = None) -> bool:
        """End what has not started of a plan as `CANCELLED` and fence off its engine memory. Idempotent; unknown tickets are
        left alone. Waits until no move touches the engine's memory any more, and returns False if one does after `timeout_s`;
        I/O in progress goes on in the background."""
        with self._lock:
            job = self._jobs.get(ticket)
            if job is None:
                return True
            job.cancelled = True
        # Before anything is taken off its lane: a signal may end this wait, and what is cancelled ends in its lane as well.
        fenced = job.guard.revoke(timeout_s)
        while waiting := self._take(job):
            for chunk in waiting:
                for part in job.parts(chunk):
                    self._finish(part, np.empty(0, np.uint8), part.start, time.monotonic())
        return fenced

    def _take(self, job: Job) -> list[Chunk]:
        """Remove what has not started of a job."""
        with self._lock:
            taken = [chunk for lane in self._lanes.values() for chunk in lane.waiting.take(job)]
            job.queued = True
            job.begun.update(chunk.move for chunk in taken)
            # It waits for the engine, or a signal interrupted `submit`: nobody else will end these.
            left = [chunk for chunk in job.first_chunks() if chunk.move not in job.begun]
            job.begun.update(chunk.move for chunk in left)
        return taken + left

    def drain(self, timeout_s: float) -> bool:
        """Wait until no plan is open and every completion was taken. Returns False if that takes longer than `timeout_s`."""
        with self._lock:
            return self._drained.wait_for(lambda: not self._jobs, timeout=timeout_s)

    def cancel_all(self, timeout_s: float) -> None:
        """Cancel every open plan, and wait so long for what touches engines' memory."""
        stop_at = time.monotonic() + timeout_s
        for ticket in list(self._jobs):
            self.cancel(ticket, max(0.0, stop_at - time.monotonic()))

    def close(self) -> bool:
        """Refuse new plans, cancel open ones, wait for the device and end the threads. Idempotent. Returns False if a move was
        still in progress after `close_timeout_s`; its thread is left behind."""
        with self._lock:
            self._closing = True
        stop_at = time.monotonic() + self._settings.close_timeout_s
        self.cancel_all(self._settings.close_timeout_s)
        drained = self.drain(max(0.0, stop_at - time.monotonic()))
        with self._lock:
            self._crew.end()  # not before: what a device finishes last sets chunks of other lanes free
            for lane in self._lanes.values():
                lane.has_work.notify_all()
        self._gate.close()
        patience_s = 1.0 if drained else 0.01
        self._crew.join(patience_s)
        if self._gate_thread.ident is not None:
            self._gate_thread.join(patience_s)
        return drained
