"""Disk tier against fio: the same file, block size, queue depth and order, in interleaved rounds of one run.

Tiercel's side is `DiskTier.read` and `write` in calls of 128 MiB, checksums included. The file is written before it is
read. Each row is the median over rounds of Tiercel's rate divided by fio's in the same round.

    python benchmarks/disk.py --dir /mnt/nvme [--random] [--bytes 1073741824]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from _harness import Row, report

from tiercel.tiers.base import BlockLabels, BlockStatus, Slots
from tiercel.tiers.disk import DiskTier
from tiercel.tiers.disk_options import DiskOptions
from tiercel.tiers.memory import ContiguousMemory, allocate_memory, bytes_view

BLOCK_SIZES = {4 << 20: 0.95, 1 << 20: 0.95, 256 << 10: 0.90, 64 << 10: None}
CALL_BYTES = 128 << 20
QUEUE_DEPTH = 32
FINGERPRINT = b"benchmark".ljust(32, b"\0")


@dataclass(kw_only=True)
class Rates:
    """Bytes per second of each round."""

    tiercel: list[float] = field(default_factory=list)
    fio: list[float] = field(default_factory=list)


def main() -> int:
    arguments = parse_arguments()
    rows: list[Row] = []
    for block_bytes, bound in BLOCK_SIZES.items():
        with tempfile.TemporaryDirectory(prefix="tiercel-benchmark-", dir=arguments.dir) as directory:
            rates = measure_block_size(Path(directory), block_bytes, arguments)
        for direction, measured in rates.items():
            name = f"{direction} {block_bytes >> 10} KiB"
            rows.append(ratio_row(f"{name}: Tiercel / fio", measured, bound))
            rows.append(rate_row(f"{name}: Tiercel", measured.tiercel))
            rows.append(rate_row(f"{name}: fio", measured.fio))
    return report(rows, arguments.json)


def measure_block_size(directory: Path, block_bytes: int, arguments: argparse.Namespace) -> dict[str, Rates]:
    num_slots = arguments.bytes // block_bytes
    options = DiskOptions(
        directories=[directory],
        fingerprint=FINGERPRINT,
        num_slots=num_slots,
        block_bytes=block_bytes,
        queue_depth=QUEUE_DEPTH,
    )
    tier = DiskTier.open(options)
    print(f"# {block_bytes >> 10} KiB: {tier.engine}, direct {tier.direct}", file=sys.stderr)
    memory = random_memory(min(num_slots, CALL_BYTES // block_bytes), block_bytes)
    slots = np.arange(num_slots, dtype=np.uint32)
    if arguments.random:
        slots = np.random.default_rng(1).permutation(slots)
    rates = {"write": Rates(), "read": Rates()}

    def tiercel_round() -> None:
        rates["write"].tiercel.append(write_all(tier, slots, memory))
        rates["read"].tiercel.append(read_all(tier, slots, memory))

    def fio_round() -> None:
        (path,) = directory.glob("*/data-0.bin")
        for direction, rate in rates.items():
            rate.fio.append(run_fio(path, direction, block_bytes, arguments))

    write_all(tier, slots, memory)
    for turn in range(arguments.repeats):
        for side in (tiercel_round, fio_round)[:: 1 if turn % 2 == 0 else -1]:
            side()
    tier.close()
    return rates


def write_all(tier: DiskTier, slots: Slots, memory: ContiguousMemory) -> float:
    tier.reserve(slots)
    names = np.random.default_rng(2).integers(0, 256, (len(slots), 16), dtype=np.uint8)
    started = time.perf_counter()
    for start in range(0, len(slots), memory.num_blocks):
        part = slice(start, min(len(slots), start + memory.num_blocks))
        labels = BlockLabels(parent=bytes(16), names=names[part])
        statuses = tier.write(slots[part], memory.slice(0, part.stop - part.start), labels)
        assert (statuses == BlockStatus.OK).all()
    return len(slots) * tier.block_bytes / (time.perf_counter() - started)


def read_all(tier: DiskTier, slots: Slots, memory: ContiguousMemory) -> float:
    started = time.perf_counter()
    for start in range(0, len(slots), memory.num_blocks):
        part = slice(start, min(len(slots), start + memory.num_blocks))
        statuses = tier.read(slots[part], memory.slice(0, part.stop - part.start))
        assert (statuses == BlockStatus.OK).all()
    return len(slots) * tier.block_bytes / (time.perf_counter() - started)


def run_fio(path: Path, direction: str, block_bytes: int, arguments: argparse.Namespace) -> float:
    command = [
        "fio",
        "--name=tiercel",
        f"--filename={path}",
        f"--rw={'rand' if arguments.random else ''}{direction}",
        f"--bs={block_bytes}",
        f"--size={arguments.bytes}",
        f"--iodepth={QUEUE_DEPTH}",
        "--ioengine=io_uring",
        "--direct=1",
        "--overwrite=1",
        "--fallocate=none",
        "--output-format=json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["jobs"][0][direction]["bw_bytes"])


def random_memory(num_blocks: int, block_bytes: int) -> ContiguousMemory:
    memory = allocate_memory(num_blocks, block_bytes)
    random = np.random.default_rng(3)
    for block in range(num_blocks):
        bytes_view(memory, block, block_bytes)[:] = random.bytes(block_bytes)
    return memory


def ratio_row(name: str, rates: Rates, bound: float | None) -> Row:
    ratios = [ours / theirs for ours, theirs in zip(rates.tiercel, rates.fio, strict=True)]
    return Row(
        name=name,
        value=statistics.median(ratios),
        unit="",
        bound=bound,
        higher_is_better=True,
        spread=(min(ratios), max(ratios)),
    )


def rate_row(name: str, rates: Sequence[float]) -> Row:
    values = [rate / 1e9 for rate in rates]
    return Row(name=name, value=statistics.median(values), unit="GB/s", spread=(min(values), max(values)))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="where the files go; removed afterwards")
    parser.add_argument("--bytes", type=int, default=1 << 30, help="size of the file")
    parser.add_argument("--random", action="store_true", help="slots in random order, so that nothing is merged")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="rounds of both sides")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the result as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
