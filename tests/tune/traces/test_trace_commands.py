"""`tiercel trace`, as a new user types it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from _traces import DEFAULT_FOLDER, SKIPPED, TRACE_FILES

from tests.helpers.trace_samples import write_rows
from tiercel import cli
from tiercel.tune.traces import read_trace

ROWS = (
    {"timestamp": 0, "input_length": 1100, "output_length": 7, "hash_ids": [5, 6, 7]},
    {"timestamp": 1500, "input_length": 1024, "output_length": 8, "hash_ids": [5, 6]},
)

KNOWN = {  # requests, references, different blocks, ideal hits by blocks, by tokens, mean per request
    "conversation": (12_031, 288_500, 182_790, 36.6, 37.4, 38.4),
    "synthetic": (3_993, 121_877, 43_924, 64.0, 65.1, 42.3),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "trace.jsonl", *ROWS)


def test_info_shows_each_rate_by_its_name(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trace", "info", str(path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "requests 2 over 1.5 s" in shown
    assert "blocks of 512 tokens 5, 3 different" in shown
    assert "ideal hit rate, by blocks 40.0%" in shown
    assert "ideal hit rate, by tokens 48.2%" in shown
    assert "ideal hit rate, mean per request 50.0%" in shown
    assert "of full blocks alone, by blocks 50.0%" in shown


def test_info_of_several_files_as_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trace", "info", str(path), str(path), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [found["file"] for found in shown] == [str(path)] * 2
    assert shown[0]["trace"]["ideal"] == {"blocks": 0.4, "tokens": 1024 / 2124, "request_mean": 0.5}
    assert shown[0]["trace"]["sessions"]["sessions"] == 0


def test_info_tells_turns_and_gaps_of_sessions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = (
        {"tokens": [1], "arrival_s": at, "session_id": name} for at, name in ((0, "a"), (1, "b"), (4, "a"), (10, "a"))
    )
    assert cli.main(["trace", "info", str(write_rows(tmp_path / "t.jsonl", *rows)), "--json"]) == 0
    sessions = json.loads(capsys.readouterr().out)[0]["trace"]["sessions"]
    assert sessions["sessions"] == 2
    assert sessions["turns_mean"] == 2
    assert sessions["turns_max"] == 3
    assert sessions["gap_median_s"] == 5


def test_convert_writes_and_says_what_was_lost(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = path.with_name("out.jsonl.gz")
    assert cli.main(["trace", "convert", str(path), str(target), "--to", "bailian", "--reblock", "16"]) == 0
    shown = capsys.readouterr().out
    assert "2 requests, blocks of 16 tokens, as bailian" in shown
    assert "lost: that 2 requests are of no session" in shown
    trace = read_trace(target)
    assert trace.num_blocks_named.tolist() == [69, 64]
    assert trace.num_blocks_seen.tolist() == [0, 64]


def test_an_existing_file_is_replaced_only_when_told(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = path.read_bytes()
    assert cli.main(["trace", "convert", str(path), str(path), "--to", "tiercel"]) == 2
    assert "exists; give --overwrite" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert cli.main(["trace", "convert", str(path), str(path), "--to", "tiercel", "--overwrite"]) == 0
    assert read_trace(path).num_requests == 2


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["info"], 2, "name a trace"),
        (["info", "nowhere.jsonl"], 1, "No such file"),
        (["info", "{path}", "--format", "excel"], 2, "must be one of"),
        (["info", "{path}", "--tokens-per-block", "100"], 2, "power of two"),
        (
            ["info", "{path}", "--tokens-per-block", "2048", "--format", "bailian"],
            1,
            "missing required field `chat_id`",
        ),
        (["info", "{path}", "--tokenizer", "nowhere.json"], 1, "No such file"),
        (["convert", "{path}", "out", "--to", "weka"], 2, "must be one of"),
        (["convert", "{path}", "nowhere/out", "--to", "mooncake"], 1, "No such file"),
        (["convert", "{path}", "out", "--to", "mooncake", "--reblock", "0"], 2, "must be 1 to 65536"),
        (["convert", "{path}", "out", "--to", "mooncake", "--reblock", "1" + 30 * "0"], 2, "must be 1 to 65536; give"),
    ],
)
def test_mistakes_are_one_line(
    path: Path,
    words: list[str],
    code: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "--tokenizer" in words:
        pytest.importorskip("tokenizers")
    monkeypatch.chdir(path.parent)
    assert cli.main(["trace", *(word.format(path=path) for word in words)]) == code
    shown = capsys.readouterr().err
    assert told in shown
    assert shown.count("\n") == 1
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_interrupt_while_converting_ends_quietly_and_leaves_nothing(tmp_path: Path) -> None:
    row = msgspec.json.encode(ROWS[0]) + b"\n"
    (tmp_path / "trace.jsonl").write_bytes(row * 200_000)
    words = ["trace", "convert", "trace.jsonl", "out.jsonl.gz", "--to", "token-ids"]
    code = f"import sys, tiercel.cli; sys.exit(tiercel.cli.main({words!r}))"
    running = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE)
    while running.poll() is None and not list(tmp_path.glob(".out*")):
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert not errors
    assert [file.name for file in tmp_path.iterdir()] == ["trace.jsonl"]


@pytest.mark.parametrize("name", KNOWN)
def test_known_traces_come_to_what_is_known_of_them(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = sorted(DEFAULT_FOLDER.rglob(TRACE_FILES[name])) if DEFAULT_FOLDER.is_dir() else []
    if not found:
        pytest.skip(SKIPPED.format(file=TRACE_FILES[name], folder=DEFAULT_FOLDER))
    assert cli.main(["trace", "info", str(found[0]), "--json"]) == 0
    trace = json.loads(capsys.readouterr().out)[0]["trace"]
    rates = tuple(round(100 * trace["ideal"][key], 1) for key in ("blocks", "tokens", "request_mean"))
    assert (trace["requests"], trace["block_references"], trace["distinct_blocks"], *rates) == KNOWN[name]
