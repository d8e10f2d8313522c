"""What does a node cost while nobody asks it anything, and what do its clients?

A node process with a host and a disk tier, as `tiercel node` runs it, and two client processes that have stored and loaded a
prompt and then sleep. For each process: its CPU time, all threads, over what the clock says, in windows one behind another.
"""

import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
from _harness import Row, make_parser, report

import tiercel
from tiercel import CacheConfig, EngineMemory, ModelConfig
from tiercel.node.endpoint import LocalEndpoint
from tiercel.node.server.starting import start_node

BOUND_PERCENT = 0.5
NUM_CLIENTS = 2
NUM_BLOCKS = 16
WINDOW_S = 6.0
SETTLE_S = 3.0
"""After the last load: journals are synced, connections are quiet."""

MODEL = ModelConfig(model_id="idle", num_layers=2, num_kv_heads=2, head_size=64, dtype="float16")
_SPAWN = multiprocessing.get_context("spawn")


def cpu_s(process: int) -> float:
    """CPU seconds that a process has used, all its threads; to the nanosecond (clock_getcpuclockid(3) makes this number)."""
    return time.clock_gettime((~process << 3) | 2)


def be_client(endpoint: str, number: int, ready: Event, over: Event) -> None:
    """Store a prompt, load it, and sleep."""
    with tiercel.connect(endpoint, name=f"idle-{number}") as cache:
        shape = (NUM_BLOCKS, cache.geometry.tokens_per_block, MODEL.num_kv_heads, MODEL.head_size)
        keys, values = ([np.zeros(shape, np.uint16) for _ in range(MODEL.num_layers)] for _ in range(2))
        memory = EngineMemory.from_arrays(cache.geometry, keys, values, axes="block token head dim")
        prompt = np.random.default_rng(number).integers(0, 1000, shape[0] * shape[1], np.int32)
        sequence = cache.sequence(prompt)
        blocks = memory.blocks(range(NUM_BLOCKS))
        assert cache.store(sequence, blocks).wait(10.0).num_blocks_ok == NUM_BLOCKS
        assert cache.load(sequence, blocks).wait(10.0).num_blocks_ok == NUM_BLOCKS
        ready.set()
        over.wait()


def shares_percent(processes: list[int], num_windows: int) -> list[list[float]]:
    """Of a core, by process and window."""
    shares: list[list[float]] = [[] for _ in processes]
    for _ in range(num_windows):
        began, before = time.perf_counter(), [cpu_s(process) for process in processes]
        time.sleep(WINDOW_S)
        seconds = time.perf_counter() - began
        for share, process, used in zip(shares, processes, before, strict=True):
            share.append(100 * (cpu_s(process) - used) / seconds)
    return shares


def measure(folder: Path, num_windows: int) -> list[Row]:
    endpoint = LocalEndpoint(folder / "node")
    settings = CacheConfig(
        num_cpu_blocks=256,
        enable_ssd=True,
        num_ssd_blocks=1024,
        ssd_cache_dir=str(folder / "disk"),
        load_policy="always",
    )
    node = start_node(MODEL, settings, endpoint)
    over = _SPAWN.Event()
    readies = [_SPAWN.Event() for _ in range(NUM_CLIENTS)]
    clients = [
        _SPAWN.Process(target=be_client, args=(str(endpoint), number, ready, over))
        for number, ready in enumerate(readies)
    ]
    try:
        for client in clients:
            client.start()
        for ready in readies:
            assert ready.wait(60.0), "a client did not come to rest"
        time.sleep(SETTLE_S)
        shares = shares_percent([node, *(client.pid for client in clients if client.pid is not None)], num_windows)
    finally:
        over.set()
        for client in clients:
            client.join()
        os.kill(node, signal.SIGTERM)
        os.waitpid(node, 0)
    names = [f"node with {NUM_CLIENTS} clients", *(f"client {number}" for number in range(1, NUM_CLIENTS + 1))]
    return [
        Row(name=f"{name}, of a core", value=statistics.median(share), unit="%", bound=BOUND_PERCENT,
            spread=(min(share), max(share)), count=len(share))
        for name, share in zip(names, shares, strict=True)
    ]  # fmt: skip


def main() -> int:
    arguments = make_parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="tiercel-idle-") as folder:
        rows = measure(Path(folder), arguments.repeats or 5)
    return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
