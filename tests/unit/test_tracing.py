"""Spans, with the SDK's exporter in memory."""

import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import Cache, ConfigError

EXPORTER = InMemorySpanExporter()


@pytest.fixture(scope="module", autouse=True)
def provider() -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(EXPORTER))
    trace.set_tracer_provider(provider)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    EXPORTER.clear()
    return EXPORTER


def spans_of(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_lookup_store_load_and_prefetch_are_spans_below_the_requests_own(
    tmp_path: Path, exporter: InMemorySpanExporter
) -> None:
    with Cache.open(MODEL, config(tmp_path, host=32, disk=64, trace_spans=True)) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(4, seed=1))
        with trace.get_tracer("application").start_as_current_span("request") as request:
            cache.store(sequence, engine.fill(sequence), request_id="req-1").wait(10)
            cache.load(sequence, engine.blocks(0, 4), request_id="req-1").wait(10)
        cache.prefetch(sequence).wait(10)
    spans = spans_of(exporter)
    assert spans.keys() == {"request", "tiercel.lookup", "tiercel.store", "tiercel.load", "tiercel.prefetch"}
    for name in ("tiercel.store", "tiercel.load"):
        attributes, parent = spans[name].attributes, spans[name].parent
        assert attributes is not None
        assert parent is not None
        assert parent.span_id == request.get_span_context().span_id
        assert attributes["tiercel.request_id"] == "req-1"
        assert attributes["tiercel.outcome"] == "done"
        assert (attributes["tiercel.blocks"], attributes["tiercel.blocks_ok"], attributes["tiercel.tokens"]) == (
            4,
            4,
            64,
        )
    moves = [dict(event.attributes or {}) for event in spans["tiercel.store"].events]
    assert [(move["tiercel.source"], move["tiercel.target"]) for move in moves] == [("gpu", "host"), ("host", "disk")]
    assert all(move["tiercel.num_ok"] == 4 for move in moves)
    looked_up = spans["tiercel.lookup"].attributes
    assert looked_up is not None
    assert (looked_up["tiercel.outcome"], looked_up["tiercel.tiers"]) == ("hit", ("host",))
    for span in spans.values():
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.end_time


def test_a_ticket_that_was_cancelled_is_a_span_with_an_error(exporter: InMemorySpanExporter) -> None:
    with Cache.open(MODEL, config(host=32, trace_spans=True)) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(4, seed=1))
        ticket = cache.store(sequence, engine.fill(sequence), timeout_s=1e-6)
        outcome = ticket.wait(10).outcome.value
    span = spans_of(exporter)["tiercel.store"]
    assert span.status.status_code is (trace.StatusCode.UNSET if outcome == "done" else trace.StatusCode.ERROR)
    assert span.attributes is not None
    assert span.attributes["tiercel.outcome"] == outcome


def test_nothing_is_traced_or_imported_unless_asked_for(exporter: InMemorySpanExporter) -> None:
    with Cache.open(MODEL, config(host=32)) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(4, seed=1))
        ticket = cache.store(sequence, engine.fill(sequence))
        ticket.wait(10)
        assert ticket.ended_moves == []
    assert exporter.get_finished_spans() == ()
    code = "import sys, tiercel.cache; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_package_is_a_setting_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigError, match=r"trace_spans.*tiercel\[otel\]"):
        Cache.open(MODEL, config(host=8, trace_spans=True))
