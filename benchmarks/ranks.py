"""What do ranks in processes of their own cost? Round trips of small copies, and the rate of large ones, against one process.

A model of 32 layers and 8 heads, 2 MiB a block of 16 tokens; each rank holds its heads of 64 blocks in host memory and maps one
arena. The bare round trip is two processes that send one byte to and fro over the same kind of socket: what no protocol can
undercut. One process copies the same shards, in runs of the same length, with as many threads as there are ranks; whole blocks
have longer runs. Idle is the CPU that all ranks and the
cache's process use while nobody asks for anything.

Run: python benchmarks/ranks.py [--json FILE] [--repeats N]
"""

import multiprocessing
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from _harness import Row, measure, parse_arguments, rate_row, report, time_row
from numpy.typing import NDArray

from tiercel import BlockGeometry, EngineBlocks, EngineMemory, RankAgent, RankGroup
from tiercel._native import Arena
from tiercel.tiers.memory import SharedArena, page_aligned_bytes

LARGE = BlockGeometry(
    model_id="m", tokens_per_block=16, num_layers=32, kv_parts=2, num_kv_heads=8, head_size=128, dtype="bfloat16"
)
SMALL = replace(LARGE, tokens_per_block=1, num_layers=1, head_size=8)
NUM_BLOCKS = 64
NUM_RANKS = (1, 2, 4)
_IDLE_S = 3.0
_TRIPS = 100


def engine_memory(geometry: BlockGeometry, heads: tuple[int, int], num_threads: int = 1) -> EngineMemory:
    """Host memory of some heads: a tensor for each layer and K or V, [block, token, head, dim]."""
    shape = (NUM_BLOCKS, geometry.tokens_per_block, heads[1] - heads[0], geometry.head_size)
    arrays = [np.ones(shape, np.uint16) for _ in range(2 * geometry.num_layers)]
    half = geometry.num_layers
    return EngineMemory.from_arrays(
        geometry,
        arrays[:half],
        arrays[half:],
        axes="block token head dim",
        head_range=heads,
        num_threads=num_threads,
    )


def serve(directory: Path, geometry: BlockGeometry, rank: int, num_ranks: int, pipe: Connection) -> None:
    """Be a rank; tell its CPU time when asked."""
    share = geometry.num_kv_heads // num_ranks
    with RankAgent(directory, rank, engine_memory(geometry, (rank * share, (rank + 1) * share))):
        while pipe.recv():
            pipe.send(time.process_time())


def ping(connection: socket.socket) -> None:
    """Send back what comes."""
    while data := connection.recv(16):
        connection.send(data)


def bare_round_trip(repeats: int) -> Row:
    """A byte to another process and back."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = multiprocessing.get_context("fork").Process(target=ping, args=(theirs,), daemon=True)
    child.start()
    theirs.close()

    def run() -> None:
        for _ in range(_TRIPS):
            ours.send(b"x")
            ours.recv(16)

    timing = measure(run, repeats)
    ours.close()
    child.kill()
    child.join()
    return time_row("bare round trip of one byte", timing, unit="us", per=_TRIPS)


@contextmanager
def opened(geometry: BlockGeometry, num_ranks: int) -> Iterator[tuple[RankGroup, NDArray[np.uint64], list[Connection]]]:
    """A group, addresses for all blocks, and a pipe to each rank."""
    stride = page_aligned_bytes(geometry.block_bytes)
    with ExitStack() as stack:
        arena = Arena(NUM_BLOCKS * stride)
        stack.callback(arena.close)
        arena.prefault(0, arena.num_bytes)
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()), "ranks")
        shared = [SharedArena(arena, resident=True, unit_bytes=4096)]
        group = stack.enter_context(RankGroup(geometry, shared, num_ranks=num_ranks, directory=directory))
        pipes = []
        for rank in range(num_ranks):
            pipe, theirs = multiprocessing.Pipe()
            arguments = (directory, geometry, rank, num_ranks, theirs)
            process = multiprocessing.get_context("spawn").Process(target=serve, args=arguments, daemon=True)
            process.start()
            stack.callback(process.join)
            stack.callback(pipe.send, False)
            pipes.append(pipe)
        group.wait_ready(120)
        yield group, (arena.address + np.arange(NUM_BLOCKS) * stride).astype(np.uint64), pipes


def small_rows(num_ranks: int, repeats: int) -> list[Row]:
    """A round trip, and what nothing to do costs."""
    with opened(SMALL, num_ranks) as (group, slots, pipes):
        one = group.blocks([7]).reach()

        def trips() -> None:
            for _ in range(_TRIPS):
                one.gather(slots[:1])

        timing = measure(trips, repeats)
        before = cpu_seconds(pipes)
        time.sleep(_IDLE_S)
        idle = 100 * (cpu_seconds(pipes) - before) / _IDLE_S
        cpu = timing.cpu_median_s / _TRIPS * 1e6
        return [
            time_row(f"{num_ranks} ranks, gather of a block of 256 bytes", timing, unit="us", per=_TRIPS),
            Row(name="  CPU of the caller's thread", value=cpu, unit="us"),
            Row(name="  CPU of all processes, idle", value=idle, unit="%", bound=0.5),
        ]


def large_rows(num_ranks: int, repeats: int) -> list[Row]:
    """Rates of ranks and of one process, in turns."""
    num_bytes = NUM_BLOCKS * LARGE.block_bytes
    order = np.random.default_rng(0).permutation(NUM_BLOCKS)
    rows = []
    with opened(LARGE, num_ranks) as (group, slots, _):
        ranks = group.blocks(order).reach()
        share = LARGE.num_kv_heads // num_ranks
        shards = [engine_memory(LARGE, (r * share, (r + 1) * share), num_ranks).blocks(order) for r in range(num_ranks)]
        whole = [engine_memory(LARGE, (0, LARGE.num_kv_heads), num_ranks).blocks(order)]
        for name in ("gather", "scatter"):
            by_ranks = measure(partial(getattr(ranks, name), slots), repeats)
            by_one = measure(partial(copy_all, shards, name, slots), repeats)
            unsplit = measure(partial(copy_all, whole, name, slots), repeats)
            percent = 100 * by_one.median_s / by_ranks.median_s
            rows += [
                rate_row(f"{num_ranks} ranks, {name} of {num_bytes >> 20} MiB", by_ranks, num_bytes=num_bytes),
                rate_row(f"  the same shards, one process of {num_ranks} threads", by_one, num_bytes=num_bytes),
                Row(name="  of that", value=percent, unit="%", higher_is_better=True),
                rate_row("  whole blocks, one process", unsplit, num_bytes=num_bytes),
            ]
    return rows


def copy_all(shards: list[EngineBlocks], name: str, slots: NDArray[np.uint64]) -> None:
    """Gather or scatter the blocks of each shard in turn."""
    for shard in shards:
        getattr(shard, name)(slots)


def cpu_seconds(pipes: list[Connection]) -> float:
    """CPU time of all processes so far."""
    for pipe in pipes:
        pipe.send(True)
    return time.process_time() + sum(float(pipe.recv()) for pipe in pipes)


def main() -> int:
    arguments = parse_arguments(__doc__)
    repeats = arguments.repeats or 9
    rows = [bare_round_trip(repeats)]
    for num_ranks in NUM_RANKS:
        rows += small_rows(num_ranks, 3 * repeats)
    for num_ranks in NUM_RANKS:
        rows += large_rows(num_ranks, repeats)
    return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
