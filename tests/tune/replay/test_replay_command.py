"""`tiercel replay` and `tiercel prove`: what they print, and how they end."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.replay_samples import machine, random_trace, settings, setup
from tiercel import cli
from tiercel.tune.machine import write_machine
from tiercel.tune.replay import FOLDER, Pace, ReplayReport, replay
from tiercel.tune.replay.memory import EngineBuffers
from tiercel.tune.simulate import SimulationResult, SimulationSetup, simulate
from tiercel.tune.traces import Trace

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A trace, settings, a model and a prefill curve in files, as the commands take them."""
    rows = [
        {"timestamp": 20 * number, "input_length": 40, "output_length": 5, "hash_ids": [number % 7, 100 + number]}
        for number in range(40)
    ]
    (tmp_path / "trace.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tiercel.yaml").write_text(
        f"tokens_per_block: 16\nnum_cpu_blocks: 64\nenable_ssd: true\nnum_ssd_blocks: 128\n"
        f"ssd_cache_dir: {tmp_path / 'ssd'}\nload_policy: always\n"
    )
    facts = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "torch_dtype": "bfloat16",
    }
    (tmp_path / "config.json").write_text(json.dumps(facts))
    (tmp_path / "prefill.json").write_text('{"fixed_s": 0.001, "token_s": 0.0001}')
    write_machine(machine(tmp_path / "ssd"), tmp_path / "machine.json")
    given = {"config": "tiercel.yaml", "model": "config.json", "prefill": "prefill.json"}
    options = [word for name, file in given.items() for word in (f"--{name}", str(tmp_path / file))]
    return [str(tmp_path / "trace.jsonl"), "--tokens-per-block", "32", *options]


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
    "wrong", [["--speedup", "0"], ["--requests", "0"], ["--tolerance", "-1"], ["--gpu-rate", "1e12"]]
)
def test_a_wrong_option_is_refused(words: list[str], tmp_path: Path, wrong: list[str], capsys: Capture) -> None:
    machine_file = str(tmp_path / "machine.json")
    assert cli.main(["prove", *words, "--machine", machine_file, *wrong]) == 2
    assert wrong[0].strip("-").split("-")[0] in capsys.readouterr().err
    assert not (tmp_path / "ssd").exists()


def test_ctrl_c_ends_a_replay_and_leaves_nothing(words: list[str], tmp_path: Path) -> None:
    code = "import sys; from tiercel.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "replay", *words, "--speedup", "0.01"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stop_at = time.monotonic() + 60
    while not list((tmp_path / "ssd" / FOLDER).glob("*/data-*")):
        assert process.poll() is None
        assert time.monotonic() < stop_at
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert not (tmp_path / "ssd" / FOLDER).exists()


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
