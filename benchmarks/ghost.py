"""How far is the ghost index from the exact LRU curve, and what does it add to a lookup?

Errors are in points of hit rate, the mean and the largest over nine capacities from 65 thousand to 34 million tokens, on
real traces. The cost is the share of a lookup: `Cache.lookup(Cache.sequence(tokens))` of full hits in an index of a million
blocks, in turns with the ghost index that the cache made, without it, and with that of a cache of 100,000 blocks, which
follows more blocks. CPU time of the thread, the median of the differences of pairs; the order within a pair alternates.
Half of the lookups are of prompts whose blocks are all hot, which costs the ghost another path than those that are cold.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from _harness import Row, make_parser, measure, report, time_row
from _index_fill import Tokens, fill, random_tokens
from _traces import TOKENS_PER_BLOCK, add_argument, find_traces, sequences_of
from lookup import COPIES, open_cache, store
from numpy.typing import NDArray

from tiercel import Cache, TierName
from tiercel.control.ghost import make_ghost
from tiercel.control.settings import ControlSettings
from tiercel.index import GhostIndex
from tiercel.tune.curves import lru_curve
from tiercel.tune.traces import Trace

CAPACITIES = [2**exponent // TOKENS_PER_BLOCK for exponent in (16, 18, 19, 20, 21, 22, 23, 24, 25)]
PRODUCTION = "as a cache of 4M tokens makes it"
PRODUCTION_TOLD_BLOCKS = 2**22 // TOKENS_PER_BLOCK // 8
"""What it tells of; the larger half of the capacities."""
VARIANTS: dict[str, Callable[[], GhostIndex]] = {
    "10 % of blocks": lambda: GhostIndex(sample_rate=0.1, num_samples_max=1 << 17),
    "1 % of blocks": lambda: GhostIndex(sample_rate=0.01, num_samples_max=1 << 17),
    "1 %, no hot blocks": lambda: GhostIndex(sample_rate=0.01, num_samples_max=1 << 17, hot_share=1.0),
    "32k samples": lambda: GhostIndex(sample_rate=1.0, num_samples_max=1 << 15),
    "8k samples": lambda: GhostIndex(sample_rate=1.0, num_samples_max=1 << 13),
    PRODUCTION: lambda: _production(2**22 // TOKENS_PER_BLOCK),
}
SHARE_BOUND_PERCENT = 3.0
SMALL_BLOCKS = 100_000
NUM_PAIRS = {512: 40_000, 16_384: 6_000, 131_072: 2_000}


def _production(num_blocks: int) -> GhostIndex:
    """The ghost index of a cache of so many blocks; it tells of capacities from an eighth to eight times that."""
    capacities = {TierName.HOST: num_blocks}
    settings = ControlSettings(
        capacities=capacities, tokens_per_block=TOKENS_PER_BLOCK, block_bytes=1, ghost_sample_rate=0.004
    )
    ghost = make_ghost(settings)
    assert ghost is not None
    return ghost


def measure_error(trace: Trace) -> list[Row]:
    exact = lru_curve(trace).hit_rates(CAPACITIES)
    sequences = sequences_of(trace)
    rows = []
    for name, make in VARIANTS.items():
        ghost = make()
        for sequence in sequences:
            ghost.observe(sequence)
        rates, errors = ghost.curve(np.array(CAPACITIES, np.uint64))
        told = np.array(CAPACITIES) >= (PRODUCTION_TOLD_BLOCKS if name == PRODUCTION else 0)
        apart, errors = 100 * np.abs(rates - exact)[told], errors[told]
        stats = ghost.stats()
        title = f"{trace.name}, {name}"
        rows += [
            Row(name=f"{title}: mean error", value=float(apart.mean()), unit="pt", spread=(0.0, float(apart.max()))),
            Row(name=f"{title}: its own estimate of it", value=float(100 * errors.mean()), unit="pt"),
            Row(name=f"{title}: sampling rate at the end", value=100 * stats.sample_rate, unit="%"),
            Row(name=f"{title}: memory", value=stats.memory_bytes / 2**20, unit="MiB"),
        ]
    return rows


def measure_share(repeats: int | None) -> list[Row]:
    """What share of a lookup is the ghost index's, by length of prompt."""
    rng = np.random.default_rng(1)
    rows = []
    with open_cache() as cache:
        control = cache._assembly.control
        fill(control.index, rng)
        smaller = replace(control.settings, capacities={TierName.HOST: SMALL_BLOCKS})
        ghosts = {"1M blocks": control._ghost, "100K blocks": make_ghost(smaller)}
        for num_tokens in COPIES:
            stored = [random_tokens(rng, num_tokens) for _ in range(COPIES[num_tokens])]
            for tokens in stored:
                store(cache, tokens)
            for name, ghost in ghosts.items():
                assert ghost is not None
                alone, added = _in_turns(cache, ghost, stored, repeats or NUM_PAIRS[num_tokens])
                title = f"lookup of {num_tokens} tokens"
                share = 100 * np.median(added) / np.median(alone)
                spread = tuple(100 * np.quantile(added, (0.25, 0.75)) / np.median(alone))
                rows += [
                    Row(name=title, value=float(np.median(alone)) / 1e3, unit="us"),
                    Row(
                        name=f"{title}, share of the ghost of {name}",
                        value=float(share),
                        unit="%",
                        bound=SHARE_BOUND_PERCENT,
                        spread=(float(spread[0]), float(spread[1])),
                        count=len(added),
                    ),
                    Row(name=f"{title}, ghost of {name}: hot blocks", value=ghost.stats().num_hot, unit=""),
                    Row(name=f"{title}, ghost of {name}: memory", value=ghost.stats().memory_bytes / 2**20, unit="MiB"),
                ]
    return rows


def _in_turns(
    cache: Cache, ghost: GhostIndex, stored: list[Tokens], num_pairs: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Nanoseconds of lookups without the ghost, and what it adds to each. Every other lookup is of the first prompt."""
    control = cache._assembly.control
    times = np.zeros((num_pairs, 2), np.int64)
    for number in range(-num_pairs // 8, num_pairs):  # the first ones warm up: they make the first prompt hot
        tokens = stored[0 if number % 2 else number // 2 % len(stored)]
        for with_ghost in (0, 1) if number % 4 < 2 else (1, 0):
            control._ghost = ghost if with_ghost else None
            started = time.thread_time_ns()
            lookup = cache.lookup(cache.sequence(tokens))
            times[number, with_ghost] = time.thread_time_ns() - started
            lookup.release()
    return times[:, 0], times[:, 1] - times[:, 0]


def measure_curve() -> Row:
    ghost = GhostIndex()
    capacities = np.geomspace(1, 1e9, 64).astype(np.uint64)
    return time_row("curve of 64 capacities", measure(lambda: ghost.curve(capacities), 50), unit="us")


def main() -> int:
    parser = make_parser(__doc__)
    add_argument(parser)
    arguments = parser.parse_args()
    rows = [measure_curve(), *measure_share(arguments.repeats)]
    for trace in find_traces(arguments.traces):
        rows += measure_error(trace)
    return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
