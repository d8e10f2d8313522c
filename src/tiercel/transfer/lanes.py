"""Lanes: what waits for one tier in one direction, and the bounds on it."""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tiercel.config import ResolvedConfig, ResolvedTenant
from tiercel.errors import ThrottledError
from tiercel.plan import Move
from tiercel.tiers.base import TierName
from tiercel.transfer.job import Chunk
from tiercel.transfer.queues import Owner, OwnerQueues, TenantRate

_HELD_S = 0.1
"""Time after which stores do not let a load go first that waits for another process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSettings:
    """Bounds of the transfer engine.

    Attributes:
        queue_depth_max: moves of one owner that may wait or run in one lane.
        chunk_bytes: most bytes that a lane moves between two looks at the queue.
        gpu_chunk_bytes: the same between a GPU and host memory, if that is more.
        lane_workers: threads per lane, and so chunks in flight; of blocks that other processes copy, as many for each of their
            holders. With two, a chunk starts while the one before is finishing, which
            keeps the device's queue full, and a small load need not wait for a large one's I/O. Stores into host memory run
            one at a time, unless a GPU does them: each has threads of its own.
        yield_s: longest time that a store's chunk waits for loads of the same tier to go first.
        close_timeout_s: longest wait for moves in progress when closing.
        tenants: what each has of the lanes, by number; number 0 is everybody who was not named.
    """

    queue_depth_max: int = 256
    chunk_bytes: int = 32 << 20
    gpu_chunk_bytes: int = 64 << 20
    lane_workers: int = 2
    yield_s: float = 0.05
    close_timeout_s: float = 30.0
    tenants: tuple[TenantRate, ...] = ()

    @classmethod
    def from_resolved(cls, resolved: ResolvedConfig, *, lane_workers: int = 2) -> "TransferSettings":
        """The bounds that a configuration asks for."""
        return cls(
            queue_depth_max=resolved.config.transfer_queue_depth_max,
            chunk_bytes=resolved.transfer_chunk_bytes,
            gpu_chunk_bytes=resolved.transfer_gpu_chunk_bytes,
            lane_workers=lane_workers,
            tenants=tenant_rates(resolved.tenants),
        )


def tenant_rates(tenants: Sequence[ResolvedTenant]) -> tuple[TenantRate, ...]:
    """What each tenant has of the lanes, by its number; none without tenants."""
    if not tenants:
        return ()
    rates = [
        TenantRate(
            weight=tenant.weight,
            bytes_per_s={
                tier: limit
                for tier, limit in ((TierName.HOST, tenant.cpu.bytes_per_s), (TierName.DISK, tenant.ssd.bytes_per_s))
                if limit is not None
            },
        )
        for tenant in tenants
    ]
    return (TenantRate(), *rates)


@dataclass(frozen=True, slots=True)
class LaneName:
    """A lane: the slower tier of its moves, and whether they come towards the engine."""

    tier: TierName
    loading: bool

    def __str__(self) -> str:
        return f"{self.tier.name.lower()}-{'load' if self.loading else 'store'}"

    def no_room(self, num_moves: int) -> ThrottledError:
        """The error of a launch for which its queue is too full."""
        return ThrottledError(
            f"the {self} queue has no room for {num_moves} more moves; retry later, recompute, "
            f"or raise transfer_queue_depth_max"
        )


def lane_of(move: Move) -> LaneName:
    """The lane that runs a move."""
    return LaneName(max(move.source, move.target), move.source > move.target)


class Lane:
    """Chunks that wait for one tier in one direction, and those that run; guarded by the engine's lock.

    Chunks whose blocks other processes copy run beside all others: however long one of these processes takes, or if it does not
    answer at all, the lane goes on with what everybody else asked for. So the bounds on what runs at once hold for each holder.

    Attributes:
        waiting: whose turn it is.
        num_threads: threads that run its chunks.
    """

    def __init__(self, name: LaneName, settings: TransferSettings, lock: threading.Lock) -> None:
        self.name = name
        self._one_at_a_time = name == LaneName(TierName.HOST, False)
        self._num_workers = settings.lane_workers
        self.num_threads = settings.lane_workers
        self.waiting = OwnerQueues(settings.tenants, name.tier)
        self._num_moves: Counter[Owner] = Counter()
        self.num_bytes = 0
        self._began_at: dict[Chunk, float] = {}
        self._num_running: Counter[object] = Counter()
        self.has_work = threading.Condition(lock)
        self.idled = threading.Condition(lock)

    def next(self, now_s: float) -> Chunk | None:
        """The chunk that may start now and whose turn it is."""
        return self.waiting.first(now_s, self._may_start) if self.waiting else None

    def _may_start(self, chunk: Chunk) -> bool:
        alone = self._one_at_a_time and not chunk.job.on_gpu
        return self._num_running[chunk.holder] < (1 if alone else self._num_workers)

    def wants_thread(self, now_s: float) -> bool:
        """Whether a chunk may start and every thread is with another one: all but as many as ever wait for other processes."""
        return len(self._began_at) >= self.num_threads and self.next(now_s) is not None

    def begin(self, chunk: Chunk, num_bytes: int, now_s: float) -> None:
        """Take a waiting chunk off its queue to run it. num_bytes: how many of it are moved now."""
        self.waiting.remove(chunk, num_bytes, now_s)
        chunk.job.begun.add(chunk.move)
        self._began_at[chunk] = now_s
        self._num_running[chunk.holder] += 1

    def end(self, chunk: Chunk) -> None:
        """A chunk that began runs no more."""
        del self._began_at[chunk]
        self._num_running[chunk.holder] -= 1
        if not self._num_running[chunk.holder]:
            del self._num_running[chunk.holder]

    def is_idle(self, now_s: float) -> bool:
        """Whether nothing waits that may start, and nothing runs but what another process has held up for a while."""
        running = all(chunk.holder is not None and now_s - at > _HELD_S for chunk, at in self._began_at.items())
        return running and self.next(now_s) is None

    @property
    def num_moves(self) -> int:
        """Moves that wait or run."""
        return sum(list(self._num_moves.values()))  # asked without the lock, too

    def num_moves_of(self, owner: Owner) -> int:
        """Moves of an owner that wait or run."""
        return self._num_moves[owner]

    def begin_move(self, owner: Owner) -> None:
        """Count a move that comes."""
        self._num_moves[owner] += 1

    def end_move(self, owner: Owner) -> None:
        """Count a move that has ended."""
        self._num_moves[owner] -= 1
        if not self._num_moves[owner]:
            del self._num_moves[owner]
