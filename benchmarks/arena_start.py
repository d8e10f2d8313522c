"""How long until the host tier's arena is resident, by threads, with huge pages and without?

Each row makes an arena of its own and prefaults it as the cache does when it opens. "cores" is the CPU time taken by the
wall time: on a shared machine it says whether threads that brought nothing had a core to run on.

    python benchmarks/arena_start.py [--gib 4]
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from _harness import Row, make_parser, report

from tiercel.tiers.host import HostTier

BLOCK_BYTES = 2 << 20


@dataclass(frozen=True, kw_only=True)
class Start:
    """One prefault: wall and CPU seconds, what became resident, how often progress was told, and the kind of pages."""

    seconds: float
    cpu_s: float
    resident_bytes: int
    num_reports: int
    huge: bool


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--gib", type=float, default=4.0, help="size of the arena")
    arguments = parser.parse_args()
    num_blocks = max(1, int(arguments.gib * 2**30) // BLOCK_BYTES)
    repeats = arguments.repeats or 3
    rows: list[Row] = []
    for hugepages in (True, False):
        for num_threads in thread_counts():
            starts = [start_arena(num_blocks, num_threads, hugepages=hugepages) for _ in range(repeats)]
            if hugepages and not starts[0].huge:
                print("# huge pages: none reserved, and shared memory gets no transparent ones; asked for in vain")
                break
            rows += rows_of(f"{num_threads} threads, {'huge' if hugepages else 'small'} pages", starts, num_blocks)
    return report(rows, arguments.json)


def thread_counts() -> list[int]:
    """1, 2, 4 .. and the number of cores."""
    cores = len(os.sched_getaffinity(0))
    return sorted({cores, *(1 << power for power in range(cores.bit_length()) if 1 << power <= cores)})


def start_arena(num_blocks: int, num_threads: int, *, hugepages: bool) -> Start:
    """Make an arena, prefault it, and let go of it."""
    host = HostTier(num_slots=num_blocks, block_bytes=BLOCK_BYTES, hugepages=hugepages)
    reports: list[tuple[int, int]] = []
    resident_before = resident_bytes()
    cpu_before, before = time.process_time(), time.perf_counter()
    host.prefault(num_threads, lambda done, total: reports.append((done, total)))
    seconds, cpu_s = time.perf_counter() - before, time.process_time() - cpu_before
    resident = resident_bytes() - resident_before
    huge = host.arena.huge
    host.close()
    total = num_blocks * BLOCK_BYTES
    assert reports == sorted(reports), "progress goes up"
    assert reports[-1] == (total, total), "and to the end"
    return Start(seconds=seconds, cpu_s=cpu_s, resident_bytes=resident, num_reports=len(reports), huge=huge)


def rows_of(name: str, starts: list[Start], num_blocks: int) -> list[Row]:
    gib = num_blocks * BLOCK_BYTES / 2**30

    def row(what: str, unit: str, value_of: Callable[[Start], float]) -> Row:
        values = [value_of(start) for start in starts]
        spread = (min(values), max(values))
        return Row(name=f"{name}: {what}", value=statistics.median(values), unit=unit, spread=spread)

    return [
        row("time", "s", lambda start: start.seconds),
        row("rate", "GiB/s", lambda start: gib / start.seconds),
        row("cores", "", lambda start: start.cpu_s / start.seconds),
        row("resident", "GiB", lambda start: start.resident_bytes / 2**30),
        row("progress reports", "", lambda start: start.num_reports),
    ]


def resident_bytes() -> int:
    """This process's resident memory, huge pages that were reserved included."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return sum(int(fields.get(name, "0 kB").split()[0]) << 10 for name in ("VmRSS", "HugetlbPages"))


if __name__ == "__main__":
    sys.exit(main())
