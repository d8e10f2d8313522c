"""What the benchmarks share: the machine's description, calibration, measuring, and a table that holds rows to bounds.

A benchmark measures, builds `Row`s and ends with `sys.exit(report(rows, json_path))`. Timings on a shared machine vary
by two to three times, so each report carries a calibration of the same minute, and timings the thread's CPU time too.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

_CALIBRATION_BYTES = 1 << 20
_CALIBRATION_LOOKUPS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one call: by the clock, and of CPU in the calling thread."""

    median_s: float
    min_s: float
    max_s: float
    cpu_median_s: float
    cpu_min_s: float
    repeats: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured quantity. `bound` is what it is held against; None for rows that only inform."""

    name: str
    value: float
    unit: str
    bound: float | None = None
    higher_is_better: bool = False
    spread: tuple[float, float] | None = None
    count: int | None = None

    @property
    def verdict(self) -> str:
        if self.bound is None:
            return ""
        reached = self.value >= self.bound if self.higher_is_better else self.value <= self.bound
        return "reached" if reached else "NOT reached"


def measure(fn: Callable[[], object], repeats: int, *, setup: Callable[[], object] | None = None) -> Timing:
    """Call `fn` once to warm up and then `repeats` times, each after an untimed `setup`."""
    wall: list[float] = []
    cpu: list[float] = []
    for repeat in range(repeats + 1):
        if setup is not None:
            setup()
        cpu_start, start = time.thread_time(), time.perf_counter()
        fn()
        stop, cpu_stop = time.perf_counter(), time.thread_time()
        if repeat > 0:
            wall.append(stop - start)
            cpu.append(cpu_stop - cpu_start)
    return Timing(
        median_s=statistics.median(wall),
        min_s=min(wall),
        max_s=max(wall),
        cpu_median_s=statistics.median(cpu),
        cpu_min_s=min(cpu),
        repeats=repeats,
    )


def time_row(name: str, timing: Timing, *, unit: str, bound: float | None = None, per: int = 1) -> Row:
    """A row of a duration, in `unit` ("s", "ms", "us" or "ns") and divided by `per`, held to its median."""
    scale = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit] / per
    spread = (timing.min_s * scale, timing.max_s * scale)
    return Row(name=name, value=timing.median_s * scale, unit=unit, bound=bound, spread=spread)


def rate_row(name: str, timing: Timing, *, num_bytes: int, bound: float | None = None) -> Row:
    """A row of a rate in GB/s (10^9 bytes), higher being better, held to its median."""
    spread = (num_bytes / timing.max_s / 1e9, num_bytes / timing.min_s / 1e9)
    value = num_bytes / timing.median_s / 1e9
    return Row(name=name, value=value, unit="GB/s", bound=bound, higher_is_better=True, spread=spread)


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, kernel, Python and the commit that is measured ("+dirty" if files differ from it)."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "commit": _git_commit(),
    }


def calibrate() -> dict[str, float]:
    """How fast the machine is right now: a memcpy of 1 MiB in GB/s, and a million dict look-ups in ms."""
    source = np.ones(_CALIBRATION_BYTES, np.uint8)
    target = np.zeros_like(source)
    copy = measure(lambda: np.copyto(target, source), 200)
    table = {number: number for number in range(1000)}
    keys = list(range(1000)) * (_CALIBRATION_LOOKUPS // 1000)

    def look_up() -> None:
        for key in keys:
            table[key]

    lookups = measure(look_up, 5)
    return {
        "memcpy_1mib_gb_per_s": _CALIBRATION_BYTES / copy.median_s / 1e9,
        "dict_lookups_1e6_ms": lookups.median_s * 1e3,
    }


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of the arguments of every benchmark: `--json FILE` and `--repeats N` (None: the benchmark's own choice)."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the result as JSON")
    parser.add_argument("--repeats", type=int, default=None, metavar="N", help="repeats of every measurement")
    return parser


def parse_arguments(description: str | None) -> argparse.Namespace:
    """The arguments of a benchmark that has none of its own."""
    return make_parser(description).parse_args()


def report(
    rows: Sequence[Row],
    json_path: Path | None = None,
    *,
    machine: dict[str, Any] | None = None,
    details: dict[str, Any] | None = None,
) -> int:
    """Print machine, calibration and rows, each with its bound and whether it is reached; write them to `json_path`.

    Args:
        machine: What to say of the machine; None for what `describe_machine` finds.
        details: What else goes into the file, beside the rows.

    Returns the number of bounds not reached, for use as exit status.
    """
    machine, calibration = machine or describe_machine(), calibrate()
    for name, value in machine.items():
        print(f"# {name}: {value}")
    for name, value in calibration.items():
        print(f"# {name}: {value:.3g}")
    width = max(len(row.name) for row in rows)
    print(f"{'':{width}} {'median':>10} {'min .. max':>21} {'bound':>9} {'unit':5}")
    for row in rows:
        spread = "" if row.spread is None else f"{row.spread[0]:.3g} .. {row.spread[1]:.3g}"
        bound = "" if row.bound is None else f"{'>=' if row.higher_is_better else '<='} {row.bound:g}"
        count = "" if row.count is None else f"n={row.count}"
        print(
            f"{row.name:{width}} {row.value:>10.4g} {spread:>21} {bound:>9} {row.unit:5} {count:5} {row.verdict}".rstrip()
        )
    if json_path is not None:
        result = {
            "machine": machine,
            "calibration": calibration,
            "rows": [asdict(row) | {"verdict": row.verdict} for row in rows],
            **(details or {}),
        }
        json_path.write_text(json.dumps(result, indent=2) + "\n")
    return sum(row.verdict == "NOT reached" for row in rows)


def _git_commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+dirty" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
