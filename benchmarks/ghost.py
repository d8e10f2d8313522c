"""How far is the ghost index from the exact LRU curve, and what does it add to a lookup?

Errors are in points of hit rate, the mean and the largest over nine capacities from 65 thousand to 34 million tokens, on
real traces. The cost is that of the same lookups with and without the ghost, in an index that holds a tenth of the
trace's blocks; keys are hashed before, since a lookup and the store after it need them anyway.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
from _bounds import hit_rates, lru_distances
from _harness import Row, Timing, make_parser, measure, report, time_row
from _traces import TOKENS_PER_BLOCK, Trace, add_argument, find_traces

from tiercel.hashing import Sequence
from tiercel.index import GhostIndex, Index

CAPACITIES = [2**exponent // TOKENS_PER_BLOCK for exponent in (16, 18, 19, 20, 21, 22, 23, 24, 25)]
VARIANTS: dict[str, Callable[[], GhostIndex]] = {
    "10 % of blocks": lambda: GhostIndex(sample_rate=0.1, num_samples_max=1 << 17),
    "1 % of blocks": lambda: GhostIndex(sample_rate=0.01, num_samples_max=1 << 17),
    "1 %, no hot blocks": lambda: GhostIndex(sample_rate=0.01, num_samples_max=1 << 17, hot_share=1.0),
    "32k samples": lambda: GhostIndex(sample_rate=1.0, num_samples_max=1 << 15),
    "8k samples": lambda: GhostIndex(sample_rate=1.0, num_samples_max=1 << 13),
}
LOOKUP_BLOCKS = 32
LOOKUP_BOUND_US = 1.0
NUM_LOOKUPS = 4000


def measure_error(trace: Trace) -> list[Row]:
    exact = np.array(hit_rates(lru_distances(trace.requests), CAPACITIES))
    sequences = trace.sequences()
    rows = []
    for name, make in VARIANTS.items():
        ghost = make()
        for sequence in sequences:
            ghost.observe(sequence)
        rates, errors = ghost.curve(np.array(CAPACITIES, np.uint64))
        apart = 100 * np.abs(rates - exact)
        stats = ghost.stats()
        title = f"{trace.name}, {name}"
        rows += [
            Row(name=f"{title}: mean error", value=float(apart.mean()), unit="pt", spread=(0.0, float(apart.max()))),
            Row(name=f"{title}: its own estimate of it", value=float(100 * errors.mean()), unit="pt"),
            Row(name=f"{title}: sampling rate at the end", value=100 * stats.sample_rate, unit="%"),
            Row(name=f"{title}: memory", value=stats.memory_bytes / 2**20, unit="MiB"),
        ]
    return rows


def measure_cost(trace: Trace, repeats: int) -> list[Row]:
    """Lookups of 32 blocks and those of the trace, without and with the ghost, in turns."""
    index = Index([trace.num_blocks // 10])
    for sequence in trace.sequences():
        index.commit(index.reserve(sequence, 0, owner=1))
    whole = [sequence for sequence in trace.sequences() if sequence.num_blocks >= LOOKUP_BLOCKS][:NUM_LOOKUPS]
    rows = []
    for name, limit in ((f"{LOOKUP_BLOCKS} blocks", LOOKUP_BLOCKS), ("whole requests", None)):
        ghost = GhostIndex(sample_rate=0.01)
        alone, both, added = _in_turns(index, ghost, whole, limit, repeats)
        title = f"{trace.name}, lookup of {name}"
        bound = LOOKUP_BOUND_US if limit is not None else None
        per = len(whole)
        rows += [
            time_row(f"{title}", alone, unit="us", per=per),
            time_row(f"{title}, ghost of 1 % too", both, unit="us", per=per),
            time_row(f"{title}, what the ghost adds", added, unit="us", per=per, bound=bound),
            Row(name=f"{title}, that share", value=100 * added.median_s / alone.median_s, unit="%"),
        ]
    return rows


def _in_turns(
    index: Index, ghost: GhostIndex, sequences: list[Sequence], limit: int | None, repeats: int
) -> tuple[Timing, Timing, Timing]:
    """All lookups without the ghost, with it, and the difference of each pair of rounds."""

    def alone() -> None:
        for sequence in sequences:
            index.match(sequence, limit_blocks=limit)

    def both() -> None:
        for sequence in sequences:
            index.match(sequence, limit_blocks=limit)
            ghost.observe(sequence, limit_blocks=limit)

    both()
    times: list[tuple[float, float]] = []
    for _ in range(repeats):
        started = time.thread_time()
        alone()
        middle = time.thread_time()
        both()
        times.append((middle - started, time.thread_time() - middle))
    return (
        _timing([first for first, _ in times]),
        _timing([second for _, second in times]),
        _timing([second - first for first, second in times]),
    )


def _timing(seconds: list[float]) -> Timing:
    median = float(np.median(seconds))
    return Timing(
        median_s=median,
        min_s=min(seconds),
        max_s=max(seconds),
        cpu_median_s=median,
        cpu_min_s=min(seconds),
        repeats=len(seconds),
    )


def measure_curve() -> Row:
    ghost = GhostIndex()
    capacities = np.geomspace(1, 1e9, 64).astype(np.uint64)
    return time_row("curve of 64 capacities", measure(lambda: ghost.curve(capacities), 50), unit="us")


def main() -> int:
    parser = make_parser(__doc__)
    add_argument(parser)
    arguments = parser.parse_args()
    rows = [measure_curve()]
    for trace in find_traces(arguments.traces):
        rows += measure_error(trace) + measure_cost(trace, arguments.repeats or 9)
    return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
