"""`tiercel advise` from files to files: what it prints, what it writes, and what it says of wrong input."""

import errno
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.tune.advise.stand_in import machine
from tiercel import cli
from tiercel.config import load_config
from tiercel.tune.machine import write_machine

Capture = pytest.CaptureFixture[str]

CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "head_dim": 128,
    "torch_dtype": "bfloat16",
}


def write_trace(path: Path, *, shared: bool) -> Path:
    """A trace of Mooncake's format: 12 conversations of 6 turns, or as many requests that share nothing."""
    draw, fresh = random.Random(1), iter(range(100_000))
    rows: list[dict[str, Any]] = []
    for number in range(12):
        blocks = [next(fresh) for _ in range(6)]
        at_ms = number * 1500
        for _ in range(6):
            rows.append(
                {"timestamp": at_ms, "input_length": 512 * len(blocks), "output_length": 20, "hash_ids": blocks}
            )
            blocks = [*blocks, next(fresh)] if shared else [next(fresh) for _ in range(8)]
            at_ms += draw.randint(4000, 9000)
    rows.sort(key=lambda row: row["timestamp"])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command that only lacks what a test adds. Files lie in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(CONFIG))
    write_machine(machine(), tmp_path / "machine.json")
    trace = write_trace(tmp_path / "trace.jsonl", shared=True)
    return ["advise", "--model", "model", "--trace", str(trace), "--gpu-rate", "60e12", "--evaluations", "14"]


def test_the_command_chooses_explains_and_writes(words: list[str], capsys: Capture) -> None:
    budget = ["--budget", "host=8GiB,disk=16GiB", "--slo", "ttft_p99=30s", "--prices", "host=3,disk=0.1,gpu_hour=2.5"]
    assert cli.main([*words, *budget]) == 0
    shown = capsys.readouterr().out
    for text in (
        "72 requests",
        "a cache is worth it",
        "the SLO is met (ttft_p99 <= 30 s)",
        "a million tokens cost",
        "one more GiB of",
        "the next best:",
        "rules of thumb, each followed alone",
        "16 tokens a block",
        "2048 disk requests in flight",
        "prefill by arithmetic, not measured",
        "--kv-transfer-config",
    ):
        assert text in shown, text
    loaded = load_config("tiercel.yaml", environ={})
    assert loaded.model is not None
    assert loaded.config.resolve(loaded.model).host_bytes <= 8 << 30


def test_the_same_question_gets_the_same_answer_as_json(words: list[str], capsys: Capture) -> None:
    answers = []
    for _ in range(2):
        assert cli.main([*words, "--budget", "host=2GiB", "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1]
    assert answers[0]["advice"]["choice"]["candidate"]["disk_bytes"] == 0
    assert answers[0]["advice"]["evaluations"] <= 14


def test_flexkvs_file_is_written_beside_ours(words: list[str]) -> None:
    assert cli.main([*words, "--budget", "host=1GiB,disk=16GiB", "--emit", "flexkv", "--output", "mine.yaml"]) == 0
    ours = load_config("mine.yaml", environ={})
    theirs = load_config("flexkv.yaml", environ={}, tokens_per_block=ours.config.tokens_per_block)
    assert ours.model is not None
    resolved = ours.config.resolve(ours.model), theirs.config.resolve(ours.model)
    assert resolved[0].num_cpu_blocks == resolved[1].num_cpu_blocks
    assert ours.config.eviction_policy == theirs.config.eviction_policy


def test_a_trace_without_sharing_is_told_from_one_with(words: list[str], tmp_path: Path, capsys: Capture) -> None:
    write_trace(tmp_path / "trace.jsonl", shared=False)
    assert cli.main([*words, "--budget", "host=2GiB"]) == 0
    shown = capsys.readouterr().out
    assert "a cache is NOT worth it" in shown
    assert "share next to nothing: 0.0 %" in shown


def test_a_log_of_prompts_is_read_as_the_trace_commands_read_it(words: list[str], capsys: Capture) -> None:
    """Its notes name --arrivals-per-s and --tokenizer: they are to be had here, too."""
    rows = [{"messages": [{"role": "user", "content": "the same beginning " * 400 + str(n)}]} for n in range(12)]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words[words.index("--trace") + 1] = "prompts.jsonl"
    spans = []
    for rate in ("0.01", "50"):
        assert cli.main([*words, "--budget", "host=2GiB", "--arrivals-per-s", rate, "--seed", "3", "--json"]) == 0
        spans.append(json.loads(capsys.readouterr().out)["advice"]["without"]["span_s"])
    assert spans[0] > 2 * spans[1]
    assert cli.main([*words, "--budget", "host=2GiB", "--tokenizer", "nowhere.json"]) != 0
    told = capsys.readouterr().err
    assert "nowhere.json" in told or "is read by the package tokenizers" in told  # where that library is not installed


def test_an_slo_that_nothing_meets_is_said(words: list[str], capsys: Capture) -> None:
    assert cli.main([*words, "--budget", "host=2GiB", "--slo", "ttft_p50=1us"]) == 0
    assert "meets the SLO: the choice comes closest, with ttft_p50 = " in capsys.readouterr().out


def test_a_long_trace_is_searched_on_a_stretch_of_it(words: list[str], capsys: Capture) -> None:
    assert cli.main([*words, "--budget", "host=2GiB", "--requests-max", "30", "--json"]) == 0
    advice = json.loads(capsys.readouterr().out)["advice"]
    candidates = [weighed["candidate"] for weighed in advice["tried"]]
    assert advice["choice"]["candidate"] in candidates
    assert advice["evaluations"] > 5


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--budget", "host=64"], "--budget host = '64'"),
        (["--budget", "host=1MiB"], "holds not one block of 16 tokens, 2.00 MiB; give more, or host=0"),
        (["--budget", "host=1GiB", "--minimise", "tps"], "--minimise = 'tps': must be one of ttft_mean"),
        (["--budget", "host=1GiB", "--prefill", "p.json"], "one of them must say"),
        (["--budget", "host=1GiB", "--evaluations", "0"], "--evaluations = 0: must be at least 1"),
        (["--budget", "host=1GiB", "--output", "no/where.yaml"], "lies in no folder"),
        (["--budget", "host=1GiB", "--output", "model"], "--output = 'model': is a folder"),
        (["--budget", "host=1GiB", "--speedup", "0"], "--speedup = 0.0: must be a positive number"),
        (["--budget", "host=1GiB", "--speedup", "inf"], "--speedup = inf: must be a positive number"),
        (["--budget", "host=1GiB", "--slo", ""], "--slo = '': must be KEY=VALUE"),
        (["--budget", "host=1GiB", "--prices", ""], "--prices = '': must be KEY=VALUE"),
    ],
)
def test_wrong_input_is_named_with_a_remedy(words: list[str], more: list[str], says: str, capsys: Capture) -> None:
    given = [word for word in words if word not in ("--evaluations", "14")] if "--evaluations" in more else words
    assert cli.main([*given, *more]) == 2
    assert says in capsys.readouterr().err


def test_a_disk_that_nobody_measured_is_refused(words: list[str], tmp_path: Path, capsys: Capture) -> None:
    import msgspec

    write_machine(msgspec.structs.replace(machine(), directories=()), tmp_path / "machine.json")
    assert cli.main([*words, "--budget", "host=1GiB,disk=1TiB"]) == 2
    assert "run tiercel probe with --directory" in capsys.readouterr().err


@pytest.mark.parametrize(("more", "name"), [([], "tiercel.yaml"), (["--emit", "flexkv"], "flexkv.yaml")])
def test_a_file_that_somebody_else_wrote_is_refused_before_the_search(
    words: list[str], more: list[str], name: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def searched(*_: object, **__: object) -> None:
        raise AssertionError("searched")

    monkeypatch.setattr("tiercel.tune.advise.options.simulate", searched)
    Path(name).write_text("cache_config: {}\n")
    assert cli.main([*words, "--budget", "host=1GiB", *more]) == 2
    assert f"{name}': is there already, and was not written by tiercel advise" in capsys.readouterr().err
    assert Path(name).read_text() == "cache_config: {}\n"


def test_a_file_that_cannot_be_written_costs_nobody_the_advice_nor_the_file_before(
    words: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main([*words, "--budget", "host=1GiB"]) == 0
    before = Path("tiercel.yaml").read_bytes()
    capsys.readouterr()

    def full(self: Path, text: str, encoding: str) -> None:
        self.write_bytes(text[:100].encode(encoding))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    assert cli.main([*words, "--budget", "host=2GiB"]) == 1
    shown = capsys.readouterr()
    assert "rules of thumb" in shown.out
    assert "written to" not in shown.out
    assert "tiercel.yaml: No space left on device" in shown.err
    assert Path("tiercel.yaml").read_bytes() == before
    assert not [path for path in Path().iterdir() if path.name.endswith(".partial")]


def test_an_interrupted_search_writes_nothing(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tiercel.tune.advise.options.simulate", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--budget", "host=1GiB"])
    assert ended.value.code == 130
    assert not Path("tiercel.yaml").exists()


def test_tiers_without_room_for_a_block_are_neither_searched_nor_asked_for_by_a_rule(
    words: list[str], capsys: Capture
) -> None:
    assert cli.main([*words, "--budget", "host=3MiB,disk=20MiB"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "disk 100 times host memory, as large as the budget allows - unjudged: a tier would be smaller than" in told
