"""How long does a trace take through the full two-tier model, what of that is hashing, and does memory stay bounded?

Seconds are of CPU in the one thread that simulates. The bound is the design's: 12,000 requests of a real trace, host and disk
tier, in 5 s on one core. Where no real trace is found, conversations of the same kind are made up, which the last rows use
anyway: twice as many requests through the same cache must not take more than twice the time or hold more memory, beside what
the trace itself takes. A million requests through the command itself are `simulate_long.py`'s.
"""

import argparse
import json
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
from _harness import Row, make_parser, report
from _traces import SKIPPED, TRACE_FILES, add_argument

from tiercel.control import ControlSettings
from tiercel.costs import PrefillCurve
from tiercel.hashing import Sequence
from tiercel.tiers.base import TierName
from tiercel.tune.simulate import EngineModel, Link, SimulationResult, SimulationSetup, simulate
from tiercel.tune.traces import Trace, TraceBuilder

HOST, DISK = TierName.HOST, TierName.DISK
BOUND_S = 5.0
BOUND_REQUESTS = 12_000
TOKEN_BYTES = 131_072
"""Of the KV of Llama 3 8B in 16 bits."""
SIZES = (512, 64)
NUM_MADE = 20_000


def make_setup(tokens_per_block: int) -> SimulationSetup:
    """256 GiB of host memory and 2 TiB of disk behind four engines of an H100's speed."""
    block_bytes = tokens_per_block * TOKEN_BYTES
    return SimulationSetup(
        control=ControlSettings(
            capacities={HOST: (256 << 30) // block_bytes, DISK: (2 << 40) // block_bytes},
            tokens_per_block=tokens_per_block,
            block_bytes=block_bytes,
        ),
        reads={HOST: Link(latency_s=20e-6, bytes_per_s=50e9), DISK: Link(latency_s=200e-6, bytes_per_s=6e9)},
        writes={HOST: Link(latency_s=20e-6, bytes_per_s=50e9), DISK: Link(latency_s=200e-6, bytes_per_s=4e9)},
        engine=EngineModel(
            prefill=PrefillCurve(5e-3, 2e-5, 4e-10),
            decode_token_s=0.02,
            gpu_blocks=(40 << 30) // block_bytes,
            replicas=4,
        ),
    )


def read_mooncake(name: str, folder: Path) -> Trace | None:
    found = sorted(folder.rglob(TRACE_FILES[name])) if folder.is_dir() else []
    if not found:
        print(SKIPPED.format(file=TRACE_FILES[name], folder=folder))
        return None
    builder = TraceBuilder(name, tokens_per_block=512)
    for row in map(json.loads, found[0].read_text().splitlines()):
        builder.add(
            row["hash_ids"],
            arrival_s=row["timestamp"] / 1e3,
            input_tokens=row["input_length"],
            output_tokens=row["output_length"],
        )
    return builder.build()


def make_conversations(num_requests: int, seed: int = 0) -> Trace:
    """Turns of conversations that grow by some blocks each, four a second, every one behind a shared beginning."""
    rng = np.random.default_rng(seed)
    builder = TraceBuilder(f"made up, {num_requests}", tokens_per_block=512)
    open_paths: list[tuple[int, list[int]]] = []
    name = 4
    for number in range(num_requests):
        if not open_paths or rng.random() < 0.2:
            open_paths.append((number, [0, 1, 2, 3][: int(rng.integers(1, 5))]))
        place = int(rng.integers(max(0, len(open_paths) - 400), len(open_paths)))
        session, path = open_paths[place]
        added = int(rng.integers(1, 8))
        path = [*path, *range(name, name + added)]
        name += added
        open_paths[place] = (session, path)
        if len(path) > 60:
            open_paths.pop(place)
        output = int(rng.integers(50, 500))
        builder.add(
            path, arrival_s=number / 4, input_tokens=512 * len(path) - 100, output_tokens=output, session=session
        )
    return builder.build()


def run(trace: Trace, setup: SimulationSetup) -> tuple[SimulationResult, float]:
    started = time.thread_time()
    result = simulate(trace, setup)
    return result, time.thread_time() - started


def hash_all(trace: Trace, tokens_per_block: int) -> float:
    """Seconds that making and hashing the prompts takes alone: no simulation is faster."""
    started = time.thread_time()
    for request in range(trace.num_requests):
        sequence = Sequence(bytes(16), tokens_per_block, trace.tokens(request))
        sequence.parent_key(sequence.num_blocks)
    return time.thread_time() - started


def measure_trace(trace: Trace, repeats: int) -> list[Row]:
    rows = []
    bound = BOUND_S * trace.num_requests / BOUND_REQUESTS
    for size in SIZES:
        setup = make_setup(size)
        results, times = zip(*(run(trace, setup) for _ in range(repeats)), strict=True)
        hashing = hash_all(trace, size)
        title = f"{trace.name}, {trace.num_requests} requests, blocks of {size}"
        rows += [
            Row(
                name=title,
                value=float(np.median(times)),
                unit="s",
                bound=bound,
                spread=(min(times), max(times)),
                count=repeats,
            ),
            Row(name=f"{title}: hashing alone", value=hashing, unit="s"),
            Row(name=f"{title}: hit rate, token-weighted", value=100 * results[0].token_hit_rate, unit="%"),
        ]
    return rows


def measure_growth(num_requests: int) -> list[Row]:
    """Time by request of a trace and of one twice as long, and what memory the runs took at most."""
    rows = []
    for count in (num_requests, 2 * num_requests):
        trace, setup = make_conversations(count), make_setup(512)
        _, seconds = run(trace, setup)
        tracemalloc.start()
        simulate(trace, setup)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        rows += [
            Row(name=f"{trace.name} requests: each", value=1e6 * seconds / count, unit="us"),
            Row(name=f"{trace.name} requests: a million of them", value=1e6 * seconds / count / 60, unit="min"),
            Row(name=f"{trace.name} requests: Python's memory at most", value=peak / 2**20, unit="MiB"),
            Row(name=f"{trace.name} requests: of that, by request", value=peak / count, unit="B"),
        ]
    return rows


def main(arguments: argparse.Namespace) -> int:
    rows = []
    for name in TRACE_FILES:
        trace = read_mooncake(name, arguments.traces)
        if trace is not None:
            rows += measure_trace(trace, arguments.repeats or 3)
    rows += measure_growth(arguments.requests)
    return report(rows, arguments.json)


if __name__ == "__main__":
    parser = make_parser(__doc__)
    add_argument(parser)
    parser.add_argument(
        "--requests",
        type=int,
        default=NUM_MADE,
        metavar="N",
        help="of the trace that is made up (default: %(default)s)",
    )
    sys.exit(main(parser.parse_args()))
