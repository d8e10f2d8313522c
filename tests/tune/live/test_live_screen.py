"""What `tiercel top` shows: rates between snapshots, and lines that fit."""

from typing import Any

import pytest
from msgspec.structs import replace

from tests.helpers.telemetry_samples import sample_metrics, sample_snapshot
from tiercel.telemetry.snapshot import HistogramStatus, StatusSnapshot
from tiercel.tune.live.history import History
from tiercel.tune.live.screen import Weight, lines
from tiercel.tune.live.watching import Look


def history(*snapshots: StatusSnapshot) -> History:
    kept = History()
    for snapshot in snapshots:
        kept.add(snapshot)
    return kept


def later(snapshot: StatusSnapshot, seconds: float, **host: Any) -> StatusSnapshot:
    first, *others = snapshot.tiers
    return replace(snapshot, uptime_s=snapshot.uptime_s + seconds, tiers=(replace(first, **host), *others))


def text(kept: History, width: int = 160, **look: Any) -> str:
    return "\n".join(line.text for line in lines(Look(kept, **look), width))


def test_bandwidths_are_of_the_last_interval() -> None:
    first = sample_snapshot()
    second = later(first, 2, bytes_read=first.tiers[0].bytes_read + 10 * 10**9)
    third = later(second, 1, bytes_written=second.tiers[0].bytes_written + 10**9)
    assert "5.00 GB/s" in text(history(first, second))
    shown = text(history(first, second, third))
    assert "5.00 GB/s" not in shown
    assert "1.00 GB/s" in shown


def test_a_lane_shows_what_it_moves_now() -> None:
    metrics = sample_metrics()
    first = sample_snapshot(metrics)
    metrics.observe_move(route=("disk", "host"), wait_s=1, seconds=1, num_bytes=3 * 10**9, blocks={"ok": 8})
    second = replace(sample_snapshot(metrics), uptime_s=first.uptime_s + 1)
    (line,) = [line for line in text(history(first, second)).splitlines() if line.startswith("disk > host")]
    assert line.split()[3:6] == ["3.00", "GB/s", "1/s"]


def test_shares_and_ages_are_of_the_last_minute() -> None:
    metrics = sample_metrics()
    first = sample_snapshot(metrics)
    metrics.observe_lookup(seconds=1e-5, num_tokens=160, tokens_per_block=16, hits=[("host", 6), ("disk", 2)])
    ages = HistogramStatus(bounds=(1.0, 60.0), counts=(2, 9, 1), sum=300.0)
    second = later(sample_snapshot(metrics), 10, eviction_age=ages, evicted=12)
    kept = history(first, second)
    assert kept.minute.hit_shares() == pytest.approx({"host": 0.6, "disk": 0.2})
    assert kept.minute.eviction_age_s(second.tiers[0]) == 60
    shown = text(kept)
    assert "80.0% of the blocks" in shown
    assert "<= 60 s" in shown
    kept.add(later(second, 61))
    assert kept.minute.hit_shares() == {}, "a minute later nothing was looked up in the last minute"


def test_another_process_begins_a_new_history() -> None:
    first = sample_snapshot()
    other = later(replace(first, pid=9, started_at=first.started_at + 50), -80)
    kept = history(first, later(first, 1, bytes_read=10**12), other)
    assert kept.now.seconds == 0
    shown = text(kept)
    assert "pid 9" in shown
    assert "0.00 GB/s" not in shown, "one snapshot tells no rates"


def test_the_curve_shows_each_tier_and_all_of_them() -> None:
    shown = text(history(sample_snapshot())).splitlines()
    at = next(number for number, line in enumerate(shown) if line.startswith("would serve at"))
    assert shown[at].split() == ["would", "serve", "at", "0.5x", "1x", "8x"]
    assert shown[at + 1].split() == ["host", "25.0%", "37.5%", "50.0%"]
    assert shown[at + 2].split() == ["disk", "0.0%", "12.5%", "25.0%"]
    assert shown[at + 3].startswith("all (LRU)")


def test_without_a_ghost_the_screen_says_what_to_set() -> None:
    assert "ghost_sample_rate is 0" in text(history(replace(sample_snapshot(), hit_curve=None)))


def test_what_grew_of_late_stands_out() -> None:
    metrics = sample_metrics()
    first = sample_snapshot(metrics)
    metrics.count("throttled", "disk-store", 5)
    second = replace(sample_snapshot(metrics), uptime_s=first.uptime_s + 1)
    shown = {line.text.partition(":")[0]: line for line in lines(Look(history(first, second)), 160)}
    assert shown["throttled"].weight is Weight.WARNING
    assert shown["throttled"].text.endswith("in the last minute: disk-store 5")
    assert shown["recompute"].weight is Weight.PLAIN


@pytest.mark.parametrize("width", [1, 10, 33, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_narrow_ones_lose_columns(width: int) -> None:
    long = replace(sample_snapshot(), model="m" * 300)
    shown = lines(Look(history(long), silent_s=3, reason="r" * 300), width)
    assert max(len(line.text) for line in shown) <= width
    titles = next((line.text.split() for line in shown if line.text.startswith("tier ")), [])
    assert ("evicted" in titles) == (width >= 60)


def test_control_characters_of_a_name_never_reach_the_terminal() -> None:
    shown = text(history(replace(sample_snapshot(), model="evil\x1b[2Jname\n")))
    assert "\x1b" not in shown
    assert "evil?[2Jname?" in shown


def test_a_cache_that_does_not_answer_is_said_with_what_was_known_last() -> None:
    shown = text(history(sample_snapshot()), silent_s=12.0, reason="no running cache answers")
    assert "no answer for 12 s" in shown
    assert "host" in shown
    assert text(History(), reason="no cache of this user is running") == (
        "tiercel top\nwaiting: no cache of this user is running"
    )


def test_auto_tuning_takes_one_line_with_what_it_did_last_and_why() -> None:
    first = sample_snapshot()
    (line,) = [line for line in text(history(first), width=300).splitlines() if line.startswith("tuning")]
    assert line == (
        "tuning: host_watermark 0.99, ssd_admission on_second_hit; 60 s ago ssd_admission on_second_hit tried: "
        "12.0 blocks per block read back were written to disk"
    )
    assert "tuning" not in text(history(replace(first, tuning=None)))
    assert first.tuning is not None
    unchanged = replace(first, tuning=replace(first.tuning, changes=()))
    assert "tuning: host_watermark 0.99, ssd_admission on_second_hit; no change yet" in text(history(unchanged))
