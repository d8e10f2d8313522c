"""Lanes: what waits for one tier in one direction, and the bounds on it."""

import threading
from collections import deque
from dataclasses import dataclass

from tiercel.config import ResolvedConfig
from tiercel.plan import Move
from tiercel.tiers.base import TierName
from tiercel.transfer.job import Chunk, Job


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSettings:
    """Bounds of the transfer engine.

    Attributes:
        queue_depth_max: moves that may wait or run in one lane.
        chunk_bytes: most bytes that a lane moves between two looks at the queue.
        gpu_chunk_bytes: the same between a GPU and host memory, if that is more.
        lane_workers: threads per lane, and so chunks in flight. With two, a chunk starts while the one before is finishing, which
            keeps the device's queue full, and a small load need not wait for a large one's I/O. Stores into host memory run
            one at a time, unless a GPU does them: each has threads of its own.
        yield_s: longest time that a store's chunk waits for loads of the same tier to go first.
        close_timeout_s: longest wait for moves in progress when closing.
    """

    queue_depth_max: int = 256
    chunk_bytes: int = 32 << 20
    gpu_chunk_bytes: int = 64 << 20
    lane_workers: int = 2
    yield_s: float = 0.05
    close_timeout_s: float = 30.0

    @classmethod
    def from_resolved(cls, resolved: ResolvedConfig, *, lane_workers: int = 2) -> "TransferSettings":
        """The bounds that a configuration asks for."""
        return cls(
            queue_depth_max=resolved.config.transfer_queue_depth_max,
            chunk_bytes=resolved.transfer_chunk_bytes,
            gpu_chunk_bytes=resolved.transfer_gpu_chunk_bytes,
            lane_workers=lane_workers,
        )


@dataclass(frozen=True, slots=True)
class LaneName:
    """A lane: the slower tier of its moves, and whether they come towards the engine."""

    tier: TierName
    loading: bool

    def __str__(self) -> str:
        return f"{self.tier.name.lower()}-{'load' if self.loading else 'store'}"


def lane_of(move: Move) -> LaneName:
    """The lane that runs a move."""
    return LaneName(max(move.source, move.target), move.source > move.target)


class Lane:
    """Chunks that wait for one tier in one direction; guarded by the engine's lock."""

    def __init__(self, name: LaneName, lock: threading.Lock) -> None:
        self.name = name
        self._one_at_a_time = name == LaneName(TierName.HOST, False)
        self.waiting: deque[Chunk] = deque()
        self.num_moves = 0
        self.num_running = 0
        self.num_bytes = 0
        self.has_work = threading.Condition(lock)
        self.idled = threading.Condition(lock)

    @property
    def ready(self) -> bool:
        """Whether the next chunk may start."""
        if not self.waiting:
            return False
        return not (self._one_at_a_time and self.num_running and not self.waiting[0].job.on_gpu)

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.num_running

    def take(self, job: Job) -> list[Chunk]:
        """Remove what waits of a job."""
        taken = [chunk for chunk in self.waiting if chunk.job is job]
        if taken:
            self.waiting = deque(chunk for chunk in self.waiting if chunk.job is not job)
        return taken
