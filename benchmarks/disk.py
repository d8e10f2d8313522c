"""The disk tier against the faster of fio's two ways: same file, block size, depth and order, on written data, taking turns.

    block files     calls of one transfer chunk (32 MiB), two at a time, as a transfer lane makes them; checksums included
    end to end      host tier to disk tier and back, through the transfer engine, journal included
    reads beside    one block at a time, 2 ms apart, while the lanes write: p99, with reads put first and without

fio runs as it comes and with registered buffers. A rate's row is the median over rounds of Tiercel's rate divided by that of the
run next to it of the way whose median is higher, and names it: a shared disk's speed drifts by two times. Who begins a round
changes. Each run starts after a pause, because fio's own start is one, and a disk with a rate limit gains from it.

    python benchmarks/disk.py --dir /mnt/nvme [--bytes 4294967296] [--repeats 9]
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from _disk_sides import EndToEnd, Files, cpu_s_of
from _fio import read_latencies_beside_writes, run_fio, usable_ways
from _harness import Row, report

BOUNDS = {64 << 10: None, 256 << 10: 0.90, 1 << 20: 0.95, 4 << 20: 0.95, 8 << 20: 0.95}
MIXED = (64 << 10, 1 << 20, 8 << 20)
PAUSE_S = 0.3
END_TO_END_BLOCK_BYTES = 1 << 20
LATENCY_BLOCK_BYTES = 1 << 20
LATENCY_SECONDS = 2
LATENCY_PAUSE_S = 0.002
QUEUE_DEPTH = 32
OURS = "Tiercel"


@dataclass(kw_only=True)
class Rounds:
    """One workload's rounds by side: rates in bytes a second, CPU in seconds a GiB."""

    rates: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    cpu: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, side: str, rate: float, cpu_s_per_gib: float) -> None:
        self.rates[side].append(rate)
        self.cpu[side].append(cpu_s_per_gib)

    def rows(self, name: str, bound: float | None) -> list[Row]:
        way = max(self.rates.keys() - {OURS}, key=lambda side: statistics.median(self.rates[side]))
        ratios = [ours / fio for ours, fio in zip(self.rates[OURS], self.rates[way], strict=True)]
        rows = [median_row(f"{name}: {OURS} / {way}, the faster way", ratios, "", bound, higher_is_better=True)]
        for side, rates in self.rates.items():
            rows.append(median_row(f"{name}: {side}", [rate / 1e9 for rate in rates], "GB/s"))
            rows.append(median_row(f"{name}: {side}, CPU", self.cpu[side], "s/GiB"))
        return rows


def main() -> int:
    arguments = parse_arguments()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="tiercel-benchmark-", dir=arguments.dir) as directory:
        for block_bytes, bound in BOUNDS.items():
            files = Files(
                Path(directory, "blocks"), block_bytes=block_bytes, num_bytes=arguments.bytes, queue_depth=QUEUE_DEPTH
            )
            for workload in ("read", "write", "mixed") if block_bytes in MIXED else ("read", "write"):
                rounds = measure(files, workload, block_bytes, arguments)
                rows += rounds.rows(f"{workload} {block_bytes >> 10} KiB", None if workload == "mixed" else bound)
            files.close()
        rows += latency_rows(Path(directory, "blocks"), arguments)
        rows += end_to_end_rows(Path(directory), arguments)
    return report(rows, arguments.json)


def measure(side: Files | EndToEnd, workload: str, block_bytes: int, arguments: argparse.Namespace) -> Rounds:
    gib = arguments.bytes / 2**30
    run = {"block_bytes": block_bytes, "num_bytes": arguments.bytes, "queue_depth": QUEUE_DEPTH}
    sides = [OURS, *usable_ways(side.path, **run)]
    rounds = Rounds()
    side.run(workload)  # memory is registered when it is first used
    for number in range(arguments.repeats):
        for name in sides[number % len(sides) :] + sides[: number % len(sides)]:
            time.sleep(PAUSE_S)
            if name == OURS:
                rate, cpu_s = cpu_s_of(lambda: side.run(workload))
            else:
                fio = run_fio(side.path, workload, name, **run)
                rate, cpu_s = fio.bytes_per_s, fio.cpu_s
                if workload == "mixed":
                    side.run("write")  # so that checksums hold again
            rounds.add(name, rate, cpu_s / gib)
    side.run("write")
    return rounds


def latency_rows(path: Path, arguments: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    for name, reads_first in (("reads first", True), ("as they come", False)):
        files = Files(
            path,
            block_bytes=LATENCY_BLOCK_BYTES,
            reads_first=reads_first,
            num_bytes=arguments.bytes,
            queue_depth=QUEUE_DEPTH,
        )
        latencies, written = files.read_latencies_beside_writes(seconds=LATENCY_SECONDS, pause_s=LATENCY_PAUSE_S)
        files.close()
        for percent in (50, 99):
            value = float(np.percentile(latencies, percent)) * 1e3
            rows.append(Row(name=f"read 1 MiB beside writes, {name}: p{percent}", value=value, unit="ms"))
        rows.append(Row(name=f"writes beside reads, {name}", value=written / 1e9, unit="GB/s"))
    p50_s, p99_s = read_latencies_beside_writes(
        path,
        block_bytes=LATENCY_BLOCK_BYTES,
        seconds=LATENCY_SECONDS,
        pause_s=LATENCY_PAUSE_S,
        num_bytes=arguments.bytes,
        queue_depth=QUEUE_DEPTH,
    )
    rows.append(Row(name="read 1 MiB beside writes, fio: p50", value=p50_s * 1e3, unit="ms"))
    rows.append(Row(name="read 1 MiB beside writes, fio: p99", value=p99_s * 1e3, unit="ms"))
    return rows


def end_to_end_rows(directory: Path, arguments: argparse.Namespace) -> list[Row]:
    side = EndToEnd(directory, block_bytes=END_TO_END_BLOCK_BYTES, num_bytes=arguments.bytes, queue_depth=QUEUE_DEPTH)
    rows: list[Row] = []
    for workload in ("read", "write"):
        rounds = measure(side, workload, END_TO_END_BLOCK_BYTES, arguments)
        rows += rounds.rows(f"end to end, {workload} {END_TO_END_BLOCK_BYTES >> 10} KiB", 0.95)
    side.close()
    return rows


def median_row(
    name: str, values: list[float], unit: str, bound: float | None = None, *, higher_is_better: bool = False
) -> Row:
    return Row(
        name=name,
        value=statistics.median(values),
        unit=unit,
        bound=bound,
        higher_is_better=higher_is_better,
        spread=(min(values), max(values)),
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="where the files go; removed afterwards")
    parser.add_argument("--bytes", type=int, default=256 << 20, help="size of the file")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="rounds of each measurement")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the result as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
