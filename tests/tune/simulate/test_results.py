"""Results as numbers, CSV, and a page."""

import csv
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.tune.simulate._worlds import DISK, HOST, SIZE, link, make_setup, make_trace
from tiercel.errors import ConfigError
from tiercel.tune.simulate import (
    SimulationResult,
    parse_endurance,
    render_report,
    requests_csv,
    simulate,
    summarize,
    summary_csv,
)


@pytest.fixture(scope="module")
def result() -> SimulationResult:
    slow = {HOST: link(0.01), DISK: link(0.1)}
    setup = make_setup(host=4, disk=20, reads=slow, writes=slow, engine={"gpu_blocks": 2, "decode_token_s": 0.1})
    trace = make_trace(
        (0, [1, 2, 3, 4]),
        (10, [11, 12, 13]),
        (20, [1, 2, 3, 4]),
        (30, [21]),
        (40, []),
        output_tokens=[3, 1, 1, 0, 0],
        input_tokens=[64, 60, 64, 20, 5],
    )
    return simulate(trace, setup)


def test_the_three_hit_rates_differ_by_their_weights(result: SimulationResult) -> None:
    hits = summarize(result).hits
    had = result.gpu_blocks + sum(result.hit_blocks.values())
    assert had.tolist() == [0, 0, 3, 0, 0]
    assert result.full_blocks.tolist() == [4, 3, 4, 1, 0]
    assert hits.block_weighted == pytest.approx(3 / 12)
    assert hits.token_weighted == pytest.approx(3 * SIZE / 213)
    assert hits.per_request == pytest.approx(3 / 4 / 4)
    assert sum(hits.blocks_by_tier.values()) == pytest.approx(hits.block_weighted)
    assert sum(hits.tokens_by_tier.values()) == pytest.approx(hits.token_weighted)


def test_times_are_split_into_what_they_waited_for(result: SimulationResult) -> None:
    summary = summarize(result)
    assert summary.load_wait is not None
    assert summary.engine_wait is not None
    assert summary.ttft.max_s == pytest.approx(float(result.ttft_s.max()))
    prefill = (result.first_token_s - result.started_s).mean()
    assert summary.ttft.mean_s == pytest.approx(summary.load_wait.mean_s + summary.engine_wait.mean_s + prefill)
    assert summary.end_to_end.p50_s >= summary.ttft.p50_s


def test_wear_is_what_is_written_at_the_pace_of_the_run(result: SimulationResult) -> None:
    summary = summarize(result, endurance_bytes=1e9)
    assert summary.wear is not None
    per_day = result.tiers[DISK].blocks_written * 1000 / summary.span_s * 86400
    assert summary.wear.bytes_per_day == pytest.approx(per_day)
    assert summary.wear.years == pytest.approx(1e9 / per_day / 365.25)


def test_saved_time_counts_every_gpu_of_an_engine(result: SimulationResult) -> None:
    assert result.prefill_saved_s > 0
    assert summarize(result, gpus_per_engine=8).gpu_seconds_saved == 8 * result.prefill_saved_s


@pytest.mark.parametrize(
    ("text", "expected"), [("1400TBW", 1.4e15), ("3.5 pbw", 3.5e15), ("1DWPD", 1e12 * 1825), ("0.3DWPD", 3e11 * 1825)]
)
def test_endurance_is_read_as_data_sheets_write_it(text: str, expected: float) -> None:
    assert parse_endurance(text, drive_bytes=10**12) == pytest.approx(expected)


@pytest.mark.parametrize(("text", "drive"), [("1400", 10), ("0TBW", 10), ("1DWPD", None), ("-1DWPD", 10)])
def test_an_endurance_that_says_nothing_is_refused(text: str, drive: int | None) -> None:
    with pytest.raises(ConfigError, match="endurance"):
        parse_endurance(text, drive)


def test_csv_has_a_row_for_each_number(result: SimulationResult) -> None:
    rows = list(csv.DictReader(io.StringIO(summary_csv(summarize(result)))))
    values = {(row["metric"], row["of"]): float(row["value"]) for row in rows}
    assert len(values) == len(rows), "no two rows have one name"
    assert values["hit rate, block-weighted", "all"] == pytest.approx(0.25)
    assert values["written", "disk"] == result.tiers[DISK].blocks_written * 1000 / 1e9


def test_csv_of_requests_gives_every_array_back(result: SimulationResult) -> None:
    rows = list(csv.DictReader(io.StringIO(requests_csv(result))))
    assert [int(row["disk_blocks"]) for row in rows] == result.hit_blocks[DISK].tolist()
    assert np.array_equal([float(row["first_token_s"]) for row in rows], result.first_token_s)


def test_the_report_is_well_formed_fetches_nothing_and_draws_every_request(result: SimulationResult) -> None:
    page = render_report(result, summarize(result))
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) == 3
    for picture in pictures:
        ElementTree.fromstring(picture)
    assert "nan" not in "".join(pictures)
    assert not re.findall(r'(?:src|href)="|url\(|@import', page)
    # Bars fill the height of the picture wherever a full block arrived.
    bars = [bar for bar in ElementTree.fromstring(pictures[0]) if bar.tag.endswith("rect")]
    heights: dict[str, float] = {}
    for bar in bars:
        heights[bar.attrib["x"]] = heights.get(bar.attrib["x"], 0) + float(bar.attrib["height"])
    assert len(heights) == 4
    assert all(height == pytest.approx(186, abs=0.1) for height in heights.values())


def test_a_trace_without_requests_has_a_summary_and_a_page() -> None:
    empty = simulate(make_trace(), make_setup(host=4))
    summary = summarize(empty)
    assert (summary.num_requests, summary.hits.block_weighted, summary.ttft.p99_s) == (0, 0.0, 0.0)
    assert "0 requests" in render_report(empty, summary)
