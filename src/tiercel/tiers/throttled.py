"""A wrapper that makes a tier as slow as wanted: for tests of queues and deadlines, for budgets, and for the simulator.

The tier inside does its work first; the wrapper then sleeps until the modelled device would have finished. The device
is modelled as one queue: calls that run at once share the bandwidth, one after the other.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tiercel.tiers.base import BlockLabels, BlockMemory, Slots, Statuses, Tier
from tiercel.tiers.wrapper import TierWrapper


@dataclass(frozen=True, kw_only=True)
class TierLimits:
    """How fast the modelled device is.

    Attributes:
        read_bytes_per_s: bandwidth of reads; infinite by default.
        write_bytes_per_s: bandwidth of writes; infinite by default.
        latency_s: added to each read and write, not shared.
    """

    read_bytes_per_s: float = float("inf")
    write_bytes_per_s: float = float("inf")
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        if self.read_bytes_per_s <= 0 or self.write_bytes_per_s <= 0 or self.latency_s < 0:
            raise ValueError(f"limits must be positive: {self}")


class ThrottledTier(TierWrapper):
    """A tier with bounded bandwidth and added latency. Clock and sleep are given, so that time can be virtual."""

    def __init__(
        self,
        inner: Tier,
        limits: TierLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(inner)
        self._limits = limits
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = float("-inf")

    def write(self, slots: Slots, source: BlockMemory, labels: BlockLabels) -> Statuses:
        ends_at = self._occupy(len(slots) * self.block_bytes / self._limits.write_bytes_per_s)
        statuses = self._inner.write(slots, source, labels)
        self._wait_until(ends_at)
        return statuses

    def read(self, slots: Slots, target: BlockMemory) -> Statuses:
        ends_at = self._occupy(len(slots) * self.block_bytes / self._limits.read_bytes_per_s)
        statuses = self._inner.read(slots, target)
        self._wait_until(ends_at)
        return statuses

    def _occupy(self, seconds: float) -> float:
        with self._lock:
            self._free_at = max(self._free_at, self._clock()) + seconds
            return self._free_at + self._limits.latency_s

    def _wait_until(self, ends_at: float) -> None:
        remaining = ends_at - self._clock()
        if remaining > 0:
            self._sleep(remaining)
