"""Prometheus metrics of one cache, computed from its snapshot when a scraper asks, never while the cache works.

Each `PrometheusExporter` has a registry of its own, so that several caches in one process do not clash; a server that
has a registry already registers `SnapshotCollector` there. Imported only when metrics are served.
"""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tiercel.telemetry.snapshot import Activity, HistogramStatus, StatusSnapshot, TierStatus


class SnapshotCollector(Collector):
    """Turns snapshots into metrics.

    Args:
        snapshot: returns the cache's state now; called on the scraper's thread.
    """

    def __init__(self, snapshot: Callable[[], StatusSnapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registering must not take a snapshot of a cache that is still opening."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of the cache as of now."""
        snapshot = self._snapshot()
        yield from _lookup_metrics(snapshot.activity)
        yield from _transfer_metrics(snapshot.activity)
        yield from _tier_metrics(snapshot.tiers)
        yield _counter("throttled", "Refusals because a queue or tier was full.", "queue", snapshot.activity.throttled)
        yield _counter("recompute", "Work given back to the engine.", "reason", snapshot.activity.recompute)
        yield _gauge("queue_depth", "Moves waiting in a queue.", "queue", snapshot.queue_depths)
        yield _gauge("tickets", "Tickets by state.", "state", snapshot.tickets)


class PrometheusExporter:
    """Serves one cache's metrics over HTTP.

    Args:
        snapshot: returns the cache's state now; called on the scraper's thread.
        registry: where to register; a new one by default.
    """

    def __init__(self, snapshot: Callable[[], StatusSnapshot], *, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        collector = SnapshotCollector(snapshot)
        self.registry.register(collector)
        self._collector: SnapshotCollector | None = collector
        self._stop: Callable[[], None] | None = None

    def start_http(self, port: int, *, address: str = "127.0.0.1") -> int:
        """Serve `/metrics` on a thread of its own until `close`.

        Args:
            port: TCP port; 0 takes a free one.
            address: the interface to listen on; only this machine by default.

        Returns:
            The port that is listened on.

        Raises:
            OSError: the port cannot be listened on. Nothing was started.
            ValueError: it is serving already.
        """
        if self._stop is not None:
            raise ValueError("metrics are served already")
        server, thread = start_http_server(port, address, self.registry)

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self._stop = stop
        return int(server.server_port)

    def close(self) -> None:
        """Stop serving and leave the registry. Idempotent."""
        if self._stop is not None:
            self._stop()
            self._stop = None
        if self._collector is not None:
            self.registry.unregister(self._collector)
            self._collector = None


def _counter(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(f"tiercel_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _gauge(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(f"tiercel_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _buckets(histogram: HistogramStatus) -> list[tuple[str, float]]:
    """Return cumulative counts by upper bound, as Prometheus wants them."""
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*map(repr, histogram.bounds_s), "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets


def _lookup_metrics(activity: Activity) -> Iterator[Metric]:
    tokens = CounterMetricFamily("tiercel_lookup_tokens", "Tokens looked up, by outcome.", labels=["outcome", "tier"])
    for tier, count in activity.hit_tokens.items():
        tokens.add_metric(["hit", tier], count)
    misses = activity.lookup_tokens - activity.pending_tokens - sum(activity.hit_tokens.values())
    tokens.add_metric(["pending", ""], activity.pending_tokens)
    tokens.add_metric(["miss", ""], misses)
    yield tokens
    seconds = HistogramMetricFamily("tiercel_lookup_seconds", "Duration of a lookup.")
    seconds.add_metric([], _buckets(activity.lookup_seconds), activity.lookup_seconds.sum_s)
    yield seconds


def _transfer_metrics(activity: Activity) -> Iterator[Metric]:
    pair = ["source", "target"]
    seconds = HistogramMetricFamily("tiercel_transfer_seconds", "Duration of a move.", labels=pair)
    num_bytes = CounterMetricFamily("tiercel_transfer_bytes", "Payload bytes moved.", labels=pair)
    blocks = CounterMetricFamily("tiercel_transfer_blocks", "Blocks moved, by outcome.", labels=[*pair, "status"])
    for transfer in activity.transfers:
        labels = [transfer.source, transfer.target]
        seconds.add_metric(labels, _buckets(transfer.seconds), transfer.seconds.sum_s)
        num_bytes.add_metric(labels, transfer.num_bytes)
        for status, count in transfer.blocks.items():
            blocks.add_metric([*labels, status], count)
    yield from (seconds, num_bytes, blocks)


def _tier_metrics(tiers: tuple[TierStatus, ...]) -> Iterator[Metric]:
    blocks = GaugeMetricFamily("tiercel_tier_blocks", "Slots of a tier by state.", labels=["tier", "state"])
    for tier in tiers:
        counts = (("free", tier.num_free), ("ready", tier.num_ready), ("writing", tier.num_writing))
        for state, count in counts:
            blocks.add_metric([tier.name, state], count)
    yield blocks
    yield _gauge(
        "tier_pinned_blocks", "Slots held by a lookup.", "tier", {tier.name: tier.num_pinned for tier in tiers}
    )
    yield _gauge("tier_capacity_blocks", "Slots of a tier.", "tier", {tier.name: tier.num_slots for tier in tiers})
    yield _counter("evicted_blocks", "Blocks evicted.", "tier", {tier.name: tier.evicted for tier in tiers})
    corrupt = {tier.name: tier.blocks_corrupt for tier in tiers}
    yield _counter("corrupt_blocks", "Blocks whose checksum did not match; never served.", "tier", corrupt)
    yield _counter("io_errors", "Reads and writes that failed.", "tier", {tier.name: tier.io_errors for tier in tiers})
