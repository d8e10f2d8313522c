"""How long do curves of large traces take, and in how much memory?

Two generated traces: one of the size of WEKA's agent sessions (46 thousand requests, 0.4 million different blocks, 11 million
references), which DESIGN section 11 bounds at 3 seconds on one core for the exact LRU curve; and one of a million requests.
Times are the calling thread's processor time, the most in the spread that of the clock. Memory is what a process needs at
most beyond the trace itself.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _agents import agent_trace
from _harness import Row, make_parser, measure, report, time_row

from tiercel.tune.curves import BeladyBound, Miniature, lru_curve, run_policies, sampled_lru_curve
from tiercel.tune.traces import Trace

EXACT_BOUND_S = 3.0
MILLION_BOUND_S = 60.0
CAPACITIES = [2**exponent // 512 for exponent in (16, 18, 19, 20, 21, 22, 23, 24, 25)]
MINIATURE_CAPACITIES = [4096, 8192]


def weka_sized() -> Trace:
    return agent_trace(num_requests=46_000, num_open=70, turns_mean=27, blocks_first=40, blocks_a_turn=6.4, seed=4)


def million() -> Trace:
    return agent_trace(num_requests=1_000_000, num_open=2_000, turns_mean=8, blocks_first=20, blocks_a_turn=3, seed=2)


def measure_trace(title: str, trace: Trace, repeats: int, bound_s: float) -> list[Row]:
    bound = BeladyBound(trace)
    curve = lru_curve(trace)

    def seconds(name: str, work: Callable[[], object], limit: float | None = None) -> Row:
        timing = measure(work, repeats)
        spread = (timing.cpu_min_s, timing.max_s)
        return Row(name=f"{title}: {name}", value=timing.cpu_median_s, unit="s", bound=limit, spread=spread)

    return [
        Row(name=f"{title}: requests", value=trace.num_requests / 1e3, unit="k"),
        Row(name=f"{title}: different blocks", value=trace.num_blocks / 1e6, unit="M"),
        Row(name=f"{title}: references", value=trace.num_references / 1e6, unit="M"),
        seconds("exact LRU curve", lambda: lru_curve(trace), bound_s),
        time_row(f"{title}: 9 capacities of it", measure(lambda: curve.hit_rates(CAPACITIES), 20), unit="us"),
        seconds("LRU curve from 1 % of the blocks", lambda: sampled_lru_curve(trace, rate=0.01)),
        seconds("Belady's bound, one capacity", lambda: BeladyBound(trace).hit_rate(2048), bound_s),
        seconds("Belady's bound, each further capacity", lambda: bound.hit_rate(4096)),
        seconds(
            "2q at two capacities in miniature, 1 %",
            lambda: run_policies(trace, ["2q"], MINIATURE_CAPACITIES, Miniature(rate=0.01, num_slots_min=32)),
        ),
    ]


def measure_error(title: str, trace: Trace) -> Row:
    exact = lru_curve(trace).hit_rates(CAPACITIES)
    apart = 100 * np.abs(sampled_lru_curve(trace, rate=0.01).hit_rates(CAPACITIES) - exact)
    name = f"{title}: the sample's mean and largest error over 9 capacities"
    return Row(name=name, value=float(apart.mean()), unit="pt", spread=(0.0, float(apart.max())))


def measure_memory() -> list[Row]:
    """In processes of their own, since a process never gives its most back."""
    rows = []
    for work in ("exact", "belady"):
        command = [sys.executable, __file__, "--memory-of", work]
        peak, blocks = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        name = f"a million requests: memory beyond the trace a block, {work}"
        rows.append(Row(name=name, value=peak / blocks, unit="B", bound=100))
    return rows


def print_memory(work: str) -> int:
    trace = million()
    Path("/proc/self/clear_refs").write_text("5")  # what the process needed at most counts from here on
    before = resident_kib("VmRSS")
    result = lru_curve(trace) if work == "exact" else BeladyBound(trace)
    after = resident_kib("VmHWM")
    del result
    print((after - before) * 1024, trace.num_blocks)
    return 0


def resident_kib(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--memory-of", choices=("exact", "belady"), help="print bytes and blocks of one run, and end")
    arguments = parser.parse_args()
    if arguments.memory_of is not None:
        return print_memory(arguments.memory_of)
    repeats = arguments.repeats or 5
    small, large = weka_sized(), million()
    rows = [
        *measure_trace("agents", small, repeats, EXACT_BOUND_S),
        measure_error("agents", small),
        *measure_trace("a million requests", large, min(repeats, 3), MILLION_BOUND_S),
        measure_error("a million requests", large),
        *measure_memory(),
    ]
    return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
