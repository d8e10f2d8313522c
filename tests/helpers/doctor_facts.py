"""A machine on which nothing is wrong, as doctor's collectors would write it down, and ways to break one thing of it."""

from typing import Any

from msgspec.structs import replace

from tests.helpers.telemetry_samples import sample_snapshot
from tiercel.telemetry.metrics import CacheMetrics
from tiercel.telemetry.snapshot import HistogramStatus, HitCurveStatus, StatusSnapshot, TierStatus
from tiercel.tiers.inspect import FolderReport
from tiercel.tune.doctor.facts import (
    DirectoryFacts,
    Facts,
    FolderFacts,
    ProcessFacts,
    SettingsFacts,
    SizeFacts,
    SystemFacts,
)
from tiercel.tune.machine import DirectoryFigures, DiskFigure, Figure, GpuFigures, Machine

GIB = 1 << 30
FOLDER = "/cache/tiercel-v1-abab"

SYSTEM = SystemFacts(
    kernel="6.8.0",
    num_cores=8,
    memory_bytes=64 * GIB,
    processor_features={"sha_ni": True, "avx2": True, "avx512f": False},
    private_huge_pages="madvise",
    shared_huge_pages="advise",
    open_files=65536,
    shm_bytes=16 * GIB,
    num_gpus=1,
)
REPORT = FolderReport(
    path=FOLDER, fingerprint="ab" * 16, model_id="tiny", num_slots=1000, num_blocks=900, file_bytes=GIB
)
FOLDER_FACTS = FolderFacts(report=REPORT, journal_bytes=1 << 20)
DIRECTORY = DirectoryFacts(
    path="/cache",
    direct_io_error="",
    filesystem="ext4",
    mount_point="/cache",
    options=("rw", "noatime"),
    source="/dev/nvme0n1",
    device=259,
    free_bytes=500 * GIB,
    total_bytes=1000 * GIB,
    free_inodes=10_000,
    total_inodes=60_000,
    rotational=False,
    scheduler="none",
    read_ahead_kib=128,
    folders=(FOLDER_FACTS,),
)
SIZES = SizeFacts(
    host_bytes=16 * GIB, disk_bytes=200 * GIB, directory_bytes=200 * GIB, block_bytes=2 << 20, piece_bytes=32 << 10
)
SETTINGS = SettingsFacts(
    source="/etc/tiercel.yaml",
    values={
        "enable_cpu": True,
        "enable_ssd": True,
        "ssd_cache_dir": "/cache",
        "ssd_io_engine": "auto",
        "ssd_direct_io": True,
        "cpu_hugepages": True,
        "cpu_copy_threads": 4,
        "transfer_chunk_bytes": "32MiB",
        "transfer_queue_depth_max": 256,
        "journal_checkpoint_bytes": "64MiB",
        "ssd_admission": "through",
        "evict_ratio": 0.05,
        "evict_start_threshold": 1.0,
        "evict_stop_threshold": None,
        "ssd_write_budget_per_day": "100GiB",
    },
    directories=("/cache",),
    sizes=SIZES,
    mode=0o600,
)
_OLD = HistogramStatus(bounds=(1.0, 60.0, 3600.0), counts=(0, 1, 9, 0), sum=9000.0)
HOST = TierStatus(
    name="host", num_slots=10_000, num_free=0, num_ready=10_000, num_writing=0, num_pinned=3, block_bytes=2 << 20
)
DISK = TierStatus(
    name="disk",
    num_slots=100_000,
    num_free=50_000,
    num_ready=50_000,
    num_writing=0,
    num_pinned=0,
    block_bytes=2 << 20,
    bytes_read=100 * GIB,
    bytes_written=50 * GIB,
    read_seconds=50.0,
    write_seconds=50.0,
    evicted=10,
    eviction_age=_OLD,
)
CURVE = HitCurveStatus(
    factors=(0.5, 1.0, 2.0), hit_rates=(0.4, 0.5, 0.52), errors=(0.01,) * 3, num_blocks=50_000, sample_rate=0.01
)


def snapshot(metrics: CacheMetrics | None = None, **changes: Any) -> StatusSnapshot:
    """A cache that does well for a day, with some fields changed."""
    metrics = quiet_metrics() if metrics is None else metrics
    given = {
        "tiers": (HOST, DISK),
        "hit_curve": CURVE,
        "notes": (),
        "uptime_s": 86_400.0,
        "queue_depths": {"disk-load": 1},
    }
    return replace(sample_snapshot(metrics), **{**given, "tickets": {"running": 0}, **changes})


def quiet_metrics() -> CacheMetrics:
    """Counts of a cache to which nothing bad ever happened: half of the blocks looked up were found."""
    metrics = CacheMetrics()
    metrics.observe_lookup(
        seconds=1e-5, num_tokens=320, tokens_per_block=16, hits=[("host", 10)], num_pending=0, num_declined=0
    )
    metrics.observe_ticket(kind="load", outcome="done", seconds=0.03)
    metrics.count("checkpoints", "ok")
    return metrics


def process(first: StatusSnapshot | None = None, second: StatusSnapshot | None = None, **changes: Any) -> ProcessFacts:
    """A process that answers; twice the same unless `second` is given."""
    first = snapshot() if first is None else first
    facts = ProcessFacts(
        pid=4242, state="S", first=first, second=second or first, interval_s=1.0, directories=("/cache",)
    )
    return replace(facts, **changes)


def _figure(value: float) -> Figure:
    return Figure(value=value, low=value * 0.98, high=value * 1.02, repeats=5)


def _disk_figure(operation: Any, rate: float) -> DiskFigure:
    return DiskFigure(
        operation=operation,
        block_bytes=2 << 20,
        depth=64,
        bytes_per_s=_figure(rate),
        latency_p50_s=1e-3,
        latency_p99_s=2e-3,
    )


PLACE = DirectoryFigures(
    path="/cache",
    filesystem="ext4",
    capacity_bytes=1000 * GIB,
    free_bytes=500 * GIB,
    engine="io_uring",
    direct=True,
    figures=(_disk_figure("read", 4 * GIB), _disk_figure("write", 2 * GIB)),
)
GPU = GpuFigures(
    name="GPU", memory_bytes=12 * GIB, h2d_bytes_per_s=_figure(5e10), d2h_bytes_per_s=_figure(5e10),
    both_bytes_per_s=_figure(5e10), copies=(),
)  # fmt: skip
MACHINE = Machine(
    measured_at=0.0, tiercel="0.1.0", cpu="cpu", num_cores=8, memory_bytes=64 * GIB, kernel="6.8.0",
    copy_bytes_per_s=_figure(1e10), checksum_bytes_per_s=_figure(1e10), hash_tokens_per_s=_figure(1e8),
    directories=(PLACE,), gpus=(GPU,),
)  # fmt: skip

HEALTHY = Facts(
    tiercel="0.1.0",
    system=SYSTEM,
    settings=SETTINGS,
    directories=(DIRECTORY,),
    processes=(process(),),
    machine=MACHINE,
    gpu_cache_bytes=8 * GIB,
    measured_age_s=86_400.0,
)


def with_system(**changes: Any) -> Facts:
    """The healthy facts with another machine."""
    return replace(HEALTHY, system=replace(SYSTEM, **changes))


def with_directory(**changes: Any) -> Facts:
    """The healthy facts with another directory."""
    return replace(HEALTHY, directories=(replace(DIRECTORY, **changes),))


def with_folder(journal_bytes: int = 0, was_killed: bool = False, **changes: Any) -> Facts:
    """The healthy facts with another folder in the directory."""
    folder = FolderFacts(report=replace(REPORT, **changes), journal_bytes=journal_bytes, was_killed=was_killed)
    return with_directory(folders=(folder,))


def with_settings(**values: Any) -> Facts:
    """The healthy facts with other values of settings."""
    return replace(HEALTHY, settings=replace(SETTINGS, values={**SETTINGS.values, **values}))


def with_settings_facts(**changes: Any) -> Facts:
    """The healthy facts with other facts about the settings."""
    return replace(HEALTHY, settings=replace(SETTINGS, **changes))


def with_sizes(**changes: Any) -> Facts:
    """The healthy facts with other sizes, and no process, whose tiers would have sizes of their own."""
    return replace(HEALTHY, processes=(), settings=replace(SETTINGS, sizes=replace(SIZES, **changes)))


def with_process(first: StatusSnapshot | None = None, second: StatusSnapshot | None = None, **changes: Any) -> Facts:
    """The healthy facts with another process."""
    return replace(HEALTHY, processes=(process(first, second, **changes),))


def counted(*counts: tuple[str, str, int], tickets: int = 0) -> StatusSnapshot:
    """A snapshot in which some counters have counted, beside `tickets` loads that were done."""
    metrics = quiet_metrics()
    for counter, label, times in counts:
        metrics.count(counter, label, times)
    for _ in range(tickets):
        metrics.observe_ticket(kind="load", outcome="done", seconds=0.03)
    return snapshot(metrics)


def declined_snapshot() -> StatusSnapshot:
    """A cache that found 10 blocks and would rather compute 8 of them."""
    metrics = quiet_metrics()
    for _ in range(4):
        metrics.observe_lookup(
            seconds=1e-5, num_tokens=320, tokens_per_block=16, hits=[("disk", 2)], num_pending=0, num_declined=18
        )
    return snapshot(metrics)


SHAKY = Figure(value=100.0, low=50.0, high=150.0, repeats=5)
