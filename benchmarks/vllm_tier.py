"""Tiercel's tier against vLLM's own fs tier, behind vLLM's own tiering manager's interface, on one disk, in turns.

    store     jobs of 16 chunks from vLLM's shared mapping until every one is reported; new chunks each time
    load      the same chunks back into the mapping, after the page cache was asked to forget the files
    lookup    CPU a stored chunk: of the first answer, and until it is hit or miss (the fs tier asks for a retry while a thread
              looks for the file; Tiercel's first answer is the last)

Both write with O_DIRECT and neither waits for the device's cache. Tiercel computes and verifies a checksum of each chunk and
keeps a journal; the fs tier does neither. A ratio's row is the median over pairs of Tiercel's rate divided by the fs tier's
next to it.

Needs vLLM 0.32 or newer in the environment.  python benchmarks/vllm_tier.py --dir /mnt/nvme [--bytes 536870912] [--repeats 7]
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from _harness import Row, make_parser, report

from tests.connectors.vllm_tier.driver import Driver, keys_of, make_config

CHUNKS = (256 << 10, 2 << 20, 8 << 20)
JOB_CHUNKS = 16
LOOKUPS = 512
PAUSE_S = 0.2


@dataclass(kw_only=True)
class Sides:
    """Rates in bytes a second, or seconds, of one quantity."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    def rows(self, name: str, unit: str, scale: float, bound: float | None) -> list[Row]:
        higher = unit == "GB/s"
        ratios = [a / b for a, b in zip(self.ours, self.theirs, strict=True)]
        return [
            _row(f"{name}: Tiercel / vLLM fs", ratios, "", bound, higher),
            _row(f"{name}: Tiercel", [value * scale for value in self.ours], unit, None, higher),
            _row(f"{name}: vLLM fs", [value * scale for value in self.theirs], unit, None, higher),
        ]


def _row(name: str, values: list[float], unit: str, bound: float | None, higher: bool) -> Row:
    spread = (min(values), max(values))
    return Row(
        name=name, value=statistics.median(values), unit=unit, bound=bound, higher_is_better=higher, spread=spread
    )


class Side:
    """One tier under test, over a mapping of its own."""

    def __init__(self, name: str, tier_type: str, settings: dict[str, Any], chunk_bytes: int, num_chunks: int) -> None:
        config = make_config(
            f"bench-{os.getpid()}-{name}", settings, chunks=num_chunks, chunk_bytes=chunk_bytes, tier_type=tier_type
        )
        self.driver = Driver(config)
        self.num_chunks = num_chunks
        self.memory = np.asarray(self.driver.view).view(np.uint8)
        self.memory[:] = np.random.default_rng(1).integers(0, 256, self.memory.shape, np.uint8)
        self.sums = self.memory[:, ::4096].copy()

    def run(self, name: str, *, loading: bool) -> float:
        """Bytes a second of all chunks in jobs that are submitted at once."""
        from vllm.v1.kv_offload.tiering.base import TransferJob

        tier, keys, context = self.driver.tier, keys_of(name, self.num_chunks), self.driver.request(name)
        if loading:
            self.memory[:] = 0
        started, waiting = time.perf_counter(), 0
        for at in range(0, self.num_chunks, JOB_CHUNKS):
            ids = np.arange(at, min(at + JOB_CHUNKS, self.num_chunks), dtype=np.int32)
            job = TransferJob(
                job_id=at, keys=keys[at : at + JOB_CHUNKS], chunk_ids=ids, is_promotion=loading, req_context=context
            )
            (tier.submit_load if loading else tier.submit_store)(job)
            waiting += 1
        while waiting:
            for result in tier.get_finished_jobs():
                assert result.success, f"a job of {name} failed"
                waiting -= 1
            time.sleep(0.0002)
        seconds = time.perf_counter() - started
        if loading:
            assert (self.memory[:, ::4096] == self.sums).all(), "wrong bytes"
        self.driver.finish(context)
        return self.memory.nbytes / seconds

    def lookup_seconds(self, name: str, *, settled: bool) -> float:
        """The process's CPU seconds a chunk of lookups of stored chunks; settled: until each is an answer."""
        from vllm.v1.kv_offload.base import LookupResult, ScheduleEndContext

        tier, keys = self.driver.tier, keys_of(name, self.num_chunks)
        end = ScheduleEndContext(new_req_ids=(), preempted_req_ids=())
        seconds, count = 0.0, 0
        while count < LOOKUPS:
            context = self.driver.request(f"lookup{count}")
            started = time.process_time()
            waiting = [key for key in keys if tier.lookup(key, context) is LookupResult.RETRY]
            while waiting and settled:
                tier.on_schedule_end(end)
                time.sleep(0.0001)  # as an engine's step would: the thread that looks must run
                waiting = [key for key in waiting if tier.lookup(key, context) is LookupResult.RETRY]
            seconds += time.process_time() - started
            count += len(keys)
            tier.on_schedule_end(end)
            self.driver.finish(context)
        return seconds / count


def main() -> int:
    arguments = parse_arguments()
    rows: list[Row] = []
    for chunk_bytes in CHUNKS:
        with tempfile.TemporaryDirectory(prefix="tiercel-benchmark-", dir=arguments.dir) as folder:
            rows += compare(Path(folder), chunk_bytes, arguments.bytes // chunk_bytes, arguments.repeats or 7)
    return report(rows, arguments.json)


def compare(folder: Path, chunk_bytes: int, num_chunks: int, repeats: int) -> list[Row]:
    ours = Side("tiercel", "TiercelTier", {"ssd_cache_dir": str(folder / "t"), "num_ssd_blocks": 2 * num_chunks},
                chunk_bytes, num_chunks)  # fmt: skip
    theirs = Side("fs", "fs", {"root_dir": str(folder / "f")}, chunk_bytes, num_chunks)
    stores, loads, answers, settled = Sides(), Sides(), Sides(), Sides()
    try:
        for repeat in range(repeats + 2):  # the first rounds fill the preallocated files
            name = f"r{repeat}"
            rates: dict[Side, tuple[float, float, float, float]] = {}
            for side in (ours, theirs) if repeat % 2 else (theirs, ours):
                time.sleep(PAUSE_S)
                stored = side.run(name, loading=False)
                time.sleep(PAUSE_S)
                loaded = side.run(name, loading=True)
                rates[side] = (
                    stored, loaded, side.lookup_seconds(name, settled=False), side.lookup_seconds(name, settled=True)
                )  # fmt: skip
            if repeat >= 2:
                for sides, own, other in zip(
                    (stores, loads, answers, settled), rates[ours], rates[theirs], strict=True
                ):
                    sides.ours.append(own)
                    sides.theirs.append(other)
            for path in (folder / "f").rglob("*.bin"):
                path.unlink()
    finally:
        for side in (ours, theirs):
            del side.memory
            side.driver.shutdown()
    size = f"{chunk_bytes >> 10} KiB"
    return [
        *stores.rows(f"store, {size}", "GB/s", 1e-9, 1.0),
        *loads.rows(f"load, {size}", "GB/s", 1e-9, 1.0),
        *answers.rows(f"lookup's first answer (CPU), {size}", "us", 1e6, None),
        *settled.rows(f"lookup settled (CPU), {size}", "us", 1e6, 1.0),
    ]


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="a directory on the disk to measure")
    parser.add_argument("--bytes", type=int, default=512 << 20, help="bytes of each pass")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
