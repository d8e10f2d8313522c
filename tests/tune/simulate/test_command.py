"""`tiercel simulate`: from files to tables, and errors that say what to do."""

import csv
import io
import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.tune.simulate._mooncake import write_mooncake
from tests.tune.simulate.test_making import LLAMA, directory, machine
from tiercel.cli import main
from tiercel.tune.machine import StorageDevice, write_machine


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A command line that works."""
    write_mooncake(tmp_path / "trace.jsonl")
    (tmp_path / "model.json").write_text(json.dumps(LLAMA))
    write_machine(machine(directories=(directory("/cache"),)), tmp_path / "machine.json")
    (tmp_path / "tiercel.yaml").write_text(
        "num_cpu_blocks: 1GiB\nenable_ssd: true\nssd_cache_dir: /cache\nnum_ssd_blocks: 4GiB\ntokens_per_block: 64\n"
    )
    files = {"config": "tiercel.yaml", "model": "model.json", "machine": "machine.json"}
    named = [word for key, name in files.items() for word in (f"--{key}", str(tmp_path / name))]
    return ["simulate", str(tmp_path / "trace.jsonl"), *named]


RATE = ["--gpu-rate", "989e12"]


def test_tables_tell_all_three_hit_rates_and_every_assumption(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *RATE, "--endurance", "1400TBW"]) == 0
    told = capsys.readouterr().out
    for expected in (
        "12 requests",
        "block-weighted",
        "token-weighted",
        "per request",
        "time to first token",
        "GPU-seconds saved",
        "1,400 TB of endurance last",
        "assumed: prefill by arithmetic, not measured",
        "assumed: tokens are taken to be generated in no time",
    ):
        assert expected in told, expected


def test_json_and_csv_hold_the_same_numbers(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, *RATE, "--gpu-kv", "256MiB", "--decode-ms", "20", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert main([*words, *RATE, "--gpu-kv", "256MiB", "--decode-ms", "20", "--csv"]) == 0
    rows = {(row["metric"], row["of"]): row["value"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert summary["hits"]["block_weighted"] > 0.4
    assert float(rows["hit rate, block-weighted", "all"]) == summary["hits"]["block_weighted"]
    assert float(rows["time to first token", "p99"]) == summary["ttft"]["p99_s"]


def test_report_and_requests_are_written(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, requests = tmp_path / "report.html", tmp_path / "requests.csv"
    assert main([*words, *RATE, "--report", str(report), "--requests-csv", str(requests)]) == 0
    assert report.read_text().startswith("<!doctype html>")
    assert len(requests.read_text().splitlines()) == 13


def test_measured_prefills_are_taken_from_a_file(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prefill.json").write_text(json.dumps({"points": [[0, 1000, 0.1], [0, 4000, 0.5]]}))
    assert main([*words, "--prefill", str(tmp_path / "prefill.json")]) == 0
    assert "prefill fitted to 2 measured points" in capsys.readouterr().out


def test_a_trace_is_read_as_the_options_of_traces_say(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"input_length": 32, "output_length": 1, "hash_ids": [1, 2 + number], "timestamp": 0} for number in range(4)
    ]
    (tmp_path / "trace.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main([*words, *RATE, "--tokens-per-block", "16", "--requests-csv", str(tmp_path / "requests.csv")]) == 0
    assert "4 requests, 128 prompt tokens" in capsys.readouterr().out
    (tmp_path / "trace.jsonl").write_text("".join(json.dumps({"tokens": [number] * 20}) + "\n" for number in range(4)))
    spans = []
    for seed in ("1", "2", "1"):
        assert main([*words, *RATE, "--arrivals-per-s", "0.001", "--seed", seed, "--json"]) == 0
        spans.append(json.loads(capsys.readouterr().out)["span_s"])
    assert spans[0] == spans[2] != spans[1]
    assert spans[0] > 100


@pytest.mark.parametrize("seconds", [1e308, 1e-200])
def test_absurd_prefills_are_refused_by_point(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], seconds: float
) -> None:
    (tmp_path / "prefill.json").write_text(json.dumps({"points": [[0, 1000, 0.1], [0, 4000, seconds]]}))
    assert main([*words, "--prefill", str(tmp_path / "prefill.json")]) == 2
    told = capsys.readouterr().err
    assert "prefill: point 2 is none: a prefill needs" in told
    assert f"got 0, 4000 and {seconds}; correct it" in told


def test_an_engine_without_room_for_a_block_is_said_to_hold_nothing(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *RATE, "--gpu-kv", "1KiB"]) == 0
    assert "assumed: the engine's own prefix cache is taken to hold nothing: a block takes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ([], "prefill, prefill-from, gpu-rate: none given; give one"),
        ([*RATE, "--prefill", "p.json"], "prefill and gpu-rate given"),
        (["--gpu-rate", "-1"], "gpu-rate = -1.0: must be"),
        (["--gpu-rate", "1e-300"], "gpu-rate = 1e-300: must be"),
        (["--gpu-rate", "1e300"], "gpu-rate = 1e+300: must be"),
        ([*RATE, "--efficiency", "2"], "efficiency = 2.0: must be above 0 and at most 1"),
        ([*RATE, "--endurance", "much"], "endurance = 'much': must be"),
        ([*RATE, "--speedup", "0"], "speedup = 0.0: must be a positive number"),
        ([*RATE, "--replicas", "0"], "replicas = 0: must be 1 to 1024; count the engines"),
        ([*RATE, "--replicas", "1000000"], "replicas = 1000000: must be 1 to 1024; count the engines"),
        (
            [*RATE, "--gpu-kv", "1000000TiB"],
            "gpu-kv = 1000000.00 TiB: must be at most 2147483648 blocks of 8.00 MiB; give",
        ),
        ([*RATE, "--json", "--csv"], "json, csv: both"),
        ([*RATE, "--gpu-kv", "many"], "gpu-kv = 'many'"),
        ([*RATE, "--step-tokens", "0"], "step-tokens = 0: must be at least 1"),
        ([*RATE, "--decode-ms", "-3"], "decode-ms = -3: must be 0 or more milliseconds"),
        ([*RATE, "--seed", "-1"], "seed = -1: must be 0 or more"),
        (["--prefill", "p.json", "--efficiency", "0.4"], "efficiency = 0.4: is a share of gpu-rate"),
    ],
)
def test_bad_input_names_key_value_and_remedy(
    words: list[str], more: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *more]) == 2
    assert told in capsys.readouterr().err


def test_a_missing_machine_file_is_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words[words.index("--machine") + 1] = "/nowhere/machine.json"
    assert main([*words, *RATE]) == 2
    told = capsys.readouterr().err
    assert "machine = '/nowhere/machine.json'" in told
    assert "tiercel probe --output" in told


def test_files_to_write_are_looked_at_before_the_run(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words[1] = str(tmp_path / "no trace")
    assert main([*words, *RATE, "--report", "/nowhere/report.html"]) == 2
    assert "report = '/nowhere/report.html': there is no folder /nowhere" in capsys.readouterr().err


def test_drive_writes_a_day_are_of_the_drives_under_the_tier_alone(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drive = StorageDevice(name="nvme0n1", model="", rotational=False, capacity_bytes=2 * 10**12)
    one, half = (replace(directory(path), device=drive) for path in ("/cache", "/half"))
    write_machine(machine(directories=(directory("/other"), one, half)), tmp_path / "machine.json")
    for directories in ("/cache", "[/cache, /half]"):
        (tmp_path / "tiercel.yaml").write_text(
            f"num_cpu_blocks: 1GiB\nenable_ssd: true\nssd_cache_dir: {directories}\nnum_ssd_blocks: 4GiB\n"
        )
        assert main([*words, *RATE, "--endurance", "1DWPD", "--json"]) == 0
        wear = json.loads(capsys.readouterr().out)["wear"]
        assert wear["endurance_bytes"] == 2e12 * 5 * 365


def test_an_interruption_ends_cleanly(words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tiercel.tune.simulate.clock.Clock.run", interrupt)
    report = tmp_path / "report.html"
    with pytest.raises(SystemExit) as ended:  # the parser ends the process, as main would
        main([*words, *RATE, "--report", str(report)])
    assert ended.value.code == 130
    assert not report.exists()


@pytest.mark.parametrize("text", ['{"token_s": 1e300}', '{"token_s": 1e-300}', '{"token_s": 1, "token_pair_s": 1e300}'])
def test_absurd_curves_are_refused_by_coefficient(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (tmp_path / "prefill.json").write_text(text)
    assert main([*words, "--prefill", str(tmp_path / "prefill.json")]) == 2
    assert "must be 0, or 1e-20 to 1e+06 seconds" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--report", "--requests-csv"])
def test_a_file_that_cannot_be_written_is_found_before_anything_is_simulated(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert (
        main(
            [
                *words,
                *RATE,
                option,
                str(tmp_path),
            ]
        )
        == 2
    )
    assert "is a folder; name a file in it" in capsys.readouterr().err
