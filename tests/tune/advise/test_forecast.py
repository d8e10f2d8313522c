"""The forecast: its depths against the native curve and a list in the order of use, its ranking against the simulator."""

import random

import numpy as np
import pytest

from tests.helpers.seeds import chosen_seed
from tests.tune.advise.stand_in import GIB, MODEL, machine
from tiercel.config import CacheConfig
from tiercel.costs import PrefillCurve
from tiercel.tune.advise import Candidate, Forecaster, SimulatedOracle
from tiercel.tune.advise.depths import lru_depths
from tiercel.tune.advise.oracle import stretch_of
from tiercel.tune.curves import lru_curve
from tiercel.tune.simulate import EngineFacts, PrefillSource, SimulationSetup, make_setup, simulate
from tiercel.tune.traces import Trace, TraceBuilder


def conversations(draw: random.Random, num_requests: int, tokens_per_block: int = 64) -> Trace:
    """Requests of which many continue an earlier one."""
    builder = TraceBuilder("conversations", tokens_per_block=tokens_per_block)
    fresh, known = iter(range(10**6)), [[next(iter([10**6]))]]
    for number in range(num_requests):
        start = draw.choice(known)
        blocks = [*start[: draw.randint(1, len(start))], *(next(fresh) for _ in range(draw.randint(1, 30)))]
        known = [*known[-30:], blocks]
        builder.add(
            blocks,
            arrival_s=number * 0.5,
            input_tokens=tokens_per_block * len(blocks),
            output_tokens=draw.randint(0, 200),
        )
    return builder.build()


def depths_by_list(trace: Trace) -> list[int]:
    """Keep blocks in the order of use, the newest last."""
    order: list[int] = []
    found = []
    for path in trace.paths():
        found += [len(order) - order.index(block) if block in order else 0 for block in path.tolist()]
        for block in reversed(path.tolist()):
            if block in order:
                order.remove(block)
            order.append(block)
    return found


def test_depths_are_those_of_a_list_in_the_order_of_use() -> None:
    trace = conversations(random.Random(chosen_seed()), 60)
    assert lru_depths(trace, with_output=False).tolist() == depths_by_list(trace)


def test_hits_at_every_capacity_are_the_native_curves() -> None:
    trace = conversations(random.Random(chosen_seed()), 300)
    depths = lru_depths(trace, with_output=False)
    curve = lru_curve(trace)
    for capacity in (1, 10, 100, 500, 2000, trace.num_blocks):
        share = float(((depths > 0) & (depths <= capacity)).mean())
        assert share == pytest.approx(curve.hit_rate(capacity)), capacity


def setup_of(candidate: Candidate) -> SimulationSetup:
    prefill = PrefillSource(curve=PrefillCurve(0.005, 3.2e-5, 5e-10), told="stated")
    engine = EngineFacts(prefill=prefill, decode_token_s=0.01, kv_bytes=0)
    return make_setup(CacheConfig(**candidate.settings(["/nvme0/tiercel"])), MODEL, machine(), engine)


def test_the_forecast_ranks_capacities_as_the_simulator_does() -> None:
    trace = conversations(random.Random(5), 300)
    oracle = SimulatedOracle(trace, Forecaster(trace), setup_of, simulate, requests_max=1000)
    candidates = [Candidate(host_bytes=size << 28) for size in (1, 4, 16, 64, 256)]
    simulated = [oracle.evaluate(candidate) for candidate in candidates]
    forecast = [oracle.forecast(candidate) for candidate in candidates]
    rates = np.array([outcome.token_hit_rate for outcome in simulated])
    assert np.allclose([outcome.token_hit_rate for outcome in forecast], rates, atol=0.03)
    means = [outcome.times_s["ttft_mean"] for outcome in forecast]
    assert means == sorted(means, reverse=True)
    assert means == pytest.approx([outcome.times_s["ttft_mean"] for outcome in simulated], rel=0.15)


def test_without_a_cache_nothing_is_held_or_written() -> None:
    trace = conversations(random.Random(5), 100)
    oracle = SimulatedOracle(trace, Forecaster(trace), setup_of, simulate, requests_max=1000)
    alone = oracle.without()
    assert alone.token_hit_rate == 0
    assert alone.disk_written_bytes == 0
    assert alone.times_s["ttft_mean"] > oracle.evaluate(Candidate(host_bytes=64 * GIB)).times_s["ttft_mean"]
    hit = oracle.typical_hit(Candidate(host_bytes=64 * GIB, disk_bytes=64 * GIB))
    assert hit.tokens > 0
    assert len(hit.load_s) == 2
    assert all(0 < load_s < hit.compute_s for load_s in hit.load_s.values())


def test_a_stretch_waits_for_nobody_outside_of_it() -> None:
    builder = TraceBuilder("chain", tokens_per_block=16)
    last = -1
    for number in range(10):
        last = builder.add([1, number], arrival_s=float(number), input_tokens=32, after=last, delay_s=1.0)
    part = stretch_of(builder.build(), 4)
    assert part.num_requests == 4
    assert part.arrivals_s[0] == 0
    assert part.after.tolist() == [-1, 0, 1, 2]
