"""Counters, and what Prometheus sees of them."""

import threading
import urllib.request

import msgspec
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tests.helpers.telemetry_samples import sample_metrics, sample_snapshot
from tiercel.telemetry.metrics import CacheMetrics
from tiercel.telemetry.prometheus import PrometheusExporter
from tiercel.telemetry.snapshot import HistogramStatus, StatusSnapshot


def test_counts_are_exact_when_many_threads_count_at_once() -> None:
    metrics = CacheMetrics()

    def work() -> None:
        for _ in range(2000):
            metrics.observe_lookup(seconds=1e-5, num_tokens=4, hits=[("host", 3)])
            metrics.recompute("miss")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    activity = metrics.activity()
    assert activity.lookups == 8000
    assert activity.lookup_tokens == 32000
    assert activity.hit_tokens == {"host": 24000}
    assert activity.recompute == {"miss": 8000}
    assert activity.lookup_seconds.count == 8000
    assert activity.hit_rate == 0.75


def test_a_frozen_activity_does_not_change_when_counting_goes_on() -> None:
    metrics = sample_metrics()
    before = metrics.activity()
    encoded = msgspec.json.encode(before)
    metrics.throttled("disk_write")
    metrics.observe_completion(source="disk", target="host", seconds=1.0, num_bytes=1, blocks={"ok": 1})
    assert msgspec.json.encode(before) == encoded
    assert metrics.activity() != before


def test_an_observation_on_a_bound_belongs_to_the_bucket_below_it() -> None:
    metrics = CacheMetrics()
    for seconds in (5e-6, 5.1e-6, 99.0):
        metrics.observe_lookup(seconds=seconds, num_tokens=0, hits=[])
    assert metrics.activity().lookup_seconds.counts[:2] == (1, 1)
    assert metrics.activity().lookup_seconds.counts[-1] == 1


def test_a_quantile_is_the_bound_of_its_bucket() -> None:
    histogram = HistogramStatus(bounds_s=(0.1, 1.0), counts=(5, 4, 1), sum_s=3.0)
    assert histogram.quantile(0.5) == 0.1
    assert histogram.quantile(0.9) == 1.0
    assert histogram.quantile(0.99) == float("inf")
    assert HistogramStatus(bounds_s=(0.1,), counts=(0, 0), sum_s=0.0).quantile(0.5) is None


def test_prometheus_reads_every_number_of_the_snapshot() -> None:
    exporter = PrometheusExporter(sample_snapshot)
    text = generate_latest(exporter.registry).decode()
    for line in (
        'tiercel_lookup_tokens_total{outcome="hit",tier="host"} 256.0',
        'tiercel_lookup_tokens_total{outcome="pending",tier=""} 16.0',
        'tiercel_lookup_tokens_total{outcome="miss",tier=""} 176.0',
        'tiercel_lookup_seconds_bucket{le="2.5e-05"} 1.0',
        'tiercel_lookup_seconds_bucket{le="+Inf"} 2.0',
        "tiercel_lookup_seconds_count 2.0",
        'tiercel_transfer_seconds_count{source="disk",target="host"} 2.0',
        f'tiercel_transfer_bytes_total{{source="disk",target="host"}} {15 * 4096.0}',
        'tiercel_transfer_blocks_total{source="disk",status="corrupt",target="host"} 1.0',
        'tiercel_tier_blocks{state="free",tier="disk"} 940.0',
        'tiercel_tier_pinned_blocks{tier="host"} 3.0',
        'tiercel_tier_capacity_blocks{tier="disk"} 1000.0',
        'tiercel_evicted_blocks_total{tier="host"} 7.0',
        'tiercel_corrupt_blocks_total{tier="disk"} 1.0',
        'tiercel_io_errors_total{tier="disk"} 2.0',
        'tiercel_throttled_total{queue="disk_write"} 1.0',
        'tiercel_recompute_total{reason="corrupt"} 3.0',
        'tiercel_queue_depth{queue="disk_read"} 4.0',
        'tiercel_tickets{state="running"} 2.0',
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
