"""fio as the yardstick of disk benchmarks: io_uring, direct, on data that was written before."""

from pathlib import Path

from tiercel.tune.probe.fio import FioRun, fio_jobs, run_of

_MODES = {"read": ["--rw=read"], "write": ["--rw=write"], "mixed": ["--rw=rw", "--rwmixread=70"]}


def run_fio(path: Path, workload: str, *, block_bytes: int, num_bytes: int, queue_depth: int) -> FioRun:
    """Go over a file once. workload: "read", "write" or "mixed" (70 % reads)."""
    job = fio_jobs(
        f"--name=tiercel --filename={path} --bs={block_bytes} --size={num_bytes} --iodepth={queue_depth}".split()
        + _MODES[workload]
    )[0]
    return run_of(job)


def read_latencies_beside_writes(
    path: Path, *, block_bytes: int, num_bytes: int, queue_depth: int, seconds: float, pause_s: float
) -> tuple[float, float]:
    """Read one random block at a time, with pauses, while another job writes. Returns p50 and p99 in seconds."""
    common = f"--filename={path} --size={num_bytes} --time_based --runtime={seconds}".split()
    reads = f"--name=reads --rw=randread --bs={block_bytes} --iodepth=1 --thinktime={int(pause_s * 1e6)}".split()
    writes = f"--name=writes --rw=write --bs=1M --iodepth={queue_depth}".split()
    job = fio_jobs([*common, *reads, *writes])[0]
    percentiles = job["read"]["clat_ns"]["percentile"]
    return percentiles["50.000000"] / 1e9, percentiles["99.000000"] / 1e9
