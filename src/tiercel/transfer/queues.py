"""Whose work a lane takes next: a queue for each owner, shared by weight and bytes.

Every owner's first-in-first-out queue has a clock of its own, in bytes over weight; the lane takes from the queue whose clock is
furthest behind, and the clock goes on by what was taken (start-time fair queueing). A queue that was empty begins at the lane's
time, so nobody saves up turns. With one owner this is one queue.

A tenant may have a bandwidth in a lane: a bucket of a tenth of a second's bytes, which all owners of that tenant draw from.
While it is overdrawn their work waits and that of others passes. Time is an argument; the engine's lock guards everything.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tiercel.tiers.base import TierName

if TYPE_CHECKING:
    from tiercel.transfer.job import Chunk, Job

_BURST_S = 0.1
"""Time whose bytes a tenant with a bandwidth may save up."""


class Owner(NamedTuple):
    """Whose work it is: a client's, 0 where there is but one, of a tenant, 0 for everybody who was not named."""

    tenant: int = 0
    client: int = 0


NOBODY = Owner()


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantRate:
    """What a tenant has of the lanes.

    Attributes:
        weight: share of a lane beside the weights of others that want it.
        bytes_per_s: most bytes a second in each of a tier's two lanes; no entry, no limit.
    """

    weight: float = 1.0
    bytes_per_s: Mapping[TierName, int] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Queue:
    """One owner's chunks; `clock` is what it has had, in bytes over weight."""

    owner: Owner
    weight: float
    clock: float
    chunks: "deque[Chunk]" = field(default_factory=deque)


@dataclass(slots=True, eq=False)
class _Bucket:
    """Bytes that a tenant may move at once: `level` may go below 0 by what was taken last."""

    bytes_per_s: float
    level: float
    filled_at_s: float

    def wait_s(self, now_s: float) -> float:
        """Time until more may be taken."""
        self._fill(now_s)
        return max(0.0, -self.level / self.bytes_per_s)

    def take(self, num_bytes: int, now_s: float) -> None:
        """Draw bytes."""
        self._fill(now_s)
        self.level -= num_bytes

    def _fill(self, now_s: float) -> None:
        passed_s = max(0.0, now_s - self.filled_at_s)
        self.level = min(self.level + passed_s * self.bytes_per_s, _BURST_S * self.bytes_per_s)
        self.filled_at_s = max(now_s, self.filled_at_s)


class OwnerQueues:
    """What waits in one lane."""

    def __init__(self, tenants: tuple[TenantRate, ...], tier: TierName) -> None:
        """tenants: by number; owners of a tenant that is not among them have weight 1 and no limit."""
        self._tenants = tenants
        self._queues: dict[Owner, _Queue] = {}
        """Those with chunks only."""
        self._clocks: dict[Owner, float] = {}
        """Of queues that are empty and still ahead of the lane's time; as many as owners had work lately."""
        self._time = 0.0
        self._buckets = {
            number: _Bucket(rate.bytes_per_s[tier], _BURST_S * rate.bytes_per_s[tier], float("-inf"))
            for number, rate in enumerate(tenants)
            if tier in rate.bytes_per_s
        }

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, chunk: "Chunk") -> None:
        """Put a chunk at the end of its owner's queue."""
        owner = chunk.job.owner
        queue = self._queues.get(owner)
        if queue is None:
            known = owner.tenant < len(self._tenants)
            weight = self._tenants[owner.tenant].weight if known else 1.0
            clock = max(self._time, self._clocks.pop(owner, self._time))
            queue = self._queues[owner] = _Queue(owner, weight, clock)
        queue.chunks.append(chunk)

    def first(self, now_s: float, may_start: "Callable[[Chunk], bool]") -> "Chunk | None":
        """The chunk whose turn it is, of those that may start; None if nothing waits that may move now."""
        able = [queue for queue in self._queues.values() if not self._held_s(queue, now_s)]
        for queue in sorted(able, key=lambda queue: queue.clock):  # the one that came first, of equals
            for chunk in queue.chunks:
                if may_start(chunk):
                    return chunk
        return None

    def remove(self, chunk: "Chunk", num_bytes: int, now_s: float) -> None:
        """Take off what `first` told, of which so many bytes are moved now."""
        queue = self._queues[chunk.job.owner]
        queue.chunks.remove(chunk)
        self._time = max(self._time, queue.clock)
        if not chunk.job.cancelled:
            queue.clock += num_bytes / queue.weight
            if (bucket := self._buckets.get(queue.owner.tenant)) is not None:
                bucket.take(num_bytes, now_s)
        if not queue.chunks:
            self._drop(queue)

    def wait_s(self, now_s: float) -> float | None:
        """Time until something that waits may move, if a bandwidth is all that holds it back; else None."""
        waits = [self._held_s(queue, now_s) for queue in self._queues.values()]
        return min(waits) if waits and min(waits) > 0 else None

    def take(self, job: "Job") -> "list[Chunk]":
        """Remove what waits of a job."""
        queue = self._queues.get(job.owner)
        if queue is None:
            return []
        taken = [chunk for chunk in queue.chunks if chunk.job is job]
        if taken:
            queue.chunks = deque(chunk for chunk in queue.chunks if chunk.job is not job)
            if not queue.chunks:
                self._drop(queue)
        return taken

    def _held_s(self, queue: _Queue, now_s: float) -> float:
        """Time for which a bandwidth holds a queue back. What is cancelled moves nothing."""
        bucket = self._buckets.get(queue.owner.tenant)
        return 0.0 if bucket is None or queue.chunks[0].job.cancelled else bucket.wait_s(now_s)

    def _drop(self, queue: _Queue) -> None:
        del self._queues[queue.owner]
        if not self._queues:
            self._clocks.clear()  # nobody is left to be ahead of
            return
        self._clocks = {owner: clock for owner, clock in self._clocks.items() if clock > self._time}
        self._clocks[queue.owner] = queue.clock
