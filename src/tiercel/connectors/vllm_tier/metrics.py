"""What the tier tells vLLM's own `/metrics`, beside what vLLM counts of every tier (queries, hits, bytes, failures).

Tiercel's full set of metrics is served as ever: `tiercel stats`, and `metrics_port`.
"""

# pyright: reportMissingImports=false

import time
from collections import deque
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.offloading.metrics import OffloadingConnectorStats
from vllm.v1.kv_offload.base import OffloadingCounterMetadata, OffloadingGaugeMetadata, OffloadingHistogramMetadata

from tiercel import KeyedCache

_PREFIX = "vllm:kv_offload_tiercel_"
_INTERVAL_S = 1.0
_LABELS = ("tier",)
_SECONDS_MAX = 4096
"""Jobs' times that are kept for the next time that vLLM asks."""

_COUNTERS = {
    "hits": "Chunk lookups that found the chunk on disk.",
    "misses": "Chunk lookups that did not find the chunk on disk.",
    "read_bytes": "Bytes of chunks loaded from disk and verified.",
    "written_bytes": "Bytes of chunks stored on disk.",
    "evictions": "Chunks evicted from disk to make room.",
    "corrupt": "Chunks whose bytes did not match their checksum; they were not served.",
    "io_errors": "Reads and writes of chunks that the device failed.",
    "throttled": "Stores and loads that were refused or cut short: full queue, write budget, no free slot.",
    "failed_jobs": "Load and store jobs of which a chunk failed.",
}
_GAUGES = {"used_slots": "Chunks on disk.", "slots": "Chunks that the disk tier can hold."}
_HISTOGRAMS = {
    "load_seconds": "Seconds from a load job's start to its end.",
    "store_seconds": "The same of a store job.",
}
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


def metric_definitions() -> dict[str, Any]:
    """vLLM's description of each metric, by name."""
    return {
        **{
            _PREFIX + name: OffloadingCounterMetadata(documentation=text, labelnames=_LABELS)
            for name, text in _COUNTERS.items()
        },
        **{
            _PREFIX + name: OffloadingGaugeMetadata(documentation=text, labelnames=_LABELS)
            for name, text in _GAUGES.items()
        },
        **{
            _PREFIX + name: OffloadingHistogramMetadata(documentation=text, labelnames=_LABELS, buckets=_BUCKETS)
            for name, text in _HISTOGRAMS.items()
        },
    }


class TierMetrics:
    """Turns a cache's running totals into what happened since vLLM asked last."""

    def __init__(self, cache: KeyedCache, label: str) -> None:
        self._cache = cache
        self._labels = (label,)
        self._told: dict[str, int] = {}
        self._asked_at = float("-inf")
        self._seconds: deque[tuple[str, float]] = deque(maxlen=_SECONDS_MAX)
        self._failed = 0

    def job_ended(self, *, loading: bool, num_bytes: int, seconds: float | None, ok: bool) -> None:
        """Note a job's outcome."""
        self._failed += not ok
        if seconds is not None and num_bytes:
            self._seconds.append(("load_seconds" if loading else "store_seconds", seconds))

    def take(self) -> OffloadingConnectorStats | None:
        """What is new since the last call, at most once a second: making a snapshot costs a fraction of a millisecond."""
        now = time.monotonic()
        if now - self._asked_at < _INTERVAL_S:
            return None
        self._asked_at = now
        stats = OffloadingConnectorStats()
        for name, total in self._totals().items():
            new = total - self._told.get(name, 0)
            self._told[name] = total
            if new:
                stats.increase_counter(_PREFIX + name, new, self._labels)
        for name, seconds in self._seconds:
            stats.observe_histogram(_PREFIX + name, seconds, self._labels)
        self._seconds.clear()
        tier = self._cache.stats().tiers[0]
        stats.set_gauge(_PREFIX + "used_slots", tier.num_ready, self._labels)
        stats.set_gauge(_PREFIX + "slots", tier.num_slots, self._labels)
        return stats

    def _totals(self) -> dict[str, int]:
        snapshot = self._cache.stats()
        tier, activity = snapshot.tiers[0], snapshot.activity
        lookups = activity.counters["lookups"]
        return {
            "hits": lookups["full"],
            "misses": lookups["miss"],
            "read_bytes": tier.bytes_read,
            "written_bytes": tier.bytes_written,
            "evictions": tier.evicted,
            "corrupt": tier.blocks_corrupt,
            "io_errors": tier.io_errors,
            "throttled": sum(activity.counters["throttled"].values()),
            "failed_jobs": self._failed,
        }
