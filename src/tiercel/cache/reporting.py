"""What the facade tells the outside: the status snapshot made from all parts, on a socket and to Prometheus."""

import os
import time
from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace

from tiercel import __version__
from tiercel.cache.assembly import Assembly
from tiercel.cache.observing import TIER_NAMES
from tiercel.cache.opening import note_fallbacks
from tiercel.config.messages import problem
from tiercel.config.paths import expanded
from tiercel.control.ghost import TIER_FACTORS
from tiercel.index import EVICTION_AGE_BOUNDS_S
from tiercel.telemetry.snapshot import (
    Activity,
    GpuPoolStatus,
    HistogramStatus,
    HitCurveStatus,
    PrefillStatus,
    StatusSnapshot,
    TenantStatus,
    TierCurveStatus,
    TierStatus,
    TuningStatus,
)
from tiercel.telemetry.status import SOCKET_NAME, StatusServer
from tiercel.tiers.base import TierName

_CURVE_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Capacities whose hit rate is told, as multiples of what all tiers hold; at most `control.ghost.SPAN`."""


class NodeCounts(NamedTuple):
    """What a node tells of itself in its cache's status: its clients now, and the events of `tiercel_node_events_total`."""

    num_clients: int
    events: dict[str, int]


class Reporter:
    """Serves a cache's status. Thread-safe."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._started_at = time.time()
        self._start_s = time.monotonic()  # a clock that is set goes on to tell for how long
        self._status: StatusServer | None = None
        self._stop_http: Callable[[], None] | None = None
        self._depths: Callable[[], dict[str, int]] = dict
        self._tickets: Callable[[], dict[str, int]] = dict
        self._tuning: Callable[[], TuningStatus] | None = None
        self._node: Callable[[], NodeCounts] | None = None

    def start(
        self,
        depths: Callable[[], dict[str, int]],
        tickets: Callable[[], dict[str, int]],
        tuning: Callable[[], TuningStatus] | None = None,
    ) -> None:
        """Serve the status socket and, where a port is set, the metrics.

        Args:
            depths: moves waiting per queue.
            tickets: tickets by state.
            tuning: what auto-tuning did; None without it.

        Raises:
            ConfigError: `status_socket` or `metrics_port` cannot be listened on.
            OSError: nor can the socket that is derived without a setting.
        """
        self._depths, self._tickets, self._tuning = depths, tickets, tuning
        self._assembly.metrics.foresee("throttled", depths())
        config = self._assembly.config
        path = expanded("status_socket", config.status_socket) if config.status_socket else None
        if path is None and self._assembly.disk_folder is not None:
            path = self._assembly.disk_folder / SOCKET_NAME
        try:
            self._status = StatusServer(self.snapshot, path=path)
        except OSError as error:
            if config.status_socket is None:
                raise
            reason = f"cannot be listened on ({error.strerror or error})"
            remedy = "name a free file in a directory of yours, or leave it null"
            raise problem("status_socket", config.status_socket, reason, remedy) from error
        if config.metrics_port is not None:
            from tiercel.telemetry.prometheus import PrometheusExporter

            exporter = PrometheusExporter(self.snapshot)
            try:
                exporter.start_http(config.metrics_port)
            except OSError as error:
                reason = f"cannot be listened on ({error.strerror or error})"
                raise problem("metrics_port", config.metrics_port, reason, "take a free port, or 0 for any") from error
            self._stop_http = exporter.close

    def tell_node(self, counts: Callable[[], NodeCounts]) -> None:
        """Tell from now on what a node that serves this cache counts."""
        self._node = counts

    def snapshot(self) -> StatusSnapshot:
        """The cache as of now."""
        assembly = self._assembly
        node = None if self._node is None else self._node()
        if assembly.disk is not None:
            note_fallbacks(assembly.disk, assembly.notes)
        return StatusSnapshot(
            pid=os.getpid(),
            version=__version__,
            model=assembly.geometry.model_id,
            fingerprint=assembly.fingerprint.hex(),
            started_at=self._started_at,
            uptime_s=time.monotonic() - self._start_s,
            tiers=tuple(self._tier_status(tier) for tier in assembly.control.tiers),
            activity=self._activity({} if node is None else node.events),
            tickets=self._tickets(),
            queue_depths=self._depths(),
            hit_curve=self._hit_curve(),
            prefill=self._prefill(),
            tuning=None if self._tuning is None else self._tuning(),
            gpu_pools=tuple(GpuPoolStatus(**use._asdict()) for use in assembly.devices.pools()),
            num_clients=None if node is None else node.num_clients,
            notes=(*assembly.notes.texts(), *self._outages()),
        )

    def _activity(self, node_events: dict[str, int]) -> Activity:
        """What was counted, and what the tiers and a node count by themselves."""
        activity = self._assembly.metrics.activity()
        errors, fallbacks = dict(activity.counters["errors"]), dict(activity.counters["fallbacks"])
        for tier in self._assembly.tiers.values():
            stats = tier.stats()
            for act, count in stats.journal_refusals.items():
                errors[f"journal_{act}"] = count
            if stats.num_outages:
                fallbacks["disk_outage"] = stats.num_outages
        counted = {"errors": errors, "fallbacks": fallbacks, "node_events": node_events}
        return replace(activity, counters={**activity.counters, **counted})

    def _hit_curve(self) -> HitCurveStatus | None:
        control = self._assembly.control
        if control.settings.ghost_sample_rate == 0:
            return None
        total = sum(control.settings.capacities.values())
        curve = control.hit_curve(int(total * factor) for factor in _CURVE_FACTORS)
        return HitCurveStatus(
            factors=_CURVE_FACTORS,
            hit_rates=curve.hit_rates,
            errors=curve.errors,
            num_blocks=curve.num_blocks,
            sample_rate=curve.sample_rate,
            tiers=tuple(
                TierCurveStatus(tier=TIER_NAMES[tier], factors=TIER_FACTORS, shares=shares)
                for tier, shares in control.tier_shares().items()
            ),
        )

    def _prefill(self) -> PrefillStatus | None:
        prefill = self._assembly.control.prefill
        if prefill.num_observations == 0:
            return None
        curve = prefill.curve
        return PrefillStatus(
            fixed_s=curve.fixed_s,
            token_s=curve.token_s,
            token_pair_s=curve.token_pair_s,
            num_observations=prefill.num_observations,
        )

    def _outages(self) -> list[str]:
        reasons = (tier.stats().out_of_service for tier in self._assembly.tiers.values())
        return [reason for reason in reasons if reason]

    def _tier_status(self, tier: TierName) -> TierStatus:
        index, moved = self._assembly.control.stats(tier), self._assembly.tiers[tier].stats()
        disk = self._assembly.disk
        return TierStatus(
            name=TIER_NAMES[tier],
            num_slots=index.num_slots,
            num_free=index.num_free,
            num_ready=index.num_ready,
            num_writing=index.num_writing,
            num_pinned=index.num_pinned,
            block_bytes=moved.block_bytes,
            blocks_read=moved.blocks_read,
            blocks_written=moved.blocks_written,
            bytes_read=moved.bytes_read,
            bytes_written=moved.bytes_written,
            read_seconds=moved.read_seconds,
            write_seconds=moved.write_seconds,
            blocks_corrupt=moved.blocks_corrupt,
            io_errors=moved.io_errors,
            evicted=index.num_evicted,
            eviction_age=HistogramStatus(
                bounds=EVICTION_AGE_BOUNDS_S, counts=index.evicted_age_counts, sum=index.evicted_age_sum_s
            ),
            journal_bytes=disk.journal_bytes if disk is not None and tier is TierName.DISK else 0,
            recovered=self._assembly.recovered.get(tier, 0),
            tenants=self._tenants(tier),
        )

    def _tenants(self, tier: TierName) -> tuple[TenantStatus, ...]:
        tenants = self._assembly.config.tenant_list
        if not tenants:
            return ()
        names = ("", *(tenant.name for tenant in tenants))
        return tuple(
            TenantStatus(
                name=name, held=share.num_held, reserve=share.reserve, limit=share.limit, evicted=share.num_evicted
            )
            for name, share in zip(names, self._assembly.control.tenants.shares(tier), strict=True)
        )

    def close(self) -> None:
        """Stop serving. Idempotent."""
        if self._status is not None:
            self._status.close()
        if self._stop_http is not None:
            self._stop_http()
            self._stop_http = None
