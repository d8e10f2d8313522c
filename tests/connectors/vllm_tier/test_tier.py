"""The tier behind vLLM's real tiering manager: what it keeps, gives back, forgets and tells."""

# pyright: reportMissingImports=false

from typing import Any

from vllm.v1.kv_offload.base import LookupResult, Medium

from tests.connectors.vllm_tier.conftest import OpenDriver
from tests.connectors.vllm_tier.driver import CHUNK_BYTES, Driver, count_right, keys_of


def test_chunks_that_left_host_memory_come_back_from_disk(open_driver: OpenDriver) -> None:
    driver = open_driver()
    keys = keys_of("a", 12)
    driver.store(keys)
    driver.forget_primary()
    assert count_right(keys, driver.load(keys)) == 12


def test_a_lookup_answers_at_once_without_retry(open_driver: OpenDriver) -> None:
    driver = open_driver()
    keys = keys_of("a", 4)
    driver.store(keys)
    driver.forget_primary()
    context = driver.request("r")
    assert driver.lookup(keys + keys_of("b", 1), context) == [LookupResult.HIT_PENDING] * 4 + [LookupResult.MISS]
    driver.settle()
    assert driver.lookup(keys, context) == [LookupResult.HIT] * 4
    driver.finish(context)


def test_chunks_come_back_after_a_restart(open_driver: OpenDriver) -> None:
    first = open_driver()
    keys = keys_of("a", 12)
    first.store(keys)
    first.shutdown()
    assert count_right(keys, open_driver().load(keys)) == 12


def test_the_disk_never_holds_more_than_its_slots(open_driver: OpenDriver) -> None:
    driver = open_driver(tier={"num_ssd_blocks": 20})
    for turn in range(8):
        driver.store(keys_of(f"turn{turn}", 8), f"r{turn}")
    driver.forget_primary()
    newest = keys_of("turn7", 8)
    assert count_right(newest, driver.load(newest, "new")) == 8
    assert count_right(keys_of("turn0", 8), driver.load(keys_of("turn0", 8), "old")) == 0


def test_a_sequences_end_leaves_before_its_beginning(open_driver: OpenDriver) -> None:
    driver = open_driver(tier={"num_ssd_blocks": 10})
    old = keys_of("old", 8)
    driver.store(old)
    driver.store(keys_of("new", 6))
    driver.forget_primary()
    got = driver.load(old)
    assert [chunk is not None for chunk in got] == [True] * 4 + [False] * 4


def test_a_touched_chunk_outlives_one_that_was_not(open_driver: OpenDriver) -> None:
    driver = open_driver(tier={"num_ssd_blocks": 8})
    first, second = keys_of("first", 4), keys_of("second", 4)
    driver.store(first)
    driver.store(second)
    driver.tier.touch(first, driver.request("t"))
    driver.settle()
    driver.store(keys_of("third", 4))
    driver.forget_primary()
    assert count_right(first, driver.load(first, "l1")) == 4
    assert count_right(second, driver.load(second, "l2")) == 0


def test_events_tell_what_the_disk_holds_before_and_after_a_restart(open_driver: OpenDriver) -> None:
    held: set[bytes] = set()

    def follow(driver: Driver) -> None:
        for event in driver.tier.take_events():
            assert event.medium is Medium.STORAGE
            if event.removed:
                assert held.issuperset(event.keys), "removed without having been stored"
                held.difference_update(event.keys)
            else:
                held.update(event.keys)

    first = open_driver(tier={"num_ssd_blocks": 20}, publishes_events=True)
    for turn in range(4):
        first.store(keys_of(f"turn{turn}", 8), f"r{turn}")
        follow(first)
    assert len(held) == first.tier._cache.stats().tiers[0].num_ready
    assert held.issuperset(keys_of("turn3", 8))
    first.tier._cache.reset()
    follow(first)
    assert not held
    newest = keys_of("newest", 8)
    first.store(newest)
    first.shutdown()

    held.clear()
    second = open_driver(tier={"num_ssd_blocks": 20}, publishes_events=True)
    follow(second)
    assert not held, "nobody has named them yet"
    second.load(newest)
    follow(second)
    assert held == set(newest)


def test_what_was_found_and_then_forgotten_is_not_announced_for_ever(open_driver: OpenDriver) -> None:
    first = open_driver(publishes_events=True)
    first.store(keys_of("a", 4))
    first.shutdown()
    second = open_driver(publishes_events=True)
    context = second.request("r")
    assert [second.tier.lookup(key, context) for key in keys_of("a", 4)] == [LookupResult.HIT] * 4
    second.tier._cache.reset()
    assert [event.removed for event in second.tier.take_events()] == [False, True]


def test_no_events_are_kept_that_nobody_asked_for(open_driver: OpenDriver) -> None:
    driver = open_driver()
    driver.store(keys_of("a", 4))
    assert not list(driver.tier.take_events())
    assert driver.tier._cache.block_changes() == ()


def test_pins_and_requests_are_given_back(open_driver: OpenDriver) -> None:
    driver = open_driver()
    keys = keys_of("a", 12)
    driver.store(keys)
    driver.forget_primary()
    driver.load(keys)
    status: Any = driver.tier._cache.stats().tiers[0]
    assert (status.num_pinned, status.num_writing) == (0, 0)
    assert not driver.tier._requests
    assert not driver.tier._jobs


def test_what_happened_is_told_to_vllm_in_metrics_that_are_defined(open_driver: OpenDriver) -> None:
    driver = open_driver()
    keys = keys_of("a", 4)
    driver.store(keys)
    driver.forget_primary()
    driver.load(keys)
    told = driver.tier.get_stats().reduce()
    assert told["vllm:kv_offload_tiercel_written_bytes:('TiercelTier',)"] == 4 * CHUNK_BYTES
    assert told["vllm:kv_offload_tiercel_read_bytes:('TiercelTier',)"] == 4 * CHUNK_BYTES
    defined = type(driver.spec).build_metric_definitions(dict(driver.spec.extra_config))
    assert {name.partition(":(")[0].removesuffix("_count").removesuffix("_sum") for name in told} <= set(defined)
    assert driver.tier.get_stats() is None, "asked again at once, it has nothing to tell"
