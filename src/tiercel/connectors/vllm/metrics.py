"""What Tiercel did, in the form in which vLLM carries, logs and exports a connector's numbers.

Counts since the last report, from the cache's own status, or from this engine's tally where the cache is a node's; vLLM adds
them up and serves them on its /metrics as `vllm:tiercel_NAME_total`. The cache's own metrics (docs/metrics.md) tell more.
"""

# vLLM is installed where it serves; types are checked with and without it.
# pyright: reportMissingImports=false

import time
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import Counter
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorPromMetrics, KVConnectorStats

_INTERVAL_S = 1.0
"""Between two reports."""

COUNTERS = {
    "lookup_tokens": "Prompt tokens that were looked up in Tiercel, repeated questions included.",
    "hit_tokens_host": "Prompt tokens that Tiercel found in host memory.",
    "hit_tokens_disk": "Prompt tokens that Tiercel found on disk.",
    "loaded_bytes": "Bytes of KV that Tiercel brought into the engine's memory.",
    "stored_bytes": "Bytes of KV that Tiercel took from the engine's memory.",
    "recompute": "Loads, lookups and stores that failed and became recompute.",
}
"""Names and meanings of the counts."""


class TiercelStats(KVConnectorStats):
    """Counts of one interval, by the names of `COUNTERS`."""

    data: dict[str, int]

    def reset(self) -> None:
        """Start over."""
        self.data = {}

    def aggregate(self, other: Any) -> "TiercelStats":
        """Return the sums of both."""
        names = {*self.data, *other.data}
        return TiercelStats(data={name: self.data.get(name, 0) + other.data.get(name, 0) for name in names})

    def reduce(self) -> dict[str, int | float]:
        """Return what vLLM logs."""
        return {name: value for name, value in self.data.items() if value}

    def is_empty(self) -> bool:
        """Whether nothing was counted."""
        return not any(self.data.values())


class TiercelPromMetrics(KVConnectorPromMetrics):
    """The counts on vLLM's /metrics, labelled by engine."""

    def __init__(self, vllm_config: Any, metric_types: Any, labelnames: list[str], per_engine_labelvalues: Any) -> None:
        super().__init__(vllm_config, metric_types, labelnames, per_engine_labelvalues)
        make = metric_types[Counter]
        self._counters = {
            name: make(name=f"vllm:tiercel_{name}", documentation=meaning, labelnames=labelnames)
            for name, meaning in COUNTERS.items()
        }

    def observe(self, transfer_stats_data: dict[str, Any], engine_idx: int = 0) -> None:
        """Add one report."""
        labels = self.per_engine_labelvalues[engine_idx]
        for name, value in transfer_stats_data.items():
            if value and name in self._counters:
                self._counters[name].labels(*labels).inc(value)


class Counting:
    """Turns counts since the start into counts of intervals."""

    def __init__(self, read: Callable[[], Mapping[str, int]]) -> None:
        """read: returns counts by the names of `COUNTERS`; those of a cache cost more than a step should."""
        self._read = read
        self._last: dict[str, int] = dict.fromkeys(COUNTERS, 0)
        self._due = 0.0

    def take(self) -> TiercelStats | None:
        """Return what was added since the last time; None if it is too early or nothing was."""
        now = time.monotonic()
        if now < self._due:
            return None
        self._due = now + _INTERVAL_S
        counts = self._read()
        added = TiercelStats(data={name: counts.get(name, 0) - last for name, last in self._last.items()})
        self._last = {name: counts.get(name, 0) for name in COUNTERS}
        return None if added.is_empty() else added
