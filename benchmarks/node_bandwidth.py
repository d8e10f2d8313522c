"""How much of the memory's and of the disk's bandwidth do eight clients of one node get together?

Each client is a process with blocks of its own, 256 KiB each, stored before anything is timed; then all load for the same few
seconds. In memory they are held against eight processes that copy as many pieces of the same length with no node between
them, loading 32, 128 and 512 MiB at a time; from disk (no host tier) against fio, which reads pieces of 1 MiB of written data, 32
in flight, and against one cache in process. Turn by turn, so that all meet the same machine; `fairness` is the slowest
client's part of the fastest's.

    python benchmarks/node_bandwidth.py [--dir FOLDER] [--json FILE] [--repeats N]
"""

import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
from _fio import run_fio
from _harness import Row, make_parser, report

from tiercel import Cache, CacheConfig, EngineMemory, ModelConfig, NodeClient, connect
from tiercel._native import Arena, copy_blocks
from tiercel.layout import BlockGeometry
from tiercel.node.endpoint import parse_endpoint
from tiercel.node.server import NodeServer

MODEL = ModelConfig(num_layers=8, num_kv_heads=4, head_size=128, dtype="bfloat16", model_id="node-bandwidth")
BLOCK_BYTES = 2 * 8 * 4 * 128 * 2 * 16
NUM_CLIENTS = 8
NUM_BLOCKS, IN_MEMORY = 128, (128, 512, 2048)
"""Of each client, and of a load: 32 MiB, and in memory 128 and 512 MiB, too; 4,096 tokens of a model of 8B are 512 MiB."""
SECONDS = 2.0
SHARE = 0.9
_START_S = 120.0
_SPAWN = multiprocessing.get_context("spawn")


def engine_memory(geometry: BlockGeometry, num_blocks: int) -> EngineMemory:
    shape = (num_blocks, geometry.tokens_per_block, 4, 128)
    arrays = [np.ones(shape, np.uint16) for _ in range(16)]
    return EngineMemory.from_arrays(geometry, arrays[:8], arrays[8:], axes="block token head dim")


def repeat(step: Callable[[], object], num_blocks: int, ready: Barrier, rates: "multiprocessing.Queue[float]") -> None:
    """Run steps of so many blocks until the time is over; tell bytes a second."""
    step()
    ready.wait(_START_S)
    started = time.perf_counter()
    count = 0
    while time.perf_counter() - started < SECONDS:
        step()
        count += 1
    rates.put(count * num_blocks * BLOCK_BYTES / (time.perf_counter() - started))


def load_through(cache: Cache | NodeClient, seed: int, num_blocks: int = NUM_BLOCKS) -> Callable[[], object]:
    """Store a sequence of its own; a step loads it."""
    tokens = np.random.default_rng(seed).integers(0, 50_000, 16 * num_blocks, dtype=np.int32)
    blocks = engine_memory(cache.geometry, num_blocks).blocks(np.arange(num_blocks))
    sequence = cache.sequence(tokens)
    cache.store(sequence, blocks).wait(60)

    def step() -> None:
        if cache.load(sequence, blocks).wait(60).num_blocks_ok < num_blocks:
            raise AssertionError("a client did not get its own blocks back")

    return step


def be_client(endpoint: str, num_blocks: int, seed: int, ready: Barrier, rates: "multiprocessing.Queue[float]") -> None:
    with connect(endpoint, name=f"client {seed}", wait_s=60) as client:
        repeat(load_through(client, seed, num_blocks), num_blocks, ready, rates)


def be_copier(num_blocks: int, seed: int, ready: Barrier, rates: "multiprocessing.Queue[float]") -> None:
    """Copy blocks out of a memory of its own, each piece as a client's load does it: a run for each layer and K or V."""
    num_bytes = num_blocks * BLOCK_BYTES
    arena, target = Arena(num_bytes, hugepages=True), Arena(num_bytes, hugepages=True)
    arena.prefault(0, num_bytes)
    target.prefault(0, num_bytes)
    piece = BLOCK_BYTES // 16
    order = np.random.default_rng(seed).permutation(num_blocks * 16).astype(np.uint64) * np.uint64(piece)
    runs = np.arange(num_blocks * 16, dtype=np.uint64) * np.uint64(piece)
    repeat(
        lambda: copy_blocks(runs + np.uint64(arena.address), order + np.uint64(target.address), piece, 2),
        num_blocks,
        ready,
        rates,
    )


def together(target: Callable[..., None], *arguments: object) -> list[float]:
    """Run as many processes as there are clients; returns what each reached."""
    ready, rates = _SPAWN.Barrier(NUM_CLIENTS), _SPAWN.Queue()
    processes = [
        _SPAWN.Process(target=target, args=(*arguments, seed, ready, rates), daemon=True) for seed in range(NUM_CLIENTS)
    ]
    for process in processes:
        process.start()
    reached = [rates.get(timeout=_START_S + 60) for _ in processes]
    for process in processes:
        process.join()
    return reached


def through_node(config: CacheConfig, num_blocks: int = NUM_BLOCKS) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        endpoint = f"ipc://{folder}/node"
        with NodeServer(MODEL, config, parse_endpoint(endpoint)):
            return together(be_client, endpoint, num_blocks)


def in_process(config: CacheConfig) -> float:
    rates: multiprocessing.Queue[float] = _SPAWN.Queue()
    with Cache.open(MODEL, config) as cache:
        repeat(load_through(cache, 0), NUM_BLOCKS, _SPAWN.Barrier(1), rates)
    return rates.get(timeout=10)


def rows_of(name: str, node: list[list[float]], others: dict[str, list[float]], against: str) -> list[Row]:
    sums = [sum(reached) for reached in node]
    share = [ours / theirs for ours, theirs in zip(sums, others[against], strict=True)]
    return [
        _row(f"{name}: {NUM_CLIENTS} clients of a node", [value / 1e9 for value in sums], "GB/s"),
        *(_row(f"{name}: {other}", [value / 1e9 for value in values], "GB/s") for other, values in others.items()),
        _row(f"{name}: clients of {against}", share, "", SHARE),
        _row(f"{name}: fairness", [min(reached) / max(reached) for reached in node], ""),
    ]


def _row(name: str, values: list[float], unit: str, bound: float | None = None) -> Row:
    return Row(
        name=name,
        value=statistics.median(values),
        unit=unit,
        bound=bound,
        higher_is_better=True,
        spread=(min(values), max(values)),
        count=len(values),
    )


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--dir", type=Path, default=None, help="where the disk tier lies; by default a temporary folder"
    )
    arguments = parser.parse_args()
    repeats = arguments.repeats or 3
    room = 2 * NUM_CLIENTS * NUM_BLOCKS
    copies = "eight processes without a node"
    memory: dict[int, list[list[float]]] = {size: [] for size in IN_MEMORY}
    disk: list[list[float]] = []
    beside: dict[int, dict[str, list[float]]] = {size: {copies: []} for size in memory}
    under: dict[str, list[float]] = {"fio": [], "one cache in process": []}
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        on_disk = CacheConfig(
            enable_cpu=False,
            enable_ssd=True,
            num_ssd_blocks=room,
            ssd_cache_dir=f"{folder}/cache",
            load_policy="always",
        )
        written = Path(folder, "fio")
        run_fio(written, "write", block_bytes=1 << 20, num_bytes=1 << 28, queue_depth=32)
        for _ in range(repeats):
            for size, reached in memory.items():
                in_memory = CacheConfig(num_cpu_blocks=NUM_CLIENTS * size + NUM_BLOCKS, load_policy="always")
                reached.append(through_node(in_memory, size))
                beside[size][copies].append(sum(together(be_copier, size)))
            disk.append(through_node(on_disk))
            run = run_fio(written, "read", block_bytes=1 << 20, num_bytes=1 << 28, queue_depth=32)
            under["fio"].append(run.bytes_per_s)
            under["one cache in process"].append(in_process(on_disk))
    rows = rows_of("disk", disk, under, "fio")
    for size, reached in memory.items():
        rows += rows_of(f"memory, {size * BLOCK_BYTES >> 20} MiB at a time", reached, beside[size], copies)
    return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
