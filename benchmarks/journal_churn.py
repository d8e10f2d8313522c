"""The journal of a full tier whose blocks are overwritten again and again: how large it gets, and what keeping it small costs.

Names and checksums are recorded as the disk tier does it, without the blocks' bytes. A checkpoint is written, by a thread of its
own as in the cache, whenever the tier's rule asks for one. The files are on whatever `--dir` is.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from _harness import Row, report

from tiercel import _native
from tiercel.tiers.base import BlockLabels, BlockStatus
from tiercel.tiers.disk_options import DiskOptions
from tiercel.tiers.disk_records import BlockRecords

NUM_BLOCKS = 1_000_000
BLOCKS_A_WRITE = 256
CHECKPOINT_BYTES = DiskOptions.checkpoint_bytes
CHECKPOINT_BYTES_A_BLOCK = 64
RECOVERY_BOUND_S = 2.0


@dataclass
class Churn:
    """What was seen. Seconds, and bytes of all files of the journal."""

    write_s: list[float] = field(default_factory=list)
    write_beside_checkpoint_s: list[float] = field(default_factory=list)
    checkpoint_s: list[float] = field(default_factory=list)
    folder_bytes: list[int] = field(default_factory=list)
    journal_bytes: list[int] = field(default_factory=list)


def main() -> int:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="tiercel-benchmark-", dir=arguments.dir) as directory:
        records = BlockRecords(Path(directory), NUM_BLOCKS)
        records.recover()
        churn = overwrite(records, Path(directory), arguments.rounds)
        started = time.perf_counter()
        recovered = _native.replay_journal(directory, num_slots=NUM_BLOCKS)  # written over since the last checkpoint
        recovery_s = time.perf_counter() - started
        assert len(recovered.slots) == NUM_BLOCKS
        records.close()
    return report(rows_of(churn, recovery_s), arguments.json)


def overwrite(records: BlockRecords, folder: Path, rounds: int) -> Churn:
    """Fill the tier, overwrite it `rounds` times in random order, and go on until just before a checkpoint is due."""
    random = np.random.default_rng(1)
    churn = Churn()
    order = np.arange(NUM_BLOCKS, dtype=np.uint32)

    def checkpoint() -> None:
        started = time.perf_counter()
        records.checkpoint(random.permutation(NUM_BLOCKS).astype(np.uint32))
        churn.checkpoint_s.append(time.perf_counter() - started)

    with ThreadPoolExecutor(1) as pool:
        running: Future[None] | None = None
        for _ in range(rounds + 1):
            order[:] = random.permutation(NUM_BLOCKS)
            for at in range(0, NUM_BLOCKS, BLOCKS_A_WRITE):
                slots = order[at : at + BLOCKS_A_WRITE]
                beside = running is not None and not running.done()
                seconds = write(records, slots, random)
                (churn.write_beside_checkpoint_s if beside else churn.write_s).append(seconds)
                churn.journal_bytes.append(records.journal_bytes)
                if beside:
                    churn.folder_bytes.append(bytes_in(folder))
                if records.journal_bytes >= CHECKPOINT_BYTES and not beside:
                    running = pool.submit(checkpoint)
        if running is not None:
            running.result()
        for at in range(0, NUM_BLOCKS, BLOCKS_A_WRITE):
            if records.journal_bytes < CHECKPOINT_BYTES:
                write(records, order[at : at + BLOCKS_A_WRITE], random)
    return churn


def write(
    records: BlockRecords, slots: np.ndarray[tuple[int], np.dtype[np.uint32]], random: np.random.Generator
) -> float:
    labels = BlockLabels(parent=bytes(16), names=random.integers(0, 256, (len(slots), 16), dtype=np.uint8))
    checksums = random.integers(0, 2**63, len(slots), dtype=np.uint64)
    statuses = np.full(len(slots), BlockStatus.OK, np.uint8)
    started = time.perf_counter()
    records.forget(slots)
    records.flush_voids()
    records.record(slots, labels, checksums, statuses)
    return time.perf_counter() - started


def bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a checkpoint has just replaced it
            total += path.stat().st_size
    return total


def rows_of(churn: Churn, recovery_s: float) -> list[Row]:
    # The largest: a full checkpoint, the next one being written beside it, and the segments of both.
    folder_bound = 2 * (NUM_BLOCKS * CHECKPOINT_BYTES_A_BLOCK + CHECKPOINT_BYTES)
    return [
        Row(
            name="journal since checkpoint, largest",
            value=max(churn.journal_bytes) / 1e6,
            unit="MB",
            bound=2 * CHECKPOINT_BYTES / 1e6,
        ),
        Row(name="all files, largest", value=max(churn.folder_bytes) / 1e6, unit="MB", bound=folder_bound / 1e6),
        Row(
            name=f"checkpoint ({len(churn.checkpoint_s)} written)",
            value=statistics.median(churn.checkpoint_s),
            unit="s",
            spread=(min(churn.checkpoint_s), max(churn.checkpoint_s)),
        ),
        timing_row(f"record {BLOCKS_A_WRITE} blocks", churn.write_s),
        timing_row("the same while a checkpoint is written", churn.write_beside_checkpoint_s),
        Row(name="recovery just before a checkpoint", value=recovery_s, unit="s", bound=RECOVERY_BOUND_S),
    ]


def timing_row(name: str, seconds: list[float]) -> Row:
    milliseconds = [value * 1e3 for value in seconds]
    spread = (min(milliseconds), max(milliseconds))
    return Row(name=name, value=statistics.median(milliseconds), unit="ms", spread=spread)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=None, help="where the journal goes; removed afterwards")
    parser.add_argument("--rounds", type=int, default=4, metavar="N", help="how often the whole tier is overwritten")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the result as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
