"""Counters, and what Prometheus sees of them."""

import socket
import struct
import threading
import time
import urllib.request
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tests.helpers.telemetry_samples import sample_metrics, sample_snapshot
from tiercel.telemetry import prometheus
from tiercel.telemetry.catalogue import COUNTED, METRICS, MetricType
from tiercel.telemetry.metrics import CacheMetrics
from tiercel.telemetry.prometheus import PrometheusExporter, samples
from tiercel.telemetry.reference import metrics_reference
from tiercel.telemetry.snapshot import HistogramStatus, StatusSnapshot


def test_counts_are_exact_when_many_threads_count_at_once() -> None:
    metrics = CacheMetrics()

    def work() -> None:
        for _ in range(2000):
            metrics.observe_lookup(seconds=1e-5, num_tokens=64, tokens_per_block=16, hits=[("host", 3)])
            metrics.count("recompute", "miss")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    activity = metrics.activity()
    assert activity.lookups == 8000
    assert activity.lookup_tokens == 8000 * 64
    assert activity.hit_tokens == {"host": 8000 * 48}
    assert activity.hit_blocks == {"host": 24000}
    assert activity.lookup_hit_blocks["host"].sum == 24000
    assert activity.recompute == {"miss": 8000}
    assert activity.lookup_seconds.count == 8000
    assert activity.hit_rate == 0.75


def test_a_lookup_does_not_wait_for_a_thread_that_counts_and_is_not_lost() -> None:
    metrics = CacheMetrics()

    def look_up() -> None:
        for _ in range(3):
            metrics.observe_lookup(seconds=1e-5, num_tokens=64, tokens_per_block=16, hits=[("host", 3)])

    thread = threading.Thread(target=look_up, daemon=True)
    with metrics._lock:
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
    assert metrics.activity().lookups == 3
    assert metrics.activity().hit_blocks == {"host": 9}


def test_what_an_alarm_asks_for_is_served_before_it_happens() -> None:
    metrics = CacheMetrics()
    metrics.foresee("throttled", ["disk-load"])
    snapshot = msgspec.structs.replace(sample_snapshot(), activity=metrics.activity())
    values = {(name, labels): value for name, labels, value in samples(snapshot)}
    for name, label in (("checkpoints", "failed"), ("errors", "DeadlineError"), ("throttled", "disk-load")):
        assert values[f"tiercel_{name}_total", (label,)] == 0, "increase() misses a series that appears at 1"


def test_a_frozen_activity_does_not_change_when_counting_goes_on() -> None:
    metrics = sample_metrics()
    before = metrics.activity()
    encoded = msgspec.json.encode(before)
    metrics.count("throttled", "disk-store")
    metrics.observe_move(route=("disk", "host"), wait_s=0.0, seconds=1.0, num_bytes=1, blocks={"ok": 1})
    assert msgspec.json.encode(before) == encoded
    assert metrics.activity() != before


def test_an_observation_on_a_bound_belongs_to_the_bucket_below_it() -> None:
    metrics = CacheMetrics()
    for seconds in (5e-6, 5.1e-6, 99.0):
        metrics.observe_lookup(seconds=seconds, num_tokens=0, tokens_per_block=16, hits=[])
    assert metrics.activity().lookup_seconds.counts[:2] == (1, 1)
    assert metrics.activity().lookup_seconds.counts[-1] == 1


def test_a_quantile_is_the_bound_of_its_bucket() -> None:
    histogram = HistogramStatus(bounds=(0.1, 1.0), counts=(5, 4, 1), sum=3.0)
    assert histogram.quantile(0.5) == 0.1
    assert histogram.quantile(0.9) == 1.0
    assert histogram.quantile(0.99) == float("inf")
    assert HistogramStatus(bounds=(0.1,), counts=(0, 0), sum=0.0).quantile(0.5) is None


def test_prometheus_reads_every_number_of_the_snapshot() -> None:
    exporter = PrometheusExporter(sample_snapshot)
    text = generate_latest(exporter.registry).decode()
    for line in (
        'tiercel_lookup_tokens_total{outcome="hit",tier="host"} 256.0',
        'tiercel_lookup_tokens_total{outcome="pending",tier=""} 16.0',
        'tiercel_lookup_tokens_total{outcome="declined",tier=""} 32.0',
        'tiercel_lookup_tokens_total{outcome="miss",tier=""} 144.0',
        'tiercel_lookup_blocks_total{outcome="hit",tier="disk"} 8.0',
        'tiercel_lookup_blocks_total{outcome="miss",tier=""} 8.0',
        'tiercel_lookups_total{outcome="partial"} 1.0',
        'tiercel_lookup_hit_blocks_bucket{le="16",tier="host"} 1.0',
        'tiercel_lookup_hit_ratio_bucket{le="0"} 1.0',
        'tiercel_lookup_hit_ratio_bucket{le="0.9"} 2.0',
        'tiercel_transfer_wait_seconds_sum{source="disk",target="host"} 0.002',
        'tiercel_transfer_size_bytes_bucket{le="65536",source="disk",target="host"} 2.0',
        'tiercel_ticket_seconds_count{kind="load",outcome="done"} 1.0',
        'tiercel_submission_queue_depth_bucket{le="4",queue="disk-load"} 1.0',
        "tiercel_checkpoint_seconds_count 1.0",
        'tiercel_checkpoints_total{outcome="ok"} 1.0',
        'tiercel_journal_bytes{tier="disk"} 512.0',
        'tiercel_tier_recovered_blocks{tier="disk"} 48.0',
        'tiercel_demoted_blocks_total{tier="some"} 1.0',
        'tiercel_lookup_seconds_bucket{le="2.5e-05"} 1.0',
        'tiercel_lookup_seconds_bucket{le="+Inf"} 2.0',
        "tiercel_lookup_seconds_count 2.0",
        'tiercel_transfer_seconds_count{source="disk",target="host"} 2.0',
        f'tiercel_transfer_bytes_total{{source="disk",target="host"}} {15 * 4096.0}',
        'tiercel_transfer_blocks_total{source="disk",status="corrupt",target="host"} 1.0',
        'tiercel_tier_blocks{state="free",tier="disk"} 940.0',
        'tiercel_tier_pinned_blocks{tier="host"} 3.0',
        'tiercel_tier_capacity_blocks{tier="disk"} 1000.0',
        'tiercel_gpu_pool_bytes{device="cuda:0",state="used_high"} 2.0',
        'tiercel_gpu_pool_bytes{device="cuda:0",state="held"} 3.0',
        'tiercel_evicted_blocks_total{tier="host"} 7.0',
        'tiercel_corrupt_blocks_total{tier="disk"} 1.0',
        'tiercel_io_errors_total{tier="disk"} 2.0',
        'tiercel_throttled_total{queue="disk-store"} 1.0',
        'tiercel_recompute_total{reason="corrupt"} 3.0',
        'tiercel_queue_depth{queue="disk-load"} 4.0',
        'tiercel_tickets{state="running"} 2.0',
        'tiercel_hit_curve_ratio{capacity="0.25x"} 0.125',
        'tiercel_hit_curve_ratio{capacity="4x"} 0.75',
        'tiercel_eviction_age_seconds_bucket{le="60",tier="host"} 6.0',
        'tiercel_eviction_age_seconds_sum{tier="host"} 200.0',
    ):
        assert line in text.splitlines(), f"{line}\n--- not in ---\n{text}"


def test_metrics_are_served_on_this_machine_only_until_they_are_closed() -> None:
    exporter = PrometheusExporter(sample_snapshot)
    port = exporter.start_http(0)
    url = f"http://127.0.0.1:{port}/metrics"
    with urllib.request.urlopen(url, timeout=5) as answer:
        assert b"tiercel_lookup_seconds_count 2.0" in answer.read()
    with pytest.raises(ValueError, match="already"):
        exporter.start_http(0)
    exporter.close()
    exporter.close()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=5)


def test_clients_that_say_nothing_or_go_away_leave_no_thread_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prometheus._Handler, "timeout", 0.2)
    exporter = PrometheusExporter(sample_snapshot)
    port = exporter.start_http(0)
    before = threading.active_count()
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
    rude = socket.create_connection(("127.0.0.1", port))
    rude.sendall(b"GET /metrics HTTP/1.1\r\n")
    rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    rude.close()
    assert all(client.recv(1) == b"" for client in silent)
    stop_at = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < stop_at:
        time.sleep(0.01)
    assert threading.active_count() == before
    for client in silent:
        client.close()
    exporter.close()
    assert capfd.readouterr().err == ""


def test_two_caches_in_one_process_do_not_clash_and_registering_takes_no_snapshot() -> None:
    def not_yet() -> StatusSnapshot:
        raise AssertionError("a cache that is still opening was asked for its state")

    first, second = PrometheusExporter(not_yet), PrometheusExporter(sample_snapshot)
    assert first.registry is not second.registry
    shared = CollectorRegistry()
    exporter = PrometheusExporter(sample_snapshot, registry=shared)
    assert b"tiercel_tickets" in generate_latest(shared)
    exporter.close()
    assert b"tiercel_tickets" not in generate_latest(shared)


def served_names(text: str) -> set[str]:
    """Names of the families that an exposition declares, as they stand in the catalogue."""
    found = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            found.add(name if kind != "counter" or name.endswith("_total") else f"{name}_total")
    return found


def test_every_metric_of_the_catalogue_is_served_with_samples_and_no_other() -> None:
    snapshot = sample_snapshot()
    text = generate_latest(PrometheusExporter(lambda: snapshot).registry).decode()
    assert served_names(text) == set(METRICS)
    assert {name for name, _, _ in samples(snapshot)} == set(METRICS), "a metric without a sample proves nothing"
    for name, labels, _ in samples(snapshot):
        assert len(labels) == len(METRICS[name].labels), name


def test_names_follow_the_conventions() -> None:
    for name, metric in METRICS.items():
        assert name.startswith("tiercel_"), name
        assert name.endswith("_total") == (metric.type is MetricType.COUNTER), name
        if metric.unit in ("seconds", "bytes", "ratio"):
            assert name.removesuffix("_total").endswith(metric.unit), name
    assert {f"tiercel_{name}_total" for name in COUNTED} <= set(METRICS)


def test_the_metrics_page_is_written_from_the_catalogue() -> None:
    page = Path(__file__).parents[2] / "docs" / "metrics.md"
    assert page.read_text() == metrics_reference(), "run: python -m tiercel.telemetry.reference > docs/metrics.md"
