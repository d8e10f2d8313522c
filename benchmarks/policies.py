"""What is each eviction policy worth on real traces, and what does each way of admission write to disk?

Every policy replays every trace through the native index at several capacities. Beside them stand LRU of every capacity
from one exact pass, and the most that any policy could reach (Belady). The two-tier runs count what is written to disk
for each block that is ever read back. Results are hit rates, so nothing here depends on the machine's speed.

`--markdown FILE` renews the tables of docs/policies.md from the results, or, with `--from JSON`, from earlier ones.
"""

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from _harness import Row, describe_machine
from _pages import measured_or_read, page_arguments, print_rows, write_page
from _policy_tables import Results, TierRun, TraceResult, fill_tables
from _traces import TOKENS_PER_BLOCK, find_traces
from _two_tiers import ADMISSIONS, TwoTiers

from tiercel.index import EVICTION_POLICIES, Index
from tiercel.tune.curves import BeladyBound, lru_curve, run_policies
from tiercel.tune.traces import Trace

CAPACITIES = {"conversation": [913, 3_655, 9_139, 18_279, 36_558], "synthetic": [2_196, 4_392, 13_177]}
CURVE_TOKENS = [2**exponent for exponent in (16, 18, 19, 20, 21, 22, 23, 24, 25)]
SPLITS = [(0.01, 0.1), (0.02, 0.2), (0.05, 0.5)]
"""Host and disk capacity as shares of the trace's distinct blocks."""

DISK_POLICIES = ("lru", "2q")


def measure_trace(trace: Trace) -> TraceResult:
    curve = lru_curve(trace)
    capacities = CAPACITIES[trace.name]
    runs = run_policies(trace, EVICTION_POLICIES, capacities)
    return TraceResult(
        name=trace.name,
        num_references=trace.num_references,
        num_blocks=trace.num_blocks,
        ideal=100 * curve.ideal,
        curve_tokens=CURVE_TOKENS,
        curve=(100 * curve.hit_rates([tokens // TOKENS_PER_BLOCK for tokens in CURVE_TOKENS])).tolist(),
        capacities=capacities,
        lru=(100 * curve.hit_rates(capacities)).tolist(),
        belady=(100 * BeladyBound(trace).hit_rates(capacities)).tolist(),
        policies={name: [100 * run.hit_rate for run in runs if run.policy == name] for name in EVICTION_POLICIES},
    )


def measure_tiers(trace: Trace) -> list[TierRun]:
    runs = []
    for host_share, disk_share in SPLITS:
        capacities = [int(trace.num_blocks * host_share), int(trace.num_blocks * disk_share)]
        for policy in (name for name in DISK_POLICIES if name in EVICTION_POLICIES):
            for admission in ADMISSIONS:
                index = Index(capacities, policies=["lru", policy], tokens_per_block=TOKENS_PER_BLOCK)
                result = TwoTiers(index, capacities, admission).replay(trace)
                runs.append(
                    TierRun(
                        trace=trace.name,
                        host_blocks=capacities[0],
                        disk_blocks=capacities[1],
                        disk_policy=policy,
                        admission=admission,
                        host_hits=100 * result.num_host_hits / trace.num_references,
                        disk_hits=100 * result.num_disk_hits / trace.num_references,
                        num_written=result.num_written,
                        num_read_back=result.num_read_back,
                    )
                )
    return runs


def rows_of(results: Results) -> list[Row]:
    """LRU through the index must be LRU; no policy may reach more than is possible."""
    rows = []
    for trace in results.traces:
        apart = max(abs(a - b) for a, b in zip(trace.policies["lru"], trace.lru, strict=True))
        rows.append(
            Row(name=f"{trace.name}: index under lru, off the exact curve", value=apart, unit="pt", bound=0.0005)
        )
        for number, capacity in enumerate(trace.capacities):
            name, rate = max(
                ((name, rates[number]) for name, rates in trace.policies.items()), key=lambda item: item[1]
            )
            title = f"{trace.name}, {capacity} blocks: best policy, {name}"
            rows.append(Row(name=title, value=rate, unit="%", bound=trace.belady[number]))
    return rows


def measure(folder: Path) -> dict[str, Any]:
    started = time.monotonic()
    traces = find_traces(folder)
    results = Results(
        traces=[measure_trace(trace) for trace in traces],
        tiers=[run for trace in traces for run in measure_tiers(trace)],
    )
    return {"machine": describe_machine(), "seconds": time.monotonic() - started} | results.to_dict()


def main() -> int:
    arguments = page_arguments(__doc__)
    measured = measured_or_read(arguments, measure)
    results = Results.from_dict(measured)
    if not results.traces:
        print("nothing was measured, nothing is written")
        return 0
    write_page(arguments, measured, partial(fill_tables, results=results))
    num_missed = print_rows(rows_of(results), digits=4)
    print(f"{measured['seconds']:.0f} s")
    return num_missed


if __name__ == "__main__":
    sys.exit(main())
