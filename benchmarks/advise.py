"""How close advise's search comes to the best of a full grid, and with how few simulations.

For each trace every configuration of a grid is simulated once. The search then runs on the same simulations, with a tenth of
them allowed, for several objectives; what it chose is held against the grid's best. The machine is a stated one (an H100 by
DESIGN's measured table, and one NVMe drive of 6 GB/s read and 3 GB/s written), as what counts is the search, not the machine.

    python benchmarks/advise.py --json benchmarks/results/advise.json

Traces: a stretch from the middle of each of Mooncake's, and a seeded one of agents: sessions that share a system prompt and
grow by each turn.
"""

import pickle
import random
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from _harness import Row, describe_machine, make_parser, report
from _traces import SKIPPED, TRACE_FILES, add_argument

from tiercel.config import CacheConfig, ModelConfig
from tiercel.costs import PrefillCurve
from tiercel.tune.advise import (
    Candidate,
    Forecaster,
    Objective,
    Outcome,
    Prices,
    SimulatedOracle,
    Slo,
    Space,
)
from tiercel.tune.advise.moving import choose_transfer
from tiercel.tune.advise.oracle import stretch_of
from tiercel.tune.advise.search import Trials, search
from tiercel.tune.advise.wording import candidate_text
from tiercel.tune.machine import DirectoryFigures, DiskFigure, Figure, GpuCopyFigure, GpuFigures, Machine
from tiercel.tune.simulate import EngineFacts, PrefillSource, SimulationSetup, make_setup, simulate
from tiercel.tune.traces import Trace, TraceBuilder, read_trace

GIB = 1 << 30
MODEL = ModelConfig(model_id="8B", num_layers=32, num_kv_heads=8, head_size=128, dtype="bfloat16")
PREFILL = PrefillSource(curve=PrefillCurve(0.005, 3.2e-5, 5e-10), told="16 GFLOP a token at half of an H100's rate")
WITHIN = 1.02
SHARE = 10
REQUESTS_MAX = 800
"""Requests of a stretch: its full grid takes minutes. A simulated request takes about a millisecond."""


@dataclass(frozen=True)
class Case:
    """A trace, the engines that serve it, and the grid that is searched."""

    trace: Trace
    is_whole: bool
    replicas: int
    space: Space


def grid(host_gib: int, disk_gib: int) -> Space:
    return Space(
        host_bytes=(0, *(host_gib * GIB // divisor for divisor in (4, 2, 1))),
        disk_bytes=(0, *(disk_gib * GIB // divisor for divisor in (4, 2, 1))),
        tokens_per_block=(16, 128),
        eviction_policy=("lru", "2q", "lfu"),
        ssd_eviction_policy=("lru",),
        ssd_admission=("through", "on_second_hit", "on_evict"),
    )


OBJECTIVES = {
    "mean TTFT": Objective(),
    "p99 TTFT": Objective(minimise="ttft_p99"),
    "cost": Objective(prices=Prices(gpu_hour=2.5, host_gib_month=3.0, disk_gib_month=0.08)),
    "cost, p50 <= 0.5 s": Objective(
        slo=Slo(limits_s={"ttft_p50": 0.5}), prices=Prices(gpu_hour=2.5, host_gib_month=3.0, disk_gib_month=0.08)
    ),
}


CTAS = (0, 4, 8, 32)
"""0 for the copy engine."""
COPIES: Mapping[Literal["h2d", "d2h"], Mapping[int, Sequence[float]]] = {
    "h2d": {4096: (2.6, 10, 18, 48), 32768: (34, 49, 50, 51), 65536: (44, 51, 51, 51)},
    "d2h": {4096: (7.6, 24, 45, 51), 32768: (36, 52, 52, 51), 65536: (43, 51, 52, 51)},
}
"""GB/s by bytes of a piece and CTAs, of an H100."""
OPERATIONS: Sequence[tuple[Literal["read", "write"], float]] = (("read", 6e9), ("write", 3e9))


def stated_machine() -> Machine:
    def figure(value: float) -> Figure:
        return Figure(value=value, low=value, high=value, repeats=1)

    copies = tuple(
        GpuCopyFigure(direction=direction, piece_bytes=piece, ctas=ctas, bytes_per_s=figure(rate * 1e9))
        for direction, pieces in COPIES.items()
        for piece, rates in pieces.items()
        for ctas, rate in zip(CTAS, rates, strict=True)
    )
    disk = tuple(
        DiskFigure(
            operation=operation,
            block_bytes=size,
            depth=depth,
            bytes_per_s=figure(rate),
            latency_p50_s=1e-4 + size / rate,
            latency_p99_s=1e-3 + size / rate,
        )
        for operation, full in OPERATIONS
        for size in (1 << 21, 1 << 24)
        for depth, rate in ((1, full / 4), (64, full))
    )
    folder = DirectoryFigures(
        path="/nvme0",
        filesystem="ext4",
        capacity_bytes=4096 * GIB,
        free_bytes=4096 * GIB,
        engine="io_uring",
        direct=True,
        figures=disk,
    )
    gpu = GpuFigures(
        name="H100",
        memory_bytes=80 * GIB,
        h2d_bytes_per_s=figure(55e9),
        d2h_bytes_per_s=figure(54.9e9),
        both_bytes_per_s=figure(59.7e9),
        copies=copies,
    )
    return Machine(
        measured_at=0.0,
        tiercel="",
        cpu="stated",
        num_cores=32,
        memory_bytes=512 * GIB,
        kernel="",
        copy_bytes_per_s=figure(20e9),
        checksum_bytes_per_s=figure(10e9),
        hash_tokens_per_s=figure(2e8),
        directories=(folder,),
        gpus=(gpu,),
    )


def agents(seed: int) -> Trace:
    """48 agents with 20 turns each: a shared system prompt of 4K tokens, a task of 2K to 20K, and 200 to 3,000 tokens a turn."""
    draw = random.Random(seed)
    builder = TraceBuilder(f"agents, seed {seed}", tokens_per_block=64)
    fresh = iter(range(1_000_000, 10_000_000))
    for agent in range(48):
        blocks = [*range(64), *(next(fresh) for _ in range(draw.randint(32, 320)))]
        at_s = draw.uniform(0, 600)
        for _ in range(20):
            answer = draw.randint(50, 800)
            builder.add(blocks, arrival_s=at_s, input_tokens=64 * len(blocks), output_tokens=answer, session=agent)
            blocks = blocks + [next(fresh) for _ in range(max(1, (answer + draw.randint(200, 3000)) // 64))]
            at_s += draw.expovariate(1 / 20)
    return builder.build()


@cache
def machine() -> Machine:
    return stated_machine()


def setup(replicas: int, candidate: Candidate) -> SimulationSetup:
    transfer = choose_transfer(machine(), MODEL, candidate.tokens_per_block, has_disk=candidate.disk_bytes > 0)
    engine = EngineFacts(prefill=PREFILL, decode_token_s=0.02, kv_bytes=30 * GIB, replicas=replicas)
    return make_setup(CacheConfig(**candidate.settings(["/nvme0"]), **transfer.settings), MODEL, machine(), engine)


_CASE: list[tuple[Case, SimulatedOracle]] = []


def begin(case: Case) -> None:
    """Prepare a worker."""
    _CASE[:] = [(case, oracle_of(case))]


def oracle_of(case: Case) -> SimulatedOracle:
    def make(candidate: Candidate) -> SimulationSetup:
        return setup(case.replicas, candidate)

    return SimulatedOracle(case.trace, Forecaster(case.trace), make, simulate, requests_max=case.trace.num_requests)


def evaluate(candidate: Candidate) -> tuple[Outcome, float]:
    """Simulate a candidate in a worker. Returns what it came to, and seconds of CPU."""
    start_s = time.thread_time()
    outcome = _CASE[0][1].evaluate(candidate)
    return outcome, time.thread_time() - start_s


@dataclass(frozen=True)
class Grid:
    """What each candidate came to, and what finding out took."""

    outcomes: dict[Candidate, Outcome]
    seconds: float
    cpu_s: float


def run_grid(case: Case, workers: int, folder: Path | None) -> Grid:
    """Simulate every candidate, or read what an earlier run kept of the same case. folder: where to keep it."""
    kept = None if folder is None else folder / f"{case.trace.name}-{case.trace.num_requests}.pickle"
    if kept is not None and kept.exists():
        found: tuple[Space, Grid] = pickle.loads(kept.read_bytes())
        if found[0] == case.space:
            return found[1]
    candidates = case.space.candidates()
    start_s = time.perf_counter()
    with ProcessPoolExecutor(workers, initializer=begin, initargs=(case,)) as pool:
        answers = list(pool.map(evaluate, candidates, chunksize=4))
    outcomes = {candidate: outcome for candidate, (outcome, _) in zip(candidates, answers, strict=True)}
    grid = Grid(outcomes, time.perf_counter() - start_s, sum(cpu_s for _, cpu_s in answers))
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(pickle.dumps((case.space, grid)))
    return grid


def run_case(case: Case, workers: int, folder: Path | None) -> tuple[list[Row], dict[str, object]]:
    found = run_grid(case, workers, folder)
    outcomes, candidates = found.outcomes, list(found.outcomes)
    oracle = oracle_of(case)
    limit = len(candidates) // SHARE
    rows, details = [], []
    for name, objective in OBJECTIVES.items():
        trials = Trials(evaluate=outcomes.__getitem__, limit=limit)
        chosen = search(case.space, trials, objective, oracle.forecast)
        best = objective.ranked(outcomes)[0]
        values = [objective.value(candidate, outcomes[candidate]) for candidate in (chosen, best)]
        excess = [objective.excess(outcomes[candidate]) for candidate in (chosen, best)]
        ratio = (1 + excess[0]) / (1 + excess[1]) if excess[1] else float("inf") if excess[0] else values[0] / values[1]
        rows.append(Row(name=f"{case.trace.name}: {name}, of the grid's best", value=ratio, unit="x", bound=WITHIN))
        plain = objective.value(default_of(case.space), outcomes[default_of(case.space)])
        details.append(
            {
                "objective": name,
                "chosen": candidate_text(chosen),
                "best": candidate_text(best),
                "chosen_value": values[0],
                "best_value": values[1],
                "default_value": plain,
                "excess": excess,
                "ratio": ratio,
                "evaluations": len(trials.outcomes),
                "grid": len(candidates),
            }
        )
    rows.append(
        Row(
            name=f"{case.trace.name}: simulations, of the grid's",
            value=limit / len(candidates),
            unit="share",
            bound=0.1,
        )
    )
    told = {"trace": case.trace.name, "requests": case.trace.num_requests, "whole": case.is_whole}
    return rows, told | {"grid_s": found.seconds, "grid_cpu_s": found.cpu_s, "searches": details}


def default_of(space: Space) -> Candidate:
    """All of the budget, and every other setting at its default."""
    return Candidate(host_bytes=space.host_bytes[-1], disk_bytes=space.disk_bytes[-1])


def cases(folder: Path, requests: int, seed: int) -> Sequence[Case]:
    found = [Case(agents(seed), True, 2, grid(64, 256))]
    for name, file in TRACE_FILES.items():
        paths = sorted(folder.rglob(file)) if folder.is_dir() else []
        if not paths:
            print(SKIPPED.format(file=file, folder=folder))
            continue
        trace = read_trace(paths[0])
        is_whole = requests >= trace.num_requests
        part = trace if is_whole else stretch_of(trace, requests)
        found.append(Case(replace(part, name=name), is_whole, 3, grid(128, 1024)))
    return found


def main() -> int:
    parser = make_parser(__doc__)
    add_argument(parser)
    parser.add_argument(
        "--requests",
        type=int,
        default=REQUESTS_MAX,
        metavar="N",
        help="of each of Mooncake's traces, from its middle (default: %(default)s, which is all of one of them)",
    )
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="DIR",
        help="keep what the grids came to, and take it from there again while only the search changes",
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7, help="of the agents' trace")
    arguments = parser.parse_args()
    rows: list[Row] = []
    details = []
    for case in cases(arguments.traces, arguments.requests, arguments.seed):
        found, detail = run_case(case, arguments.workers, arguments.keep)
        rows += found
        details.append(detail)
        print(detail, flush=True)
    return report(rows, arguments.json, machine=describe_machine(), details={"traces": details})


if __name__ == "__main__":
    sys.exit(main())
