"""What does each policy hit at every size, and how far off are the ways to find out without running it?

Every policy runs in full over every trace and capacity; LRU and the bound come from their passes. Against these stand LRU
from samples and every policy in miniature, both ways of sampling, over several seeds. Results are hit rates, so nothing here
depends on the machine's speed.

`--markdown FILE` renews the tables of docs/curves.md from the results, or, with `--from JSON`, from earlier ones.
"""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _curve_tables import MiniatureError, Results, SampleError, TraceCurves, fill_tables
from _harness import Row, describe_machine
from _pages import measured_or_read, page_arguments, print_rows, write_page
from _traces import find_traces

from tiercel.index import EVICTION_POLICIES
from tiercel.tune.curves import (
    BeladyBound,
    Miniature,
    PolicyRun,
    SampleUnit,
    Weighting,
    exclusive_grid,
    lru_curve,
    run_policies,
    sampled_lru_curve,
    sweep_block_sizes,
)
from tiercel.tune.traces import Trace

CAPACITIES_TOKENS = [2**exponent for exponent in (16, 18, 19, 20, 21, 22, 23, 24, 25)]
HOST_TOKENS = [2**exponent for exponent in (19, 20, 21, 22)]
DISK_TOKENS = [2**exponent for exponent in (21, 22, 23, 24)]
SIZES = [16, 32, 64, 128, 256, 512]
SIZE_TOKENS = [2**21, 2**23]
SAMPLE_RATES = [0.1, 0.03, 0.01]
SAMPLE_SEEDS = range(20)
MINIATURE_RATES = [0.1, 0.03]
MINIATURE_TOKENS = [2**exponent for exponent in (20, 21, 22, 23, 24)]
MINIATURE_SEEDS = range(3)
MINIATURE_BOUND_PT = 1.0


def blocks_of(trace: Trace, tokens: list[int]) -> list[int]:
    return [count // trace.tokens_per_block for count in tokens]


def measure_curves(trace: Trace, full: list[PolicyRun]) -> TraceCurves:
    curve = lru_curve(trace)
    sizes = sweep_block_sizes(trace, SIZES, SIZE_TOKENS)
    grid = exclusive_grid(curve, blocks_of(trace, HOST_TOKENS), blocks_of(trace, DISK_TOKENS))
    return TraceCurves(
        name=trace.name,
        capacities_tokens=CAPACITIES_TOKENS,
        policies={name: [100 * run.hit_rate for run in full if run.policy == name] for name in EVICTION_POLICIES},
        bound=(100 * BeladyBound(trace).hit_rates(blocks_of(trace, CAPACITIES_TOKENS))).tolist(),
        ideal={weighting.value: 100 * curve.hit_rate(curve.capacity_max, weighting) for weighting in Weighting},
        grid_host_tokens=HOST_TOKENS,
        grid_disk_tokens=DISK_TOKENS,
        grid=(100 * grid).tolist(),
        sizes=SIZES,
        size_capacities_tokens=SIZE_TOKENS,
        size_rates=[(100 * row.hit_rates).tolist() for row in sizes],
        size_ideals=[100 * row.ideal for row in sizes],
    )


def measure_samples(trace: Trace) -> Iterator[SampleError]:
    capacities = blocks_of(trace, CAPACITIES_TOKENS)
    exact = lru_curve(trace).hit_rates(capacities)
    for rate in SAMPLE_RATES:
        curves = [sampled_lru_curve(trace, rate=rate, seed=seed) for seed in SAMPLE_SEEDS]
        apart = 100 * np.array([curve.hit_rates(capacities) - exact for curve in curves])
        stated = 100 * np.array([curve.errors(capacities) for curve in curves])
        yield SampleError(
            trace=trace.name,
            rate=rate,
            num_followed=round(float(np.mean([curve.num_followed for curve in curves]))),
            mean=float(np.abs(apart).mean()),
            largest=float(np.abs(apart).max()),
            in_stated_errors=float(np.sqrt(((apart / stated) ** 2).mean())),
        )


def measure_miniatures(trace: Trace, full: list[PolicyRun]) -> Iterator[MiniatureError]:
    capacities = blocks_of(trace, MINIATURE_TOKENS)
    exact = {(run.policy, run.capacity): run.hit_rate for run in full}
    for unit in SampleUnit:
        for rate in MINIATURE_RATES:
            runs = [
                run
                for seed in MINIATURE_SEEDS
                for run in run_policies(
                    trace, EVICTION_POLICIES, capacities, Miniature(rate=rate, seed=seed, unit=unit)
                )
            ]
            for policy in EVICTION_POLICIES:
                own = [run for run in runs if run.policy == policy]
                apart = 100 * np.array([run.hit_rate - exact[run.policy, run.capacity] for run in own])
                corrections = 100 * np.array([run.correction for run in own])
                yield MiniatureError(
                    trace=trace.name,
                    unit=unit.value,
                    rate=rate,
                    policy=policy,
                    mean=float(np.abs(apart).mean()),
                    largest=float(np.abs(apart).max()),
                    mean_uncorrected=float(np.abs(apart - corrections).mean()),
                )


def measure(folder: Path) -> dict[str, Any]:
    results = Results([], [], [])
    for trace in find_traces(folder):
        full = run_policies(trace, EVICTION_POLICIES, blocks_of(trace, CAPACITIES_TOKENS))
        results.curves.append(measure_curves(trace, full))
        results.samples.extend(measure_samples(trace))
        results.miniatures.extend(measure_miniatures(trace, full))
    return {"machine": describe_machine()} | results.to_dict()


def rows_of(results: Results) -> list[Row]:
    rows = [
        Row(
            name=f"{error.trace}, {error.rate:.0%}: error of a sample over its stated error",
            value=error.in_stated_errors,
            unit="",
            bound=1.2,
        )
        for error in results.samples
    ]
    rows += [
        Row(
            name=f"{error.trace}, {error.policy} in miniature of {error.rate:.0%}: mean error",
            value=error.mean,
            unit="pt",
            bound=MINIATURE_BOUND_PT,
        )
        for error in results.miniatures
        if error.unit == SampleUnit.BLOCK
    ]
    return rows


def main() -> int:
    arguments = page_arguments(__doc__)
    measured = measured_or_read(arguments, measure)
    results = Results.from_dict(measured)
    if not results.curves:
        print("nothing was measured, nothing is written")
        return 0
    write_page(arguments, measured, partial(fill_tables, results=results))
    return print_rows(rows_of(results), digits=3)


if __name__ == "__main__":
    sys.exit(main())
