"""What the simulator predicts and what the real cache does, block for block, and what a proof makes of both."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.helpers.replay_samples import MODEL, machine, random_trace, settings, setup
from tests.helpers.seeds import chosen_seed
from tiercel import Cache, CacheConfig, TierName
from tiercel.costs import PrefillCurve
from tiercel.tune.replay import Pace, Proof, ReplaySetup, prove, replay, simulate_in_lockstep
from tiercel.tune.replay.proof import StageProgress, compare_figures, compare_hits
from tiercel.tune.simulate import EngineFacts, PrefillSource, SimulationResult, make_setup, simulate
from tiercel.tune.traces import Trace

ADMISSIONS = ("through", "on_second_hit", "on_evict")
POLICIES = ("lru", "2q", "slru", "lfu", "fifo", "mru", "filo", "arc", "cost")
CURVE = PrefillCurve(fixed_s=1e-4, token_s=1e-4)


def predicted(trace: Trace, chosen: ReplaySetup, folder: Path) -> SimulationResult:
    facts = EngineFacts(prefill=PrefillSource(curve=chosen.engine.prefill, told=""))
    made = make_setup(chosen.config, chosen.model, machine(folder), facts)
    made = dataclasses.replace(made, engine=chosen.engine)
    return simulate_in_lockstep(trace, made, root=chosen.root_key)


def assert_equal(trace: Trace, config: CacheConfig, folder: Path, **engine: Any) -> None:
    chosen = setup(config, **engine)
    report = replay(trace, chosen)
    real, modelled = report.result, predicted(trace, chosen, folder)
    assert report.wrong_blocks == report.failed_blocks == 0
    assert_array_equal(real.matched_blocks, modelled.matched_blocks)
    assert_array_equal(real.gpu_blocks, modelled.gpu_blocks)
    for tier, blocks in real.hit_blocks.items():
        assert_array_equal(blocks, modelled.hit_blocks[tier], str(tier))
        for name in ("blocks_read", "blocks_written", "evicted"):
            assert getattr(real.tiers[tier], name) == getattr(modelled.tiers[tier], name), (tier, name)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("admission", ADMISSIONS)
def test_hits_in_lockstep_are_those_that_were_simulated(tmp_path: Path, admission: str, policy: str) -> None:
    config = settings(tmp_path, host=16, disk=48, ssd_admission=admission, eviction_policy=policy)
    assert_equal(random_trace(chosen_seed()), config, tmp_path)


@pytest.mark.parametrize(("host", "disk"), [(16, 0), (0, 48), (48, 16), (64, 128)])
@pytest.mark.parametrize("admission", ADMISSIONS)
def test_so_they_are_whatever_the_sizes_of_tiers(tmp_path: Path, host: int, disk: int, admission: str) -> None:
    if admission == "on_evict" and not host:
        pytest.skip("without a host tier nothing would ever leave it: refused")
    config = settings(tmp_path, host=host, disk=disk, ssd_admission=admission, ssd_eviction_policy="2q")
    assert_equal(random_trace(chosen_seed(), num_requests=120), config, tmp_path)


@pytest.mark.parametrize(
    "others",
    [
        {"evict_start_threshold": 0.8, "evict_ratio": 0.2},
        {"min_store_priority": 1},
        {"load_policy": "never"},
        {"load_policy": "always"},
        {"hit_reward_seconds": 100.0},
        {"ssd_write_budget_per_day": 2**20},
    ],
)
def test_so_they_are_with_other_settings(tmp_path: Path, others: dict[str, object]) -> None:
    assert_equal(random_trace(chosen_seed()), settings(tmp_path, host=16, disk=48, **others), tmp_path)


@pytest.mark.parametrize(
    "engine",
    [
        {"gpu_blocks": 12},
        {"gpu_blocks": 6, "replicas": 2},
        {"stores_output": False},
        {"gpu_blocks": 12, "step_tokens": 10},
    ],
)
def test_so_they_are_behind_an_engine_with_blocks_of_its_own(tmp_path: Path, engine: dict[str, object]) -> None:
    config = settings(tmp_path, host=24, disk=48, load_policy="always")
    assert_equal(random_trace(chosen_seed()), config, tmp_path, prefill=CURVE, **engine)


def test_an_engine_of_steps_gets_the_right_bytes_in_real_time(tmp_path: Path) -> None:
    config = settings(tmp_path, host=24, disk=48, load_policy="always")
    chosen = setup(config, pace=Pace.REALTIME, prefill=CURVE, gpu_blocks=12, step_tokens=10, decode_token_s=1e-3)
    trace = random_trace(chosen_seed(), span_s=0.5)
    report = replay(trace, chosen)
    assert report.wrong_blocks == report.failed_blocks == 0
    assert report.restored_blocks > 0
    assert (report.result.ended_s >= report.result.first_token_s).all()
    assert (report.result.first_token_s >= report.result.arrived_s).all()


def prove_it(tmp_path: Path, tolerance: float, trace: Trace, progress: StageProgress | None = None) -> Proof:
    chosen = settings(tmp_path, host=200, load_policy="always")
    facts = EngineFacts(prefill=PrefillSource(curve=CURVE, told="made up"))
    given = ReplaySetup(model=MODEL, config=chosen, engine=setup(chosen, prefill=CURVE).engine)
    return prove(trace, given, machine(tmp_path), facts, tolerance=tolerance, bytes_min=0, progress=progress)


def test_a_proof_compares_hits_bytes_and_times(tmp_path: Path) -> None:
    proof = prove_it(tmp_path, 1e9, random_trace(3, span_s=1.0))
    assert proof.failures == ()
    assert proof.lockstep.num_differing == 0
    assert {figure.name for figure in proof.figures} >= {"hit rate, of blocks", "host read", "host written", "TTFT p99"}
    assert all(report.restored_blocks > 0 for report in proof.reports)
    assert "made up" in proof.notes


def test_shares_of_a_machine_are_proved_with_what_the_prediction_took_them_for(tmp_path: Path) -> None:
    chosen = dataclasses.replace(settings(tmp_path, load_policy="always"), num_cpu_blocks="0.000001%")
    facts = EngineFacts(prefill=PrefillSource(curve=CURVE, told="made up"))
    given = ReplaySetup(model=MODEL, config=chosen, engine=setup(chosen, prefill=CURVE).engine)
    proof = prove(random_trace(3), given, machine(tmp_path), facts, tolerance=1e9, bytes_min=0)
    assert proof.failures == ()
    assert proof.reports[0].result.tiers[TierName.HOST].evicted > 0


def test_a_proof_fails_if_a_tier_did(tmp_path: Path) -> None:
    proof = prove_it(tmp_path, 1e9, random_trace(3))
    reports = (proof.reports[0], dataclasses.replace(proof.reports[1], faults={"disk": 7}))
    assert "the disk tier failed 7 blocks" in " ".join(dataclasses.replace(proof, reports=reports).failures)


def test_a_replay_that_ran_late_is_said_to_measure_itself(tmp_path: Path) -> None:
    def hold_up(stage: str, _done: int, _total: int) -> None:
        if stage == "replay, realtime":
            time.sleep(0.6)

    trace = random_trace(3, num_requests=300, span_s=1.0)
    slow = prove_it(tmp_path, 0.1, trace, progress=hold_up)
    assert slow.notes[0].startswith("the replay's own thread")
    assert slow.reports[1].late_s > 0.4
    assert "give a lower --speedup" in slow.notes[0]
    # However busy the machine is, it is later than nothing, and no later than without end.
    assert not any("own thread" in note for note in prove_it(tmp_path, 1e9, trace).notes)


def test_a_proof_fails_beyond_its_tolerance_and_says_why(tmp_path: Path) -> None:
    trace = random_trace(3)
    real = replay(trace, setup(settings(tmp_path), prefill=CURVE)).result
    double = dataclasses.replace(real, first_token_s=real.first_token_s + 1.0)
    figures = {figure.name: figure for figure in compare_figures(double, real)}
    assert figures["TTFT p50"].deviation > 1
    assert figures["hit rate, of blocks"].deviation == 0
    proof = dataclasses.replace(prove_it(tmp_path, 0.1, trace), figures=tuple(figures.values()))
    assert "TTFT p50 is predicted" in " ".join(proof.failures)


def test_requests_that_differ_are_told_by_what_differs(tmp_path: Path) -> None:
    real = replay(random_trace(3), setup(settings(tmp_path, host=16, disk=64))).result
    assert compare_hits(real, real).num_differing == 0
    host, disk = TierName.HOST, TierName.DISK
    request = int(np.flatnonzero(real.hit_blocks[disk])[0])
    other = {tier: blocks.copy() for tier, blocks in real.hit_blocks.items()}
    other[disk][request] -= 1
    fewer = compare_hits(dataclasses.replace(real, hit_blocks=other), real)
    assert (fewer.loaded_otherwise, fewer.first) == (1, request)
    moved = {host: other[host].copy(), disk: other[disk]}
    moved[host][request] += 1
    assert compare_hits(dataclasses.replace(real, hit_blocks=moved), real).placed_otherwise == 1
    found = real.matched_blocks.copy()
    found[request] += 1
    assert compare_hits(dataclasses.replace(real, matched_blocks=found), real).found_otherwise == 1


def test_a_simulation_in_lockstep_hashes_the_keys_that_the_cache_does(tmp_path: Path) -> None:
    chosen = setup(settings(tmp_path, host=16))
    with Cache.open(chosen.cache_model, chosen.cache_config) as cache:
        assert cache.sequence([1, 2, 3]).root == chosen.root_key


def test_the_pace_of_a_simulation_does_not_change_what_lockstep_finds(tmp_path: Path) -> None:
    trace, chosen = random_trace(chosen_seed(), span_s=5.0), setup(settings(tmp_path, host=16), prefill=CURVE)
    facts = EngineFacts(prefill=PrefillSource(curve=CURVE, told=""))
    apart = make_setup(chosen.config, chosen.model, machine(tmp_path), facts, speedup=1e-6)
    assert_array_equal(
        simulate(trace, apart).hit_blocks[TierName.HOST], predicted(trace, chosen, tmp_path).hit_blocks[TierName.HOST]
    )
    assert replay(trace, dataclasses.replace(chosen, pace=Pace.REALTIME)).wrong_blocks == 0
