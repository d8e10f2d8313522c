"""Mistakes of a caller are refused at the edge, before anything is started or any byte moves."""

import errno
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.node_client import until
from tests.helpers.small_engine import MODEL, POISON, SmallEngine, config, tokens
from tiercel import Cache, EngineMemory
from tiercel.errors import ConfigError, StaleTicketError, ThrottledError, TierError
from tiercel.layout import BlockGeometry
from tiercel.transfer import NOBODY


@pytest.fixture
def cache() -> Iterator[Cache]:
    with Cache.open(MODEL, config(host=64)) as opened:
        yield opened


@pytest.fixture
def engine(cache: Cache) -> SmallEngine:
    return SmallEngine(cache.geometry)


def store(cache: Cache, engine: SmallEngine, seed: int, num_blocks: int = 4) -> None:
    sequence = cache.sequence(tokens(num_blocks, seed=seed))
    assert cache.store(sequence, engine.fill(sequence)).wait(10).ok


@pytest.mark.parametrize("what", ["HostTier.__init__", "HostTier.prefault", "KeptArena.open"])
def test_memory_that_is_gone_by_the_time_it_is_taken_names_the_setting(
    what: str, arena_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **named: object) -> None:
        raise OSError(errno.ENOMEM, "arena of 9 bytes: none is left")

    kept = str(arena_directory) if what.startswith("KeptArena") else None
    monkeypatch.setattr(f"tiercel.cache.opening.{what}", fail)
    before = threading.active_count()
    with pytest.raises(TierError, match=r"num_cpu_blocks = 64: .*none is left; lower it"):
        Cache.open(MODEL, config(host=64, cpu_arena_dir=kept))
    assert threading.active_count() == before


def is_unpinned(cache: Cache) -> bool:
    """Whether nothing is pinned any more, soon: a node is told of a release, and answers nothing."""
    return until(lambda: all(tier.num_pinned == 0 for tier in cache.stats().tiers))


def test_a_batch_takes_no_more_room_in_a_queue_than_it_has_moves() -> None:
    with Cache.open(MODEL, config(host=64, transfer_queue_depth_max=8)) as cache:
        engine = SmallEngine(cache.geometry)
        for seed in range(9):
            store(cache, engine, seed)
        sequences = [cache.sequence(tokens(4, seed=seed)) for seed in range(9)]
        engine.poison()
        lookups = [cache.lookup(sequence) for sequence in sequences]
        batch = [(lookup, engine.blocks(4 * at, 4 * at + 4)) for at, lookup in enumerate(lookups)]
        with pytest.raises(ThrottledError, match="no room for 9 more moves"):
            cache.launch(batch)
        assert all(ticket.wait(10).ok for ticket in cache.launch(batch[:8]))
        for at, sequence in enumerate(sequences[:8]):
            engine.check(sequence, 4, at=4 * at)
        lookups[8].release()


def test_a_batch_with_a_lookup_that_was_used_before_starts_none(cache: Cache, engine: SmallEngine) -> None:
    store(cache, engine, 1)
    sequence = cache.sequence(tokens(4, seed=1))
    fresh, used = cache.lookup(sequence), cache.lookup(sequence)
    used.release()
    engine.poison()
    with pytest.raises(StaleTicketError):
        cache.launch([(fresh, engine.blocks(0, 4)), (used, engine.blocks(4, 8))])
    with pytest.raises(ValueError, match="twice"):
        cache.launch([(fresh, engine.blocks(0, 4)), (fresh, engine.blocks(4, 8))])
    time.sleep(0.05)
    assert (engine.keys[0] == POISON).all(), "a load was started by a call that failed"
    assert cache.load(fresh, engine.blocks(0, 4)).wait(10).ok


def test_a_lookup_of_another_cache_is_refused(cache: Cache, engine: SmallEngine) -> None:
    store(cache, engine, 1)
    with Cache.open(MODEL, config(host=64)) as other:
        store(other, engine, 2)
        sequence = other.sequence(tokens(4, seed=2))
        with other.lookup(sequence) as lookup, pytest.raises(ValueError, match="another cache"):
            cache.load(lookup, engine.blocks(0, 4))
        with other.lookup(sequence) as lookup, pytest.raises(ValueError, match="another cache"):
            cache.prefetch(lookup)


def test_a_sequence_of_another_model_is_refused(cache: Cache, engine: SmallEngine) -> None:
    store(cache, engine, 1)
    with Cache.open(replace(MODEL, weights_epoch="other"), config(host=64)) as other:
        foreign = other.sequence(tokens(4, seed=1))
        with pytest.raises(ValueError, match="another model"):
            cache.store(foreign, engine.blocks(0, 4))
        with pytest.raises(ValueError, match="another model"):
            cache.lookup(foreign)
    with Cache.open(MODEL, config(host=64)) as twin:
        assert cache.lookup(twin.sequence(tokens(4, seed=1))).num_blocks == 4, "an equal fingerprint makes equal keys"


def test_a_priority_that_does_not_fit_is_refused(cache: Cache, engine: SmallEngine) -> None:
    sequence = cache.sequence(tokens(4, seed=1))
    with pytest.raises(ValueError, match="priority"):
        cache.store(sequence, engine.fill(sequence), priority=101)
    with pytest.raises(ValueError, match="3 entries for 4 blocks"):
        cache.store(sequence, engine.fill(sequence), priority=np.array([1, 2, 3]))


def test_memory_of_another_geometry_is_refused(cache: Cache, engine: SmallEngine) -> None:
    store(cache, engine, 1)
    larger = BlockGeometry.from_model(MODEL, tokens_per_block=32)
    sequence = cache.sequence(tokens(4, seed=1))
    with pytest.raises(ValueError, match="geometry"):
        cache.store(sequence, SmallEngine(larger, 16).blocks(0, 4))
    with pytest.raises(ValueError, match="geometry"):
        cache.load(sequence, SmallEngine(larger, 16).blocks(0, 4))
    assert is_unpinned(cache)


def test_memory_that_cannot_be_written_is_refused_and_no_block_is_forgotten(cache: Cache, engine: SmallEngine) -> None:
    store(cache, engine, 1)
    for array in engine.keys + engine.values:
        array.flags.writeable = False
    memory = EngineMemory.from_arrays(cache.geometry, engine.keys, engine.values, axes="block token head dim")
    sequence = cache.sequence(tokens(4, seed=1))
    with pytest.raises(ValueError, match="read-only"):
        cache.load(sequence, memory.blocks([0, 1, 2, 3]))
    with cache.lookup(sequence) as lookup:
        assert lookup.num_blocks == 4


def test_a_target_that_names_a_block_twice_is_refused(cache: Cache, engine: SmallEngine) -> None:
    store(cache, engine, 1)
    sequence = cache.sequence(tokens(4, seed=1))
    with pytest.raises(ValueError, match="names a block twice"):
        cache.load(sequence, engine.memory.blocks([3, 1, 3, 0]))
    assert cache.load(sequence, engine.memory.blocks([3, 1, 2, 0])).wait(10).ok


def test_a_share_of_the_heads_is_not_stored_as_a_whole_block(cache: Cache, engine: SmallEngine) -> None:
    arrays = [array[:, :, :1].copy() for array in engine.keys]
    memory = EngineMemory.from_arrays(cache.geometry, arrays, arrays, axes="block token head dim", head_range=(0, 1))
    with pytest.raises(ValueError, match="some of the heads"):
        cache.store(cache.sequence(tokens(4, seed=1)), memory.blocks([0, 1, 2, 3]))


@pytest.mark.parametrize("timeout_s", [0, -1.0, float("inf"), float("nan"), 1e12])
def test_a_timeout_that_is_no_deadline_is_refused_and_deadlines_go_on(
    cache: Cache, engine: SmallEngine, timeout_s: float
) -> None:
    sequence = cache.sequence(tokens(4, seed=1))
    with pytest.raises(ValueError, match="timeout_s"):
        cache.store(sequence, engine.fill(sequence), timeout_s=timeout_s)
    with pytest.raises(ValueError, match="timeout_s"):
        cache.load(sequence, engine.blocks(0, 4), timeout_s=timeout_s)
    with pytest.raises(ValueError, match="timeout_s"):
        cache.prefetch(sequence, timeout_s=timeout_s)
    assert any(thread.name == "tiercel-deadlines" and thread.is_alive() for thread in threading.enumerate())


def test_a_prefetch_that_is_throttled_keeps_no_pins(cache: Cache, engine: SmallEngine) -> None:
    store(cache, engine, 1)
    lanes = cache._dispatcher.transfer._lanes.values()
    for lane in lanes:
        for _ in range(1000):
            lane.begin_move(NOBODY)
    with pytest.raises(ThrottledError) as caught:
        cache.prefetch(cache.sequence(tokens(4, seed=1)))
    assert is_unpinned(cache), f"pins live as long as {caught.value!r}"
    for lane in lanes:
        for _ in range(1000):
            lane.end_move(NOBODY)


def test_limit_tokens_beside_a_lookup_is_refused(cache: Cache, engine: SmallEngine) -> None:
    store(cache, engine, 1)
    with cache.lookup(cache.sequence(tokens(4, seed=1))) as lookup, pytest.raises(ValueError, match="limit_tokens"):
        cache.load(lookup, engine.blocks(0, 4), limit_tokens=16)


def test_blocks_that_only_the_disk_holds_count_as_stored(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, host=8, disk=64)) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(12, seed=1))
        for _ in range(2):
            assert cache.store(sequence, engine.fill(sequence)).wait(10).num_blocks_ok == 12


def test_arguments_of_another_kind_are_told_apart_by_name(cache: Cache, engine: SmallEngine) -> None:
    anything: Any = config(host=64)
    with pytest.raises(TypeError, match="model: must be a ModelConfig, not a CacheConfig"):
        Cache.open(anything, anything)
    anything = {"num_cpu_blocks": 64}
    with pytest.raises(TypeError, match="config: must be a CacheConfig, not a dict"):
        Cache.open(MODEL, anything)
    anything = None
    with pytest.raises(TypeError, match="namespace = None: must be a str"):
        cache.sequence(tokens(4, seed=1), namespace=anything)
    sequence = cache.sequence(tokens(4, seed=1))
    with pytest.raises(TypeError, match="a NoneType is no EngineBlocks"):
        cache.store(sequence, anything)
    with pytest.raises(TypeError, match="a NoneType is no EngineBlocks"):
        cache.load(sequence, anything)
    anything = tokens(4, seed=1)
    with pytest.raises(TypeError, match="a ndarray is no sequence; make one"):
        cache.store(anything, engine.blocks(0, 4))
    anything = ["block", "token", "head", "dim"]
    with pytest.raises(TypeError, match=r"axes = .*must be one text"):
        EngineMemory.from_arrays(cache.geometry, engine.keys, engine.values, axes=anything)


def test_a_socket_or_port_that_cannot_be_had_names_its_setting(tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "status.sock", tmp_path / ("long" * 60)):
        with pytest.raises(ConfigError, match=r"status_socket = .*cannot be listened on .*leave it null"):
            Cache.open(MODEL, replace(config(host=64), status_socket=str(path)))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"metrics_port = .*already in use.*free port"):
            Cache.open(MODEL, replace(config(host=64), metrics_port=taken.getsockname()[1]))


@pytest.mark.parametrize("key", ["record_path", "status_socket"])
def test_a_path_in_a_home_directory_is_found_there(tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    there: dict[str, Any] = {key: "~/here"}
    nowhere: dict[str, Any] = {key: "~nobody-here/x"}
    with Cache.open(MODEL, config(host=8, **there)):
        assert (tmp_path / "here").exists()
    with pytest.raises(ConfigError, match=f"{key} = '~nobody-here/x': names a home directory that does not exist"):
        Cache.open(MODEL, config(host=8, **nowhere))


@pytest.mark.parametrize("limit", ["5", 1.5, [1]])
def test_a_limit_that_is_no_number_of_tokens_is_named(limit: Any) -> None:
    with Cache.open(MODEL, config(host=8)) as cache, pytest.raises(TypeError, match=r"limit_tokens = .*integer"):
        cache.lookup(cache.sequence(tokens(4, seed=1)), limit_tokens=limit)


def test_a_limit_beyond_every_integer_of_the_machine_is_no_limit() -> None:
    with Cache.open(MODEL, config(host=8)) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(4, seed=1))
        cache.store(sequence, engine.fill(sequence)).wait(10)
        assert cache.lookup(sequence, limit_tokens=10**30).num_blocks == 4
