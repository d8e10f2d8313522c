"""`tiercel replay` and `tiercel prove`: what they print, and how they end."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.replay_samples import random_trace, settings, setup, write_inputs
from tiercel import cli
from tiercel.tune.replay import Pace, ReplayReport, replay
from tiercel.tune.replay.memory import EngineBuffers
from tiercel.tune.simulate import SimulationResult, SimulationSetup, simulate
from tiercel.tune.traces import Trace

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    return write_inputs(tmp_path)


def test_replay_prints_hits_bytes_and_what_was_compared(words: list[str], capsys: Capture) -> None:
    assert cli.main(["replay", *words, "--pace", "lockstep"]) == 0
    shown = capsys.readouterr().out
    assert "40 requests, 80 blocks of 16 tokens and" in shown
    assert "each compared; wrong: 0" in shown
    assert "TTFT: p50" in shown
    assert cli.main(["replay", *words, "--requests", "10", "--speedup", "20", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["requests"], told["wrong_blocks"]) == (10, 0)


def test_a_tier_that_failed_ends_a_replay_with_1_and_is_named(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def replay_with_faults(*arguments: Any, **options: Any) -> ReplayReport:
        return dataclasses.replace(replay(*arguments, **options), faults={"disk": 3})

    monkeypatch.setattr("tiercel.tune.replay.replay", replay_with_faults)
    assert cli.main(["replay", *words, "--pace", "lockstep"]) == 1
    assert "FAILED: 3 blocks that the disk tier could not read or write" in capsys.readouterr().out
    assert cli.main(["replay", *words, "--pace", "lockstep", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["faults"] == {"disk": 3}


def test_prove_ends_with_1_beyond_its_tolerance_and_with_0_within(
    words: list[str], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = ["prove", *words, "--machine", str(tmp_path / "machine.json"), "--requests", "20", "--speedup", "5"]
    chosen += ["--bytes-min", "0B"]
    assert cli.main([*chosen, "--tolerance", "1e9"]) == 0
    shown = capsys.readouterr().out
    assert "in lockstep: hits of all 20 requests are equal, block for block" in shown
    assert "the prediction holds" in shown

    def too_slow(trace: Trace, setup: SimulationSetup, **options: Any) -> SimulationResult:
        result = simulate(trace, setup, **options)
        return dataclasses.replace(result, first_token_s=result.first_token_s + 3600.0)

    monkeypatch.setattr("tiercel.tune.replay.proof.simulate", too_slow)
    assert cli.main([*chosen, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["failures"]
    assert told["lockstep"]["differing"] == 0


@pytest.mark.parametrize(
    "wrong",
    [["--speedup", "0"], ["--requests", "0"], ["--tolerance", "-1"], ["--bytes-min", "x"], ["--gpu-rate", "1e12"]],
)
def test_a_wrong_option_is_refused(words: list[str], tmp_path: Path, wrong: list[str], capsys: Capture) -> None:
    machine_file = str(tmp_path / "machine.json")
    assert cli.main(["prove", *words, "--machine", machine_file, *wrong]) == 2
    assert wrong[0].strip("-").split("-")[0] in capsys.readouterr().err
    assert not (tmp_path / "ssd").exists()


def test_a_proof_of_a_small_cache_or_trace_is_refused_before_anything_is_made(
    words: list[str], tmp_path: Path, capsys: Capture
) -> None:
    chosen = ["prove", *words, "--machine", str(tmp_path / "machine.json")]
    assert cli.main(chosen) == 2
    told = capsys.readouterr().err
    assert "num_cpu_blocks = 64: the host tier holds" in told
    assert "raise num_cpu_blocks" in told
    assert cli.main([*chosen, "--bytes-min", "100KiB", "--requests", "5"]) == 2
    told = capsys.readouterr().err
    assert "trace = 'trace.jsonl': its 5 requests would move" in told
    assert "take more requests" in told
    assert not (tmp_path / "ssd").exists()


def test_an_engine_with_little_memory_waits_for_transfers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = random_trace(2, num_requests=80)
    longest = int(((trace.input_tokens + trace.output_tokens) // 4).max()) + 1
    counts: list[int] = []

    class Watched(EngineBuffers):
        def take(self, num_blocks: int) -> np.ndarray:
            counts.append(self.num_free - num_blocks)
            return super().take(num_blocks)

    monkeypatch.setattr("tiercel.tune.replay.run._engine_blocks", lambda _trace, _setup: 2 * longest)
    monkeypatch.setattr("tiercel.tune.replay.run.EngineBuffers", Watched)
    chosen = setup(settings(tmp_path, host=200), pace=Pace.REALTIME)
    report = replay(dataclasses.replace(trace, arrivals_s=np.zeros(80)), chosen)
    assert report.wrong_blocks == 0 < report.restored_blocks
    assert 0 <= min(counts) < longest
