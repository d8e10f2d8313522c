"""fio, the yardstick of disks: run as a process, asked for JSON. Nothing here is needed where it is not installed.

Used by `disk`, run for run beside Tiercel's own, and by the benchmarks.
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_COMMON = ("--ioengine=io_uring", "--direct=1", "--overwrite=1", "--fallocate=none", "--output-format=json")
_TIMEOUT_S = 60.0


class FioError(RuntimeError):
    """fio could not do what it was asked for; the message has its own words."""


@dataclass(frozen=True, kw_only=True)
class FioRun:
    """What one run moved: bytes a second over the seconds that it was busy, and seconds of CPU in all."""

    bytes_per_s: float
    busy_s: float
    cpu_s: float


def is_installed() -> bool:
    """Say whether there is a fio to be run."""
    return shutil.which("fio") is not None


def fio_jobs(arguments: Sequence[str], *, descriptors: Sequence[int] = ()) -> list[dict[str, Any]]:
    """Run fio with io_uring and O_DIRECT on data that was written before, and return what it says of each job.

    Args:
        arguments: its options, beside those that all runs share.
        descriptors: open files that it inherits, to be named as /proc/self/fd/NUMBER.

    Raises:
        FioError: it cannot be started, failed, did not end within a minute, or answered something else than its JSON.
    """
    command = ["fio", *_COMMON, *arguments]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            pass_fds=descriptors,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise FioError(f"fio did not end within {_TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise FioError(f"fio cannot be started: {error.strerror}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise FioError(said[-1] if said else f"fio ended with {done.returncode}")
    try:
        jobs: list[dict[str, Any]] = json.loads(done.stdout)["jobs"]
    except (ValueError, KeyError, TypeError) as error:
        raise FioError(f"fio answered no JSON of jobs: {done.stdout[:200]!r}") from error
    if not jobs:
        raise FioError("fio answered without a job")
    return jobs


def run_of(job: dict[str, Any]) -> FioRun:
    """Return a job's rate over the time that it read or wrote, and its CPU time. Raises FioError if it moved nothing."""
    try:
        seconds = job["job_runtime"] / 1e3
        moved = job["read"]["io_bytes"] + job["write"]["io_bytes"]
        busy = max(job["read"]["runtime"], job["write"]["runtime"], 1) / 1e3
        cpu_s = (job["usr_cpu"] + job["sys_cpu"]) / 100 * seconds
    except (KeyError, TypeError) as error:
        raise FioError(f"fio's answer lacks what is asked of it: {error}") from error
    if moved <= 0:
        raise FioError("fio moved no bytes")
    return FioRun(bytes_per_s=moved / busy, busy_s=busy, cpu_s=cpu_s)
