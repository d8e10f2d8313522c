"""`tiercel curve` prints what the library measures, as table, JSON and CSV."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.trace_requests import random_trace
from tiercel.cli import main
from tiercel.index import EVICTION_POLICIES
from tiercel.tune.curves import BeladyBound, Weighting, lru_curve, run_policies, survey_trace
from tiercel.tune.traces import Trace, TraceBuilder, read_trace, with_tokens_per_block, write_trace

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traces") / "small.jsonl"
    write_trace(random_trace(np.random.default_rng(3), 300, tokens_per_block=16), path, "tiercel")
    return path


def full_blocks(file: Path) -> Trace:
    return read_trace(file).without_partial_blocks()


def test_json_holds_the_exact_curve_the_other_policies_and_the_bound(file: Path, capsys: Capture) -> None:
    assert main(["curve", str(file), "--policies", "lru", "2q", "--capacities", "320", "3200", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    trace = full_blocks(file)
    curve, bound = lru_curve(trace), BeladyBound(trace)
    two_queues = run_policies(trace, ["2q"], [20, 200])
    assert [row["capacity_blocks"] for row in shown["rows"]] == [20, 200]
    assert shown["ideal"]["tokens"] == curve.hit_rate(curve.capacity_max, Weighting.TOKENS)
    for row, run in zip(shown["rows"], two_queues, strict=True):
        for weighting in Weighting:
            assert row["policies"]["lru"][weighting] == curve.hit_rate(run.capacity, weighting)
            assert row["policies"]["2q"][weighting] == run.hit_rates[weighting]
        assert row["bound"] == bound.hit_rate(run.capacity)
        assert row["policies"]["lru"]["error"] is None


def test_csv_has_a_row_for_each_capacity_and_policy(file: Path, capsys: Capture) -> None:
    assert main(["curve", str(file), "--policies", "all", "--capacities", "320", "--csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["policy"] for row in rows] == [*EVICTION_POLICIES, "belady"]
    assert float(rows[0]["blocks"]) == lru_curve(full_blocks(file)).hit_rate(20)


def test_the_table_shows_every_rate_and_what_a_sample_is_off_by(file: Path, capsys: Capture) -> None:
    assert main(["curve", str(file), "--policies", "lru", "lfu"]) == 0
    exact = capsys.readouterr().out
    trace = full_blocks(file)
    assert f"{lru_curve(trace).ideal:.1%} of blocks" in exact
    assert "lru, per request" in exact
    assert "estimated" not in exact
    assert main(["curve", str(file), "--sample", "0.2", "--capacities", "3200"]) == 0
    sampled = capsys.readouterr().out
    (row,) = survey_trace(trace, capacities_tokens=[3200], sample_rate=0.2).rows
    error = row.policies["lru"].error
    assert error is not None
    assert "estimated from 0.2 of the blocks" in sampled
    assert f"{error:.1%}" in sampled


def test_another_block_size_cuts_the_trace_anew(file: Path, capsys: Capture) -> None:
    assert main(["curve", str(file), "--block-size", "32", "--capacities", "3200", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    trace = with_tokens_per_block(read_trace(file), 32).without_partial_blocks()
    assert shown["tokens_per_block"] == 32
    assert shown["rows"][0]["policies"]["lru"]["blocks"] == lru_curve(trace).hit_rate(100)


def test_the_default_capacities_end_where_lru_hits_all_it_can(file: Path) -> None:
    survey = survey_trace(full_blocks(file))
    assert survey.rows[-1].policies["lru"].blocks == pytest.approx(survey.ideal.blocks)
    assert survey.rows[-2].policies["lru"].blocks < survey.ideal.blocks


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--capacities", "3"], "capacities: 3 tokens are less than a block of 16"),
        (["--capacities", "1" + 20 * "0"], "tokens are more than 2147483648 blocks of 16; give less"),
        (["--policies", "best"], "policy 'best': known are lru"),
        (["--sample", "0"], "rate = 0"),
        (["--json", "--csv"], "--json and --csv: choose one"),
    ],
)
def test_a_mistake_is_told_in_a_line(file: Path, words: list[str], text: str, capsys: Capture) -> None:
    assert main(["curve", str(file), *words]) == 2
    assert text in capsys.readouterr().err


def test_blocks_that_no_prompt_fills_are_not_counted(tmp_path: Path, capsys: Capture) -> None:
    builder = TraceBuilder("short", tokens_per_block=16)
    builder.add([1, 2, 3], arrival_s=0.0, input_tokens=40)
    write_trace(builder.build(), tmp_path / "short", "tiercel")
    assert main(["curve", str(tmp_path / "short")]) == 0
    assert "2 references to 2 blocks of 16 tokens" in capsys.readouterr().out
