"""Prometheus metrics of one cache, computed from its snapshot when a scraper asks, never while the cache works.

Each `PrometheusExporter` has a registry of its own, so that several caches in one process do not clash; a server that
has a registry already registers `SnapshotCollector` there. Imported only when metrics are served.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tiercel.telemetry import catalogue
from tiercel.telemetry.catalogue import METRICS, MetricType
from tiercel.telemetry.snapshot import Activity, HistogramStatus, StatusSnapshot, TierStatus

CLIENT_TIMEOUT_S = 10.0
"""Longest silence of a client before its connection is closed."""

Sample = tuple[str, tuple[str, ...], float | HistogramStatus]
"""(name of the metric, values of its labels in the catalogue's order, value)."""


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
        """Yield every metric of the catalogue as of now."""
        snapshot = self._snapshot()
        families = {name: _family(metric) for name, metric in METRICS.items()}
        for name, labels, value in samples(snapshot):
            family = families[name]
            if isinstance(value, HistogramStatus):
                assert isinstance(family, HistogramMetricFamily), f"{name} is no histogram"
                family.add_metric(labels, _buckets(value), value.sum)
            else:
                assert isinstance(family, CounterMetricFamily | GaugeMetricFamily), f"{name} is a histogram"
                family.add_metric(labels, value)
        yield from families.values()


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
        server.RequestHandlerClass = _Handler

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


class _Handler(WSGIRequestHandler):
    """Answers one client on a thread of its own, which a silent client cannot keep and a broken one cannot make noise with."""

    timeout = CLIENT_TIMEOUT_S

    def handle(self) -> None:
        """Answer, unless the client goes away or says nothing for too long."""
        with suppress(TimeoutError, ConnectionError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        """Log no requests: there is one every few seconds."""


def _family(metric: catalogue.Metric) -> Metric:
    match metric.type:
        case MetricType.COUNTER:
            return CounterMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        case MetricType.GAUGE:
            return GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        case MetricType.HISTOGRAM:
            return HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)


def _buckets(histogram: HistogramStatus) -> list[tuple[str, float]]:
    """Return cumulative counts by upper bound, as Prometheus wants them."""
    bounds = (*(f"{bound:g}" for bound in histogram.bounds), "+Inf")
    return list(zip(bounds, itertools.accumulate(histogram.counts), strict=True))


def samples(snapshot: StatusSnapshot) -> Iterator[Sample]:
    """Yield every number of a snapshot as (name of the metric, values of its labels, value)."""
    yield "tiercel_info", (snapshot.version, snapshot.model, snapshot.fingerprint), 1
    yield "tiercel_start_time_seconds", (), snapshot.started_at
    if snapshot.num_clients is not None:
        yield "tiercel_node_clients", (), snapshot.num_clients
    yield from _lookup_samples(snapshot.activity)
    yield from _transfer_samples(snapshot.activity)
    for tier in snapshot.tiers:
        yield from _tier_samples(tier)
    for name, values in snapshot.activity.counters.items():
        for label, value in values.items():
            yield f"tiercel_{name}_total", (label,), value
    yield "tiercel_checkpoint_seconds", (), snapshot.activity.checkpoint_seconds
    for queue, depth in snapshot.queue_depths.items():
        yield "tiercel_queue_depth", (queue,), depth
    curve = snapshot.hit_curve
    if curve is not None and curve.num_blocks:
        for factor, rate in zip(curve.factors, curve.hit_rates, strict=True):
            yield "tiercel_hit_curve_ratio", (f"{factor:g}x",), rate
        for told in curve.tiers:
            for factor, share in zip(told.factors, told.shares, strict=True):
                yield "tiercel_tier_hit_curve_ratio", (told.tier, f"{factor:g}x"), share
    for pool in snapshot.gpu_pools:
        states = {
            "used": pool.used_bytes,
            "used_high": pool.used_bytes_high,
            "held": pool.held_bytes,
            "held_high": pool.held_bytes_high,
        }
        for state, num_bytes in states.items():
            yield "tiercel_gpu_pool_bytes", (pool.device, state), num_bytes
    for state, count in snapshot.tickets.items():
        yield "tiercel_tickets", (state,), count


def _lookup_samples(activity: Activity) -> Iterator[Sample]:
    tokens = (activity.lookup_tokens, activity.pending_tokens, activity.declined_tokens, activity.hit_tokens)
    blocks = (activity.lookup_blocks, activity.pending_blocks, activity.declined_blocks, activity.hit_blocks)
    for unit, (total, pending, declined, hits) in (("tokens", tokens), ("blocks", blocks)):
        name = f"tiercel_lookup_{unit}_total"
        for tier, count in hits.items():
            yield name, ("hit", tier), count
        yield name, ("pending", ""), pending
        yield name, ("declined", ""), declined
        yield name, ("miss", ""), total - pending - declined - sum(hits.values())
    yield "tiercel_lookup_seconds", (), activity.lookup_seconds
    yield "tiercel_lookup_hit_ratio", (), activity.lookup_hit_ratio
    for tier, histogram in activity.lookup_hit_blocks.items():
        yield "tiercel_lookup_hit_blocks", (tier,), histogram


def _transfer_samples(activity: Activity) -> Iterator[Sample]:
    for transfer in activity.transfers:
        route = (transfer.source, transfer.target)
        yield "tiercel_transfer_wait_seconds", route, transfer.wait
        yield "tiercel_transfer_seconds", route, transfer.seconds
        yield "tiercel_transfer_size_bytes", route, transfer.size
        yield "tiercel_transfer_bytes_total", route, transfer.num_bytes
        for status, count in transfer.blocks.items():
            yield "tiercel_transfer_blocks_total", (*route, status), count
    for ticket in activity.tickets:
        yield "tiercel_ticket_seconds", (ticket.kind, ticket.outcome), ticket.seconds
    for queue, histogram in activity.submission_depths.items():
        yield "tiercel_submission_queue_depth", (queue,), histogram


def _tier_samples(tier: TierStatus) -> Iterator[Sample]:
    for state, count in (("free", tier.num_free), ("ready", tier.num_ready), ("writing", tier.num_writing)):
        yield "tiercel_tier_blocks", (tier.name, state), count
    for name, value in (
        ("tier_pinned_blocks", tier.num_pinned),
        ("tier_capacity_blocks", tier.num_slots),
        ("tier_block_bytes", tier.block_bytes),
        ("tier_read_bytes_total", tier.bytes_read),
        ("tier_written_bytes_total", tier.bytes_written),
        ("tier_read_seconds_total", tier.read_seconds),
        ("tier_write_seconds_total", tier.write_seconds),
        ("evicted_blocks_total", tier.evicted),
        ("corrupt_blocks_total", tier.blocks_corrupt),
        ("io_errors_total", tier.io_errors),
        ("journal_bytes", tier.journal_bytes),
        ("tier_recovered_blocks", tier.recovered),
    ):
        yield f"tiercel_{name}", (tier.name,), value
    for tenant in tier.tenants:
        shares = (("held", tenant.held), ("reserved", tenant.reserve), ("limit", tenant.limit))
        for what, blocks in shares:
            yield "tiercel_tenant_bytes", (tier.name, tenant.name, what), blocks * tier.block_bytes
        yield "tiercel_tenant_evicted_blocks_total", (tier.name, tenant.name), tenant.evicted
    if tier.eviction_age.bounds:
        yield "tiercel_eviction_age_seconds", (tier.name,), tier.eviction_age
