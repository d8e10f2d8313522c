"""fio as the yardstick of disk benchmarks: io_uring, direct, on data that was written before."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_COMMON = ("--ioengine=io_uring", "--direct=1", "--overwrite=1", "--fallocate=none", "--output-format=json")
_MODES = {"read": ["--rw=read"], "write": ["--rw=write"], "mixed": ["--rw=rw", "--rwmixread=70"]}


@dataclass(frozen=True, kw_only=True)
class FioRun:
    """What one run moved: bytes a second, and seconds of CPU in all."""

    bytes_per_s: float
    cpu_s: float


def run_fio(path: Path, workload: str, *, block_bytes: int, num_bytes: int, queue_depth: int) -> FioRun:
    """Go over a file once. workload: "read", "write" or "mixed" (70 % reads)."""
    job = _jobs(
        f"--name=tiercel --filename={path} --bs={block_bytes} --size={num_bytes} --iodepth={queue_depth}".split()
        + _MODES[workload]
    )[0]
    seconds = job["job_runtime"] / 1e3
    moved = job["read"]["io_bytes"] + job["write"]["io_bytes"]
    busy = max(job["read"]["runtime"], job["write"]["runtime"]) / 1e3
    return FioRun(bytes_per_s=moved / busy, cpu_s=(job["usr_cpu"] + job["sys_cpu"]) / 100 * seconds)


def read_latencies_beside_writes(
    path: Path, *, block_bytes: int, num_bytes: int, queue_depth: int, seconds: float, pause_s: float
) -> tuple[float, float]:
    """Read one random block at a time, with pauses, while another job writes. Returns p50 and p99 in seconds."""
    common = f"--filename={path} --size={num_bytes} --time_based --runtime={seconds}".split()
    reads = f"--name=reads --rw=randread --bs={block_bytes} --iodepth=1 --thinktime={int(pause_s * 1e6)}".split()
    writes = f"--name=writes --rw=write --bs=1M --iodepth={queue_depth}".split()
    job = _jobs([*common, *reads, *writes])[0]
    percentiles = job["read"]["clat_ns"]["percentile"]
    return percentiles["50.000000"] / 1e9, percentiles["99.000000"] / 1e9


def _jobs(arguments: list[str]) -> list[dict[str, Any]]:
    done = subprocess.run(["fio", *_COMMON, *arguments], capture_output=True, text=True, check=True)
    jobs: list[dict[str, Any]] = json.loads(done.stdout)["jobs"]
    return jobs
