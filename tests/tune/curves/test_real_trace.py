"""On a real trace the index under LRU hits exactly what the one pass says."""

from dataclasses import replace
from pathlib import Path

import pytest
from _traces import DEFAULT_FOLDER, SKIPPED, TRACE_FILES

from tiercel.tune.curves import lru_curve, run_policies
from tiercel.tune.traces import Trace, read_trace

NUM_REQUESTS = 2000
CAPACITIES = [100, 913, 3_656, 9_140, 18_279, 36_558]


def conversation_trace() -> Trace:
    file = TRACE_FILES["conversation"]
    found: list[Path] = sorted(DEFAULT_FOLDER.rglob(file)) if DEFAULT_FOLDER.is_dir() else []
    if not found:
        pytest.skip(SKIPPED.format(file=file, folder=DEFAULT_FOLDER))
    return read_trace(found[0])


def first_requests(trace: Trace, count: int) -> Trace:
    columns = ("leaves", "arrivals_s", "input_tokens", "output_tokens", "sessions", "after", "delays_s")
    return replace(trace, **{column: getattr(trace, column)[:count] for column in columns})


def test_the_index_under_lru_hits_on_a_trace_exactly_what_the_one_pass_curve_says() -> None:
    trace = first_requests(conversation_trace(), NUM_REQUESTS)
    curve = lru_curve(trace)
    for run in run_policies(trace, ["lru"], CAPACITIES):
        for weighting, rate in run.hit_rates.items():
            assert rate == pytest.approx(curve.hit_rate(run.capacity, weighting), abs=1e-12), run.capacity
