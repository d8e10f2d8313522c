"""fio as the yardstick of disk benchmarks: io_uring, direct, on data that was written before.

It has two ways: as it comes it pins the pages of its memory for each request, with registered buffers once. Neither is always
the faster, and only the faster one tells what the device can do.
"""

from pathlib import Path

from tiercel.tune.probe.fio import FioError, FioRun, fio_jobs, run_of

WAYS = {"fio": (), "fio with registered buffers": ("--fixedbufs",)}
_MODES = {"read": ["--rw=read"], "write": ["--rw=write"], "mixed": ["--rw=rw", "--rwmixread=70"]}


def run_fio(
    path: Path, workload: str, way: str = "fio", *, block_bytes: int, num_bytes: int, queue_depth: int
) -> FioRun:
    """Go over a file once. workload: "read", "write" or "mixed" (70 % reads); way: of `WAYS`."""
    common = f"--name=tiercel --filename={path} --bs={block_bytes} --size={num_bytes} --iodepth={queue_depth}".split()
    return run_of(fio_jobs([*common, *_MODES[workload], *WAYS[way]])[0])


def usable_ways(path: Path, **run: int) -> list[str]:
    """The ways that work here: the kernel limits by RLIMIT_MEMLOCK what may be registered. What does not is printed."""
    usable = []
    for way in WAYS:
        try:
            run_fio(path, "read", way, **run)
        except FioError as error:
            print(f"{way} cannot be compared with: {error}")
        else:
            usable.append(way)
    return usable


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
