"""What holds for every run: over random traces, nothing is lost, counted twice or out of order."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.tune.simulate._worlds import BLOCK_BYTES, DISK, HOST, SIZE, link, make_setup, make_trace
from tiercel.control import Admission
from tiercel.costs import PrefillCurve
from tiercel.plan import LoadPolicy
from tiercel.tune.simulate import Simulation, SimulationResult, SimulationSetup, simulate
from tiercel.tune.traces import NO_REQUEST, Trace, TraceBuilder

SEEDS = range(12)


def random_trace(seed: int, num_requests: int = 120) -> Trace:
    """Conversations that branch, prompts that end within a block, and requests that wait for others."""
    rng = np.random.default_rng(seed)
    builder = TraceBuilder(f"random {seed}", tokens_per_block=2 * SIZE)
    paths: list[list[int]] = [[]]
    name = 0
    arrival_s = 0.0
    for number in range(num_requests):
        path = list(paths[rng.integers(len(paths))])
        path = path[: rng.integers(len(path) + 1)] if rng.random() < 0.3 else path
        added = int(rng.integers(1, 6))
        path += range(name, name + added)
        name += added
        paths.append(path)
        arrival_s += float(rng.exponential(0.4))
        waits = number > 0 and rng.random() < 0.2
        builder.add(
            path,
            arrival_s=arrival_s,
            input_tokens=2 * SIZE * len(path) - int(rng.integers(2 * SIZE)),
            output_tokens=int(rng.integers(0, 80)),
            session=int(rng.integers(8)),
            after=int(rng.integers(number)) if waits else NO_REQUEST,
            delay_s=float(rng.random()),
        )
    return builder.build()


def random_setup(seed: int) -> SimulationSetup:
    """Any policy, over links slow enough that queues and deadlines matter."""
    rng = np.random.default_rng(seed + 1000)
    tiers = [(20, 0), (0, 60), (20, 60), (60, 20)][rng.integers(4)]
    return make_setup(
        *tiers,
        reads={HOST: link(0.01), DISK: link(0.05, latency_s=0.002)},
        writes={HOST: link(0.01), DISK: link(0.08, latency_s=0.002)},
        deadline_s=float(rng.choice([0.3, 30.0])),
        engine={
            "prefill": PrefillCurve(0.01, 0.5 / SIZE, 1e-5),
            "decode_token_s": 0.01,
            "gpu_blocks": int(rng.choice([0, 10])),
            "replicas": int(rng.integers(1, 4)),
            "stores_output": bool(rng.integers(2)),
        },
        control={
            "load_policy": LoadPolicy(rng.choice(["auto", "always", "never"])),
            "eviction_policy": str(rng.choice(["lru", "slru", "fifo", "2q"])),
            "ssd_admission": Admission(rng.choice(["through", "on_second_hit", "on_evict"])),
            "evict_ratio": float(rng.choice([0.0, 0.1])),
            "evict_start_threshold": float(rng.choice([1.0, 0.8])),
        },
    )


def held(result: SimulationResult) -> np.ndarray:
    """Blocks of each request that came from anywhere."""
    return result.gpu_blocks + sum(result.hit_blocks.values())


@pytest.mark.parametrize("seed", SEEDS)
def test_blocks_had_and_computed_are_all_full_blocks_and_times_follow_each_other(seed: int) -> None:
    trace, setup = random_trace(seed), random_setup(seed)
    result = simulate(trace, setup)
    had = held(result)
    assert (had >= 0).all()
    assert (had <= np.maximum(0, trace.input_tokens - 1) // SIZE).all(), "the last token is always computed"
    assert_array_equal(result.full_blocks, trace.input_tokens // SIZE)
    for earlier, later in (("arrived_s", "ready_s"), ("ready_s", "started_s"), ("started_s", "first_token_s")):
        assert (getattr(result, earlier) <= getattr(result, later)).all(), (seed, earlier, later)
    assert (result.first_token_s <= result.ended_s).all()
    waiting = np.flatnonzero(trace.after != NO_REQUEST)
    np.testing.assert_allclose(
        result.arrived_s[waiting], result.ended_s[trace.after[waiting]] + trace.delays_s[waiting]
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_held_when_everything_has_ended(seed: int) -> None:
    simulation = Simulation(random_trace(seed), random_setup(seed))
    simulation.run()
    assert len(simulation.operations) == 0
    assert simulation.operations.transfers.num_open == 0
    simulation.control.index.check()
    for tier in simulation.control.tiers:
        stats = simulation.control.stats(tier)
        assert (stats.num_pinned, stats.num_writing) == (0, 0)
        assert stats.num_free + stats.num_ready == stats.num_slots
    for replica in simulation.replicas:
        if replica.cache is not None:
            replica.cache.index.check()
            assert replica.cache.index.stats(0).num_pinned == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_each_link_is_busy_for_its_bytes_over_its_rate(seed: int) -> None:
    setup = random_setup(seed)
    result = simulate(random_trace(seed), setup)
    for tier, traffic in result.tiers.items():
        read_s = traffic.blocks_read * BLOCK_BYTES / setup.reads[tier].bytes_per_s
        written_s = traffic.blocks_written * BLOCK_BYTES / setup.writes[tier].bytes_per_s
        assert traffic.busy_s == pytest.approx(read_s + written_s)
        assert traffic.wait_s >= 0


@pytest.mark.parametrize("seed", SEEDS)
def test_hits_are_read_and_loads_without_deadlines_bring_what_was_promised(seed: int) -> None:
    setup = replace(random_setup(seed), deadline_s=1e6)
    result = simulate(random_trace(seed), setup)
    assert "deadline" not in result.refused
    for tier, hits in result.hit_blocks.items():
        passed_on = sum(blocks.sum() for slower, blocks in result.hit_blocks.items() if slower > tier)
        assert hits.sum() <= result.tiers[tier].blocks_read <= hits.sum() + passed_on


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_inputs_give_the_same_result_to_the_last_bit(seed: int) -> None:
    first, second = (simulate(random_trace(seed), random_setup(seed), seed=7) for _ in range(2))
    for name in ("gpu_blocks", "matched_blocks", "arrived_s", "ready_s", "started_s", "first_token_s", "ended_s"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name
    assert {tier: blocks.tobytes() for tier, blocks in first.hit_blocks.items()} == {
        tier: blocks.tobytes() for tier, blocks in second.hit_blocks.items()
    }
    assert (first.tiers, first.refused) == (second.tiers, second.refused)
    assert (first.prefill_busy_s, first.prefill_saved_s) == (second.prefill_busy_s, second.prefill_saved_s)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_tier_without_waiting_hits_what_the_lru_stack_says(seed: int) -> None:
    """A block is hit if fewer than `capacity` different ones were used since, touching from leaf to root."""
    trace = random_trace(seed)
    trace = replace(
        trace,
        tokens_per_block=SIZE,
        input_tokens=(np.where(trace.leaves >= 0, trace.depths[trace.leaves], -1) + 1).astype(np.int64) * SIZE + 1,
        output_tokens=np.ones(trace.num_requests, np.int64),
        after=np.full(trace.num_requests, NO_REQUEST, np.int32),
        arrivals_s=1000.0 * np.arange(trace.num_requests, dtype=np.float64),
    )
    capacity = 40
    stack: list[int] = []
    expected = []
    for path in (path.tolist() for path in trace.paths()):
        near = set(stack[:capacity])
        hits = next((place for place, block in enumerate(path) if block not in near), len(path))
        expected.append(hits)
        used = set(path)
        stack = path + [block for block in stack if block not in used]
    result = simulate(trace, make_setup(host=capacity))
    assert_array_equal(result.hit_blocks[HOST], expected)


def test_two_requests_that_wait_for_each_other_are_refused() -> None:
    trace = replace(make_trace((0, [1]), (1, [2])), after=np.array([1, 0], np.int32))
    with pytest.raises(ValueError, match="after"):
        simulate(trace, make_setup(host=4))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"speedup": 0.0}, "speedup = 0.0"),
        ({"deadline_s": float("nan")}, "deadline_s = nan"),
        ({"reads": {}}, "reads has no link for host"),
    ],
)
def test_a_setup_that_no_run_can_begin_with_names_what_is_wrong(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make_setup(host=4, **changes)
