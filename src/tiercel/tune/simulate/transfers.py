"""Runs plans on modelled links, as `tiercel.transfer` runs them on devices: lanes with bounds, chunks, cancelling.

A move that waits for another follows it part by part. What a move did not bring because its plan was cancelled is the tail of
its blocks. Every move ends with one `Completion`.
"""

from collections.abc import Callable

from tiercel.plan import NO_MOVE, Completion, Move, Plan
from tiercel.tiers.base import BlockStatus, TierName
from tiercel.transfer import LaneName, lane_of
from tiercel.tune.simulate.clock import Clock
from tiercel.tune.simulate.devices import Device, Job, Part, Use, Way
from tiercel.tune.simulate.setup import SimulationSetup

_CANCELLED = bytes([BlockStatus.CANCELLED])


class _PlanJob(Job):
    """A plan under way: of each move its lane, how many blocks have ended, and how many of those arrived."""

    __slots__ = ("arrived", "cancelled", "ended", "followed", "lanes", "launched_s", "num_open", "plan")

    def __init__(self, plan: Plan, lanes: list["_Lane"], now_s: float) -> None:
        self.plan = plan
        self.lanes = lanes
        self.launched_s = now_s
        self.cancelled = False
        self.num_open = len(plan.moves)
        self.arrived = [0] * len(plan.moves)
        self.ended = [0] * len(plan.moves)
        self.followed = {move.after for move in plan.moves if move.after != NO_MOVE}


class _Lane:
    """Moves and blocks that wait or run in one lane, and the way that serves them."""

    __slots__ = ("device", "loading", "num_blocks", "num_moves", "number", "way")

    def __init__(self, device: Device, number: int, *, loading: bool) -> None:
        self.device = device
        self.number = number
        self.way = device.ways[number]
        self.loading = loading
        self.num_moves = 0
        self.num_blocks = 0


class Transfers:
    """The links of one cache, and what runs on them."""

    def __init__(self, setup: SimulationSetup, clock: Clock, on_completion: Callable[[Completion], None]) -> None:
        """on_completion: called once per move of a submitted plan."""
        self._clock = clock
        self._on_completion = on_completion
        self._block_bytes = setup.control.block_bytes
        self._depth_max = setup.transfer.queue_depth_max
        self._jobs: dict[int, _PlanJob] = {}
        self._lanes: dict[LaneName, _Lane] = {}
        self._devices: list[Device] = []
        for tier in sorted(setup.control.capacities):
            chunk_bytes = setup.transfer.chunk_bytes
            if tier is TierName.HOST:
                chunk_bytes = max(chunk_bytes, setup.transfer.gpu_chunk_bytes)
            chunk_blocks = max(1, chunk_bytes // self._block_bytes)
            read = Way(setup.reads[tier], self._block_bytes, chunk_blocks, loading=True)
            write = Way(setup.writes[tier], self._block_bytes, chunk_blocks, loading=False)
            groups = ((read, write),) if tier in setup.shared else ((read,), (write,))
            devices = [Device(clock, ways, self._arrived) for ways in groups]
            self._devices += devices
            self._lanes[LaneName(tier, True)] = _Lane(devices[0], 0, loading=True)
            self._lanes[LaneName(tier, False)] = _Lane(devices[-1], len(groups[-1]) - 1, loading=False)
        self._loading = [(name.tier, lane) for name, lane in self._lanes.items() if name.loading]

    def has_room(self, lane: LaneName, num_moves: int = 1) -> bool:
        """Whether a lane takes that many more moves."""
        return self._lanes[lane].num_moves + num_moves <= self._depth_max

    def queued_bytes(self) -> dict[TierName, int]:
        """Bytes that wait to be loaded, for each tier where there are any."""
        return {tier: lane.num_blocks * self._block_bytes for tier, lane in self._loading if lane.num_blocks}

    def use(self, lane: LaneName) -> Use:
        """What a lane's link was used for."""
        return self._lanes[lane].way.use

    @property
    def num_open(self) -> int:
        """Plans with moves that have not ended."""
        return len(self._jobs)

    def submit(self, plan: Plan) -> None:
        """Queue a plan's moves."""
        if not plan.moves:
            return
        lanes = [self._lanes[lane_of(move)] for move in plan.moves]
        job = self._jobs[plan.ticket] = _PlanJob(plan, lanes, self._clock.now_s)
        for move, lane in zip(plan.moves, lanes, strict=True):
            lane.num_moves += 1
            lane.num_blocks += move.num_blocks
        for number, move in enumerate(plan.moves):
            if move.after == NO_MOVE:
                self._queue(job, number, 0, move.num_blocks)

    def cancel(self, ticket: int) -> None:
        """End what has not started of a plan. Unknown tickets are left alone."""
        job = self._jobs.get(ticket)
        if job is None:
            return
        job.cancelled = True
        for device in self._devices:
            for part in device.take(job):
                self._end(job, part.move, part.start, part.stop, arrived=False)

    def _queue(self, job: _PlanJob, number: int, start: int, stop: int) -> None:
        lane = job.lanes[number]
        follows = lane.loading and number in job.followed
        whole = job.plan.moves[number].num_blocks if follows else 0
        lane.device.add(Part(job, number, start, stop, self._clock.now_s, whole), lane.number)

    def _arrived(self, part: Part) -> None:
        assert isinstance(part.job, _PlanJob), "devices serve what was submitted here"
        self._end(part.job, part.move, part.start, part.stop, arrived=True)

    def _end(self, job: _PlanJob, number: int, start: int, stop: int, *, arrived: bool) -> None:
        """Enter that blocks of a move arrived or never will, let the moves behind it follow, and report it if it is done."""
        move = job.plan.moves[number]
        lane = job.lanes[number]
        count = stop - start
        lane.num_blocks -= count
        job.ended[number] += count
        if arrived:
            job.arrived[number] += count
            lane.way.use.blocks += count
        if number in job.followed:
            self._follow(job, number, start, stop, arrived and not job.cancelled)
        if job.ended[number] < move.num_blocks:
            return
        lane.num_moves -= 1
        job.num_open -= 1
        if job.num_open == 0:
            del self._jobs[job.plan.ticket]
        self._on_completion(self._completion(job, number, move, lane))

    def _follow(self, job: _PlanJob, number: int, start: int, stop: int, arrived: bool) -> None:
        first_block = job.plan.moves[number].first_block
        for following, move in enumerate(job.plan.moves):
            if move.after == number:
                offset = move.first_block - first_block
                begin, end = max(0, start - offset), min(move.num_blocks, stop - offset)
                if begin >= end:
                    continue
                if arrived:
                    self._queue(job, following, begin, end)
                else:
                    self._end(job, following, begin, end, arrived=False)

    def _completion(self, job: _PlanJob, number: int, move: Move, lane: _Lane) -> Completion:
        num_ok = job.arrived[number]
        busy_s = lane.way.latency_s + num_ok * lane.way.block_s if num_ok else 0.0
        return Completion(
            ticket=job.plan.ticket,
            move=number,
            statuses=bytes(num_ok) + _CANCELLED * (move.num_blocks - num_ok),
            num_bytes=num_ok * self._block_bytes,
            busy_s=busy_s,
            queued_s=max(0.0, self._clock.now_s - job.launched_s - busy_s),
        )
