"""A snapshot with every field in use, for the tests of what reads snapshots."""

import msgspec

from tiercel.telemetry.catalogue import COUNTED
from tiercel.telemetry.metrics import CacheMetrics
from tiercel.telemetry.snapshot import (
    GpuPoolStatus,
    HistogramStatus,
    HitCurveStatus,
    StatusSnapshot,
    TenantStatus,
    TierCurveStatus,
    TierStatus,
    TuningChangeStatus,
    TuningStatus,
)

SAMPLE_TUNING = TuningStatus(
    values={"ssd_admission": "on_second_hit", "host_watermark": "0.99"},
    changes=(
        TuningChangeStatus(
            at=1_700_000_033.0,
            knob="ssd_admission",
            action="tried",
            before="through",
            after="on_second_hit",
            reason="12.0 blocks per block read back were written to disk",
        ),
    ),
)
"""A change a minute before the sample snapshot."""


SAMPLE_TENANTS = (
    TenantStatus(name="", held=20, reserve=0, limit=100, evicted=6),
    TenantStatus(name="team-a", held=40, reserve=50, limit=80, evicted=1),
)


def sample_metrics() -> CacheMetrics:
    """Return counts of two lookups, two moves of one route, and one of everything else."""
    metrics = CacheMetrics()
    hits = [("host", 16), ("disk", 8)]
    metrics.observe_lookup(seconds=2e-5, num_tokens=520, tokens_per_block=16, hits=hits, num_pending=1, num_declined=2)
    metrics.observe_lookup(seconds=3e-3, num_tokens=56, tokens_per_block=16, hits=[])
    for outcome in ({"ok": 8}, {"ok": 7, "corrupt": 1}):
        num_bytes = 4096 * outcome["ok"]
        metrics.observe_move(route=("disk", "host"), wait_s=1e-3, seconds=0.02, num_bytes=num_bytes, blocks=outcome)
    metrics.observe_ticket(kind="load", outcome="done", seconds=0.03)
    metrics.observe_submission({"disk-load": 3})
    metrics.observe_checkpoint(0.2)
    for counter in sorted(COUNTED - {"lookups", "checkpoints"}):
        metrics.count(counter, "some")
    metrics.count("throttled", "disk-store")
    metrics.count("recompute", "corrupt", 3)
    return metrics


def sample_snapshot(metrics: CacheMetrics | None = None) -> StatusSnapshot:
    """Return the state of a cache with a host and a disk tier."""
    host = TierStatus(
        name="host",
        num_slots=100,
        num_free=40,
        num_ready=55,
        num_writing=5,
        num_pinned=3,
        block_bytes=4096,
        blocks_read=9,
        blocks_written=60,
        bytes_read=9 * 4096,
        bytes_written=60 * 4096,
        read_seconds=0.001,
        write_seconds=0.004,
        evicted=7,
        eviction_age=HistogramStatus(bounds=(1.0, 60.0), counts=(2, 4, 1), sum=200.0),
        tenants=SAMPLE_TENANTS,
    )
    disk = msgspec.structs.replace(
        host, name="disk", num_slots=1000, num_free=940, blocks_corrupt=1, io_errors=2, journal_bytes=512, recovered=48
    )
    return StatusSnapshot(
        pid=4242,
        version="0.1.0",
        model="tiny",
        fingerprint="ab" * 16,
        started_at=1_700_000_000.0,
        uptime_s=93.0,
        tiers=(host, disk),
        activity=(sample_metrics() if metrics is None else metrics).activity(),
        tickets={"running": 2, "done": 11},
        queue_depths={"disk-load": 4},
        gpu_pools=(GpuPoolStatus(device="cuda:0", used_bytes=1, used_bytes_high=2, held_bytes=3, held_bytes_high=4),),
        hit_curve=HitCurveStatus(
            factors=(0.25, 4.0),
            hit_rates=(0.125, 0.75),
            errors=(0.01, 0.02),
            num_blocks=900,
            sample_rate=0.01,
            tiers=(
                TierCurveStatus(tier="host", factors=(0.5, 1.0, 8.0), shares=(0.25, 0.375, 0.5)),
                TierCurveStatus(tier="disk", factors=(0.5, 1.0, 8.0), shares=(0.0, 0.125, 0.25)),
            ),
        ),
        tuning=SAMPLE_TUNING,
        num_clients=3,
        notes=("io_uring is not available: threads are used",),
    )
