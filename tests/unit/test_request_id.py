"""A request's name stands in every line that is logged about it, on whatever thread."""

import io
import json
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import BlockStatus, Cache, TierName
from tiercel.cache import Outcome
from tiercel.telemetry import logs
from tiercel.telemetry.recording_summary import summarise_recording
from tiercel.tiers.throttled import ThrottledTier, TierLimits


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    logger = logging.getLogger("tiercel")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    lines = io.StringIO()
    logs.configure("DEBUG", "json", stream=lines)
    yield lines
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logger.propagate = propagate


def lines_of(stream: io.StringIO, event: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in lines if line.get("event") == event]


def damage(folder: Path) -> None:
    """Flip bits over all block files."""
    for path in folder.rglob("*.bin"):
        content = bytearray(path.read_bytes())
        content[::512] = bytes(byte ^ 0xFF for byte in content[::512])
        path.write_bytes(content)


def test_what_a_tier_logs_on_its_threads_names_the_request_that_it_serves(tmp_path: Path, stream: io.StringIO) -> None:
    with Cache.open(MODEL, config(tmp_path, host=0, disk=64)) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(4, seed=1))
        with logs.bind_request_id("stored-by"):
            assert cache.store(sequence, engine.fill(sequence)).wait(10).ok
        damage(tmp_path)
        result = cache.load(cache.sequence(tokens(4, seed=1)), engine.blocks(0, 4), request_id="loaded-by").wait(10)
        assert BlockStatus.CORRUPT in result.statuses
        again = cache.store(sequence, engine.fill(sequence), request_id="other")
        assert again.request_id == "other"
        again.wait(10)
    failures = lines_of(stream, "disk_blocks_failed")
    assert failures
    assert {line["request_id"] for line in failures} == {"loaded-by"}


def test_a_deadline_that_passes_is_logged_under_its_request_and_counted(tmp_path: Path, stream: io.StringIO) -> None:
    with Cache.open(MODEL, config(host=16)) as cache:
        engine = SmallEngine(cache.geometry)
        tiers = cache._dispatcher.transfer._tiers
        tiers[TierName.HOST] = ThrottledTier(tiers[TierName.HOST], TierLimits(latency_s=0.3))
        sequence = cache.sequence(tokens(4, seed=1))
        with logs.bind_request_id("late"):
            ticket = cache.store(sequence, engine.fill(sequence), timeout_s=0.05)
        assert ticket.wait(10).outcome is Outcome.DEADLINE
        cache._dispatcher.transfer.drain(10)
        assert +Counter(cache.stats().activity.counters["errors"]) == {"DeadlineError": 1}
        assert {t.outcome for t in cache.stats().activity.tickets} == {"deadline"}
    (line,) = lines_of(stream, "ticket_deadline")
    assert (line["request_id"], line["ticket"]) == ("late", ticket.number)


def test_without_a_bound_request_no_line_has_one_and_a_thread_keeps_none_from_before(
    tmp_path: Path, stream: io.StringIO
) -> None:
    with Cache.open(MODEL, config(tmp_path, host=0, disk=64)) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(4, seed=1))
        assert cache.store(sequence, engine.fill(sequence), request_id="before").wait(10).ok
        damage(tmp_path)
        for _ in range(4):
            cache.load(cache.sequence(tokens(4, seed=1)), engine.blocks(0, 4)).wait(10)
    failures = lines_of(stream, "disk_blocks_failed")
    assert failures
    assert not any("request_id" in line for line in failures)


def test_binding_nothing_leaves_what_is_bound_and_nesting_gives_it_back() -> None:
    with logs.bind_request_id("outer"):
        with logs.bind_request_id(None):
            assert logs.current_request_id() == "outer"
        with logs.bind_request_id("inner"):
            assert logs.current_request_id() == "inner"
        assert logs.current_request_id() == "outer"
    assert logs.current_request_id() is None


@pytest.mark.parametrize(
    ("request_id", "error"),
    [(5, TypeError), (b"req", TypeError), ("half \udcff", ValueError), ("x" * 5000, ValueError)],
)
def test_a_request_id_that_no_line_can_hold_is_refused_before_it_reaches_a_recording(
    tmp_path: Path, request_id: Any, error: type[Exception]
) -> None:
    path = tmp_path / "trace"
    with Cache.open(MODEL, config(host=8, record_path=str(path))) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(4, seed=1))
        with pytest.raises(error, match="request_id"):
            cache.lookup(sequence, request_id=request_id)
        with pytest.raises(error, match="request_id"):
            cache.store(sequence, engine.fill(sequence), request_id=request_id)
        with pytest.raises(error, match="request_id"):
            logs.bind_request_id(request_id)
        cache.lookup(sequence, request_id="größer").release()
    assert summarise_recording(path).lookups == 1
