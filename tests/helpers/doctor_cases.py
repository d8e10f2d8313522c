"""What each of doctor's checks is told and must say: (check, severity, text in what was seen or in the remedy, facts)."""

from msgspec.structs import replace

from tests.helpers import doctor_facts as made
from tests.helpers.doctor_facts import CURVE, DISK, GIB, HEALTHY, HOST, counted, snapshot
from tests.helpers.doctor_facts import with_directory as directory
from tests.helpers.doctor_facts import with_folder as folder
from tests.helpers.doctor_facts import with_process as process
from tests.helpers.doctor_facts import with_settings as settings
from tests.helpers.doctor_facts import with_settings_facts as settings_facts
from tests.helpers.doctor_facts import with_sizes as sizes
from tests.helpers.doctor_facts import with_system as system
from tiercel.telemetry.snapshot import HistogramStatus, StatusSnapshot
from tiercel.tune.doctor.facts import Facts, FolderFacts, ProcessFacts, SettingNote

Case = tuple[str, str, str, Facts]


def _note(kind: str, key: str = "some_key", *, loud: bool = False) -> Facts:
    return settings_facts(notes=(SettingNote(kind=kind, key=key, text="some text", loud=loud),))


def _insists(facts: Facts) -> Facts:
    assert facts.settings is not None
    return replace(
        facts, settings=replace(facts.settings, values={**facts.settings.values, "ssd_io_engine": "io_uring"})
    )


def _two_directories(second_device: int) -> Facts:
    other = replace(made.DIRECTORY, path="/other", device=second_device, folders=())
    changed = settings_facts(directories=("/cache", "/other"))
    return replace(changed, directories=(replace(made.DIRECTORY, folders=()), other))


def _other_model() -> Facts:
    used = replace(made.REPORT, holder="process 7, since today")
    other = replace(made.REPORT, path="/cache/tiercel-v1-cdcd", fingerprint="cd" * 16, model_id="old")
    return directory(folders=(FolderFacts(report=used), FolderFacts(report=other)))


def _moving() -> tuple[StatusSnapshot, StatusSnapshot]:
    running = {"running": 2}
    return snapshot(tickets=running), replace(counted(tickets=5), tickets=running)


def _no_files_left() -> Facts:
    return process(open_files=950, open_files_max=1000)


def _machine(**changes: object) -> Facts:
    return replace(HEALTHY, machine=replace(made.MACHINE, **changes))


def _slow_disk() -> Facts:
    slow = replace(DISK, read_seconds=400.0)
    return process(snapshot(tiers=(HOST, slow)))


FALLBACKS: list[Case] = [
    ("io-uring", "warning", "no io_uring", system(io_uring_built=False)),
    ("io-uring", "warning", "EPERM", system(io_uring_error="EPERM, operation not permitted", io_uring_disabled=2)),
    ("io-uring", "error", "EPERM", _insists(system(io_uring_error="EPERM, operation not permitted"))),
    ("direct-io", "warning", "refuses O_DIRECT", directory(direct_io_error="invalid argument")),
    ("direct-io", "advice", "ssd_direct_io is false", settings(ssd_direct_io=False)),
    ("huge-pages", "warning", "nr_hugepages=8192", system(private_huge_pages="never")),
    ("huge-pages", "warning", "nr_hugepages=8192", system(private_huge_pages="", huge_pages_free=8191)),
    ("huge-pages", "advice", "shmem_enabled = never: a node", system(shared_huge_pages="never")),
    ("huge-pages", "ok", "16.00 GiB reserved", system(private_huge_pages="never", huge_pages_free=8192)),
    ("pinning", "error", "libcuda does not load", system(cuda_driver_error="no such file")),
    ("gpudirect-storage", "advice", "enable_gds", _note("ignored", "enable_gds", loud=True)),
    ("numa", "advice", "2 of 2", system(numa_nodes=2, numa_nodes_allowed=2)),
    ("numa", "ok", "1 of 2", system(numa_nodes=2)),
    ("processor", "advice", "no sha_ni", system(processor_features={"sha_ni": False, "avx2": True})),
]
LIMITS: list[Case] = [
    ("memory", "warning", "16.00 GiB", replace(system(memory_bytes=18 * GIB), processes=())),
    ("memory", "ok", "18.00 GiB", system(memory_bytes=18 * GIB)),
    ("cpu-quota", "warning", "quota of 2 cores on 8", system(cpu_quota_cores=2.0)),
    ("cpu-quota", "advice", "quota of 6 cores", system(cpu_quota_cores=6.0)),
    ("locked-memory", "warning", "64.00 KiB", system(kernel="5.4.0-generic", memlock_bytes=64 << 10)),
    ("locked-memory", "advice", "64.00 KiB", system(kernel="6.1.0", memlock_bytes=64 << 10)),
    ("locked-memory", "ok", "64.00 KiB", system(kernel="6.1.0", memlock_bytes=64 << 10, memlock_applies=False)),
    ("open-files", "advice", "1024", system(open_files=1024)),
    ("open-files", "warning", "950 of 1000", _no_files_left()),
    ("address-space", "error", "8.00 GiB", system(address_space_bytes=8 * GIB)),
    ("address-space", "warning", "64.00 GiB", system(address_space_bytes=64 * GIB)),
    ("shared-memory", "error", "not permitted", system(memfd_error="operation not permitted")),
    ("dev-shm", "advice", "64.00 MiB", system(shm_bytes=64 << 20)),
]
FILESYSTEMS: list[Case] = [
    ("filesystem", "warning", "take memory", directory(filesystem="tmpfs")),
    ("filesystem", "warning", "network", directory(filesystem="nfs4")),
    ("filesystem", "warning", "network", directory(filesystem="fuse.sshfs")),
    ("filesystem", "warning", "container", directory(filesystem="overlay")),
    ("filesystem", "advice", "zfs", directory(filesystem="zfs")),
    ("mount-options", "warning", "sync", directory(options=("rw", "sync"))),
    ("mount-options", "advice", "discard", directory(options=("rw", "discard"))),
    ("striping", "warning", "/other", _two_directories(259)),
    ("striping", "ok", "2 filesystems", _two_directories(260)),
    ("rotating-disk", "warning", "rotating", directory(rotational=True)),
    ("rotating-disk", "advice", "/dev/vda", directory(rotational=True, source="/dev/vda")),
    ("disk-scheduler", "advice", "bfq", directory(scheduler="bfq")),
    ("disk-scheduler", "advice", "kyber", directory(scheduler="kyber")),
    ("read-ahead", "advice", "4096 KiB", directory(read_ahead_kib=4096, direct_io_error="invalid argument")),
]
DIRECTORIES: list[Case] = [
    ("directory", "error", "did not answer", directory(problem="the directory /cache did not answer within 8 s")),
    ("directory", "error", "no such directory", replace(directory(exists=False), settings=None)),
    ("directory", "ok", "the cache makes it", directory(exists=False)),
    ("directory", "warning", "in time", directory(is_complete=False, folders=())),
    ("writable", "error", "read-only", directory(write_error="read-only file system")),
    ("free-space", "warning", "1.00 GiB of 1000.00 GiB", directory(free_bytes=GIB)),
    ("inodes", "error", "3 of 60000", directory(free_inodes=3)),
    ("owner", "advice", "ended without closing", folder(was_killed=True)),
    ("owner", "ok", "process 7", folder(holder="process 7, since today")),
    ("format-version", "error", "has no manifest", folder(problem="has no manifest")),
    ("format-version", "warning", "another format", folder(path="/cache/tiercel-v9-abab", problem="version 9")),
    ("other-models", "advice", "holds old, 1.00 GiB, beside tiny", _other_model()),
    ("damaged-journal", "advice", "12 torn bytes", folder(torn_bytes=12)),
    ("damaged-journal", "warning", "2 damaged records", folder(torn_bytes=12, corrupt_records=2)),
    ("journal-growth", "warning", "300.00 MiB", folder(journal_bytes=300 << 20)),
    ("journal-growth", "ok", "200.00 MiB", folder(journal_bytes=200 << 20)),
    ("stripes", "error", "stripe 1 of 2, the settings make it 0 of 1", folder(stripe=1, num_stripes=2)),
]
SETTINGS: list[Case] = [
    ("readable", "error", "unknown key", settings_facts(problem="unknown key", values={}, sizes=None)),
    ("notes", "error", "some_key", _note("impossible")),
    ("notes", "warning", "some_key", _note("contradictory")),
    ("notes", "warning", "some_key", _note("ignored", loud=True)),
    ("notes", "advice", "some_key", _note("unlikely")),
    ("fits", "error", "takes too much", sizes(fit_problem="takes too much")),
    ("fits", "advice", "beside what runs", replace(sizes(fit_problem="takes too much"), processes=HEALTHY.processes)),
    ("host-against-gpu", "warning", "8.00 GiB", sizes(host_bytes=4 * GIB)),
    ("host-against-gpu", "warning", "host tier 2.00 GiB", process(snapshot(tiers=(replace(HOST, num_slots=1024),)))),
    ("host-against-gpu", "advice", "weights", replace(sizes(host_bytes=4 * GIB), gpu_cache_bytes=None)),
    ("disk-against-host", "warning", "0.5 times", sizes(disk_bytes=8 * GIB)),
    ("disk-against-host", "advice", "2.0 times", sizes(disk_bytes=32 * GIB)),
    ("block-size", "warning", "2.00 KiB", sizes(piece_bytes=2048)),
    ("block-size", "advice", "8.00 KiB", sizes(piece_bytes=8192)),
    ("block-size", "advice", "transfer_chunk_bytes", sizes(block_bytes=64 << 20)),
    ("eviction", "warning", "30%", settings(evict_start_threshold=0.9, evict_stop_threshold=0.3)),
    ("eviction", "advice", "40%", settings(evict_ratio=0.4)),
    ("eviction", "advice", "on_evict", settings(ssd_admission="on_evict")),
    ("relative-directory", "advice", "./ssd_cache", settings(ssd_cache_dir="./ssd_cache")),
    ("file-permissions", "warning", "others may change it", settings_facts(mode=0o664)),
    ("file-permissions", "warning", "api_key", settings_facts(mode=0o644, secret_keys=("api_key",))),
    ("file-permissions", "ok", "644", settings_facts(mode=0o644)),
]
FAULTS: list[Case] = [
    (
        "answers",
        "error",
        "no such process",
        replace(HEALTHY, processes=(ProcessFacts(pid=9, problem="no such process"),)),
    ),
    ("fallbacks", "warning", "io_uring", process(snapshot(notes=("io_uring is not available",)))),
    (
        "fallbacks",
        "error",
        "takes no",
        process(snapshot(notes=("the disk tier takes no reads: x; it tries again every 5 s",))),
    ),
    ("fallbacks", "warning", "that are over: disk_outage 2", process(counted(("fallbacks", "disk_outage", 2)))),
    ("failing-disk", "warning", "2 corrupt", process(snapshot(tiers=(HOST, replace(DISK, blocks_corrupt=2))))),
    ("failing-disk", "error", "9 corrupt", process(snapshot(tiers=(HOST, replace(DISK, blocks_corrupt=9))))),
    ("failing-disk", "error", "1 I/O", process(snapshot(tiers=(HOST, replace(DISK, io_errors=1))))),
    (
        "failing-disk",
        "error",
        "1 corrupt",
        process(snapshot(), snapshot(tiers=(HOST, replace(DISK, blocks_corrupt=1)))),
    ),
    ("checkpoints", "error", "3 checkpoints failed", process(counted(("checkpoints", "failed", 3)))),
    ("checkpoints", "error", "journal_put 5", process(counted(("errors", "journal_put", 5)))),
    ("deadlines", "error", "1 of 1 tickets", process(counted(("errors", "DeadlineError", 1)))),
    ("deadlines", "warning", "1 of 200 tickets", process(counted(("errors", "DeadlineError", 1), tickets=199))),
    ("stuck-tickets", "warning", "2 tickets run", process(snapshot(tickets={"running": 2}))),
    ("stuck-tickets", "ok", "2 tickets run", process(*_moving())),
    ("pins", "warning", "9000 of 10000", process(snapshot(tiers=(replace(HOST, num_pinned=9000), DISK)))),
    ("version", "advice", "runs 0.0.9", process(snapshot(version="0.0.9"))),
    ("recording", "warning", "4 events dropped", process(counted(("recorder_events", "dropped", 4)))),
    ("unseen", "warning", "the machine", replace(HEALTHY, problems=("the machine did not answer",))),
]
_YOUNG = HistogramStatus(bounds=(1.0, 60.0, 3600.0), counts=(4, 4, 1, 0), sum=100.0)
SPEED: list[Case] = [
    ("capacity", "advice", "60.0% at twice", process(snapshot(hit_curve=replace(CURVE, hit_rates=(0.4, 0.5, 0.6))))),
    (
        "capacity",
        "advice",
        "half the capacity",
        process(snapshot(hit_curve=replace(CURVE, hit_rates=(0.495, 0.5, 0.5)))),
    ),
    (
        "capacity",
        "ok",
        "at twice",
        process(snapshot(hit_curve=replace(CURVE, hit_rates=(0.4, 0.5, 0.6), errors=(0.05,) * 3))),
    ),
    ("policy", "advice", "LRU", process(snapshot(hit_curve=replace(CURVE, hit_rates=(0.7, 0.75, 0.76))))),
    ("eviction-age", "warning", "last 60 s", process(snapshot(tiers=(HOST, replace(DISK, eviction_age=_YOUNG))))),
    ("eviction-age", "ok", "3600", process(snapshot(tiers=(replace(HOST, eviction_age=_YOUNG), DISK)))),
    ("queues", "warning", "disk-store 7", process(counted(("throttled", "disk-store", 7)))),
    ("queues", "advice", "disk-store 1", process(counted(("throttled", "disk-store", 1), tickets=2000))),
    ("queues", "warning", "disk-load 200", process(snapshot(queue_depths={"disk-load": 200}))),
    ("write-budget", "advice", "refused 3 writes", process(counted(("throttled", "budget", 3)))),
    ("write-budget", "warning", "2.00 TiB a day", settings(ssd_write_budget_per_day="2TiB")),
    ("write-budget", "advice", "the budget is 40.00 GiB", settings(ssd_write_budget_per_day="40GiB")),
    ("demotion", "warning", "6 times", process(counted(("throttled", "demotion", 6)))),
    ("wear", "warning", "2.00 bytes read", process(snapshot(uptime_s=3600.0))),
    ("declined", "advice", "cheaper to recompute", made.with_process(made.declined_snapshot())),
    ("slower-than-measured", "warning", "reads at 256.00 MiB/s", _slow_disk()),
    ("measurement", "advice", "100 days", replace(HEALTHY, measured_age_s=100 * 86_400.0)),
    ("measurement", "advice", "kernel 5.1", _machine(kernel="5.1")),
    ("measurement", "advice", "1 of 3 figures", _machine(copy_bytes_per_s=made.SHAKY)),
]

CASES: list[Case] = [*FAULTS, *SETTINGS, *DIRECTORIES, *FILESYSTEMS, *LIMITS, *FALLBACKS, *SPEED]
