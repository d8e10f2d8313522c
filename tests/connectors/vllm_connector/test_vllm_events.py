"""What KV events tell while a cache changes under them: nothing stays announced that is gone, and parents come first.
An engine without requests is kept awake until it has told of everything."""

import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import Cache, Sequence, TierName
from tiercel.control import BlockChange, ChangeKind

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what vLLM and torch have to say of each other is not what is tested here
    pytest.importorskip("vllm.distributed.kv_events", reason="vLLM is not installed: its KV events are NOT tested")

from tiercel.connectors.vllm.events import MEDIA, KvEvents  # after the check


@pytest.fixture(autouse=True)
def whole_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not cut to integers."""
    monkeypatch.setenv("VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES", "0")


@dataclass
class Follower:
    """A router: of each medium the blocks that it believes in. It takes none whose parent it does not know."""

    events: KvEvents

    def __post_init__(self) -> None:
        self.held: dict[str, set[bytes]] = {medium: set() for medium in MEDIA.values()}

    def take(self) -> list[Any]:
        taken = self.events.take()
        for event in taken:
            held = self.held[event.medium]
            if type(event).__name__ == "BlockStored":
                assert event.parent_block_hash is None or event.parent_block_hash in held, "a block before its parent"
                assert held.isdisjoint(event.block_hashes), "announced twice"
                held.update(event.block_hashes)
            else:
                assert held.issuperset(event.block_hashes), "removed without having been stored"
                held.difference_update(event.block_hashes)
        return taken


def request_of(sequence: Sequence) -> Any:
    """A request whose blocks vLLM calls by twice their keys."""
    return SimpleNamespace(
        block_hashes=[key.tobytes() * 2 for key in sequence.keys()],
        all_token_ids=[0] * (16 * sequence.num_blocks),
        lora_request=None,
    )


def names_of(cache: Cache, tier: TierName) -> set[bytes]:
    return {key.tobytes() * 2 for key in cache.block_keys(tier)}


@contextmanager
def held_disk(cache: Cache) -> Iterator[threading.Event]:
    """Let the disk write only once the event is set."""
    disk, go = cache._assembly.tiers[TierName.DISK], threading.Event()
    whole = disk.write

    def wait(*arguments: Any) -> Any:
        assert go.wait(20)
        return whole(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "write", wait)
        try:
            yield go
        finally:
            go.set()


def take_until_in_memory(follower: Follower, num_blocks: int) -> None:
    """Take events until they have told of so many blocks in host memory."""
    deadline = time.monotonic() + 10
    while len(follower.held["CPU"]) < num_blocks:
        assert time.monotonic() < deadline
        assert follower.events.is_behind()
        follower.take()


def test_an_engine_is_kept_stepping_until_what_the_disk_writes_behind_the_last_step_was_told(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, host=64, disk=64)) as cache:
        engine, follower = SmallEngine(cache.geometry), Follower(KvEvents(cache))
        sequence = cache.sequence(tokens(8, seed=1))
        assert not follower.events.is_behind()
        with held_disk(cache) as go:
            follower.events.name(request_of(sequence), sequence, 0, 8)
            ticket = cache.store(sequence, engine.fill(sequence))
            take_until_in_memory(follower, 8)
            assert follower.events.is_behind(), "the disk is still to write"
            assert not follower.take()
            go.set()
            assert ticket.wait(10).ok
        assert cache.settle(10)
        assert follower.events.is_behind(), "the disk has written and nobody was told"
        follower.take()
        assert follower.held["STORAGE"] == names_of(cache, TierName.DISK)
        assert len(follower.held["STORAGE"]) == 8
        assert not follower.events.is_behind()


def test_a_disk_that_hangs_keeps_no_engine_awake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cache.open(MODEL, config(tmp_path, host=64, disk=64)) as cache:
        engine, follower = SmallEngine(cache.geometry), Follower(KvEvents(cache))
        sequence = cache.sequence(tokens(8, seed=1))
        with held_disk(cache):
            follower.events.name(request_of(sequence), sequence, 0, 8)
            cache.store(sequence, engine.fill(sequence))
            take_until_in_memory(follower, 8)
            monkeypatch.setattr("tiercel.connectors.vllm.events._WAITED_FOR_S", 0.0)
            assert not follower.events.is_behind()


def test_a_reset_wakes_no_engine_and_is_told_when_it_steps_again() -> None:
    with Cache.open(MODEL, config(host=64)) as cache:
        engine, follower = SmallEngine(cache.geometry), Follower(KvEvents(cache))
        sequence = cache.sequence(tokens(8, seed=1))
        follower.events.name(request_of(sequence), sequence, 0, 8)
        assert cache.store(sequence, engine.fill(sequence)).wait(10).ok
        take_until_in_memory(follower, 8)
        cache.reset()
        follower.events.let_sleep()
        assert not follower.events.is_behind(), "vLLM may sleep, without memory for a step"
        follower.take()
        assert not follower.held["CPU"]


def test_what_was_found_and_then_reset_is_not_announced_for_ever() -> None:
    with Cache.open(MODEL, config(host=64)) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(8, seed=1))
        assert cache.store(sequence, engine.fill(sequence)).wait(10).ok
        follower = Follower(KvEvents(cache))
        with cache.lookup(sequence) as lookup:
            follower.events.found(request_of(sequence), lookup)
        cache.reset()
        follower.take()
        assert follower.held["CPU"] == names_of(cache, TierName.HOST) == set()


def test_a_block_that_was_found_and_fails_its_checksum_is_announced_as_removed(tmp_path: Path) -> None:
    settings = config(tmp_path, host=0, disk=64)
    with Cache.open(MODEL, settings) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(8, seed=1))
        assert cache.store(sequence, engine.fill(sequence)).wait(10).ok
    for blocks in tmp_path.rglob("*.bin"):
        blocks.write_bytes(bytes(blocks.stat().st_size))
    with Cache.open(MODEL, settings) as cache:
        follower = Follower(KvEvents(cache))
        sequence = cache.sequence(tokens(8, seed=1))
        lookup = cache.lookup(sequence)
        assert lookup.num_blocks == 8
        follower.events.found(request_of(sequence), lookup)
        assert not cache.load(lookup, SmallEngine(cache.geometry).blocks(0, 8)).wait(10).ok
        follower.take()
        assert follower.held["STORAGE"] == names_of(cache, TierName.DISK)
        assert len(follower.held["STORAGE"]) < 8


def test_parents_are_announced_first_in_whatever_order_the_index_tells_of_them() -> None:
    with Cache.open(MODEL, config(host=64)) as cache:
        events = KvEvents(cache)
        sequence = cache.sequence(tokens(8, seed=1))
        events.name(request_of(sequence), sequence, 0, 8)
        keys = [key.tobytes() for key in sequence.keys()]
        told = [BlockChange(ChangeKind.READY, TierName.HOST, key) for key in [*keys[5:], *keys[2:5], *keys[:2]]]
        events._found += told  # as two runs of the tree become ready, from the last one up
        (event,) = events.take()
        assert event.block_hashes == [key * 2 for key in keys]


def test_more_changes_than_there_is_room_for_leave_the_follower_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiercel.connectors.vllm.events._ROOM", 10)
    with Cache.open(MODEL, config(host=24)) as cache:
        engine, follower = SmallEngine(cache.geometry), Follower(KvEvents(cache))
        for number in range(12):
            sequence = cache.sequence(tokens(4, seed=1))
            sequence.extend(tokens(6, seed=number))
            follower.events.name(request_of(sequence), sequence, 0, 10)
            assert cache.store(sequence, engine.fill(sequence)).wait(10)
            if number % 3:
                follower.take()
                assert follower.held["CPU"] == names_of(cache, TierName.HOST)
