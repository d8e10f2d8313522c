"""Loads layer by layer: what a layer wait promises, and when."""

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.small_engine import POISON, SmallEngine, config, tokens
from tiercel import Cache, ModelConfig, TierName
from tiercel.errors import DeadlineError
from tiercel.tiers.base import BlockMemory, BlockStatus, Slots, Statuses, Tier
from tiercel.tiers.wrapper import TierWrapper
from tiercel.transfer import layers
from tiercel.transfer.layers import LayerArrivals, layers_per_group

NUM_LAYERS, NUM_BLOCKS = 6, 20
DEEP = ModelConfig(num_layers=NUM_LAYERS, num_kv_heads=2, head_size=16, dtype="float16", model_id="deep")


class GatedTier(TierWrapper):
    """A tier whose reads wait, in the order in which they came, for one permit each, or fail."""

    def __init__(self, inner: Tier) -> None:
        super().__init__(inner)
        self._changed = threading.Condition()
        self._num_come = self._num_permitted = 0
        self.num_to_fail = 0

    def permit(self, count: int) -> None:
        with self._changed:
            self._num_permitted += count
            self._changed.notify_all()

    def read(self, slots: Slots, target: BlockMemory) -> Statuses:
        with self._changed:
            number = self._num_come
            self._num_come += 1
            assert self._changed.wait_for(lambda: self._num_permitted > number, 60)
        statuses = super().read(slots, target)
        with self._changed:
            fails, self.num_to_fail = self.num_to_fail > 0, max(0, self.num_to_fail - 1)
        return np.full_like(statuses, BlockStatus.IO_ERROR) if fails else statuses


@pytest.fixture(autouse=True)
def groups_of_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "GROUP_BYTES", 1)


def stored(cache: Cache, engine: SmallEngine) -> NDArray[np.int32]:
    """Store a prompt and poison the engine; returns the prompt."""
    prompt = tokens(NUM_BLOCKS, seed=1)
    sequence = cache.sequence(prompt)
    assert cache.store(sequence, engine.fill(sequence)).wait(20).ok
    engine.poison()
    return prompt


def gate(cache: Cache) -> GatedTier:
    """Put a gate before the host tier."""
    tiers = cache._dispatcher.transfer._tiers
    gated = tiers[TierName.HOST] = GatedTier(tiers[TierName.HOST])
    return gated


@pytest.mark.parametrize("chunk_bytes", [4096, 1 << 20])
def test_layers_arrive_one_after_another_in_every_block(chunk_bytes: int) -> None:
    with Cache.open(DEEP, config(transfer_chunk_bytes=chunk_bytes)) as cache:
        engine = SmallEngine(cache.geometry)
        prompt = stored(cache, engine)
        gated = gate(cache)
        ticket = cache.load(cache.sequence(prompt), engine.blocks(0, NUM_BLOCKS), by_layer=True)
        with pytest.raises(DeadlineError, match="layer 0"):
            ticket.wait_layer(0, timeout_s=0.02)
        gated.permit(1)  # there are two workers: one may be at the next layer while the other ends this one
        for layer in range(NUM_LAYERS):
            gated.permit(-(-NUM_BLOCKS // (chunk_bytes * NUM_LAYERS // cache.geometry.block_bytes)))
            assert ticket.wait_layer(layer, timeout_s=20)
            assert not (engine.keys[layer][:NUM_BLOCKS] == POISON).all(axis=(1, 2, 3)).any()
            if layer + 2 < NUM_LAYERS:
                assert not ticket.done
        result = ticket.wait(20)
        assert result.num_blocks_ok == NUM_BLOCKS
        engine.check(cache.sequence(prompt), NUM_BLOCKS)


def test_a_layer_wait_after_a_failure_says_so_and_so_does_the_ticket() -> None:
    with Cache.open(DEEP, config(transfer_chunk_bytes=1 << 20)) as cache:
        engine = SmallEngine(cache.geometry)
        prompt = stored(cache, engine)
        gated = gate(cache)
        ticket = cache.load(cache.sequence(prompt), engine.blocks(0, NUM_BLOCKS), by_layer=True)
        gated.permit(2)
        assert ticket.wait_layer(1, timeout_s=20)
        gated.num_to_fail = 1  # of layers 2 and 3, which are both being read, one
        gated.permit(NUM_LAYERS)
        assert ticket.wait(20).num_blocks_ok == 0, "what came behind it does not make up for it"
        arrived = [ticket.wait_layer(layer, timeout_s=20) for layer in range(NUM_LAYERS)]
        assert sorted([arrived.pop(2), arrived.pop(2)]) == [False, True]
        assert all(arrived)


@pytest.mark.parametrize("num_layers_before", [0, 3])
def test_cancelling_between_layers_wakes_who_waits_and_leaves_the_memory_alone(num_layers_before: int) -> None:
    with Cache.open(DEEP, config(transfer_chunk_bytes=1 << 20)) as cache:
        engine = SmallEngine(cache.geometry)
        prompt = stored(cache, engine)
        gated = gate(cache)
        ticket = cache.load(cache.sequence(prompt), engine.blocks(0, NUM_BLOCKS), by_layer=True)
        if num_layers_before:
            gated.permit(num_layers_before)
            assert ticket.wait_layer(num_layers_before - 1, timeout_s=20)
        answers: list[bool] = []
        waiter = threading.Thread(target=lambda: answers.append(ticket.wait_layer(NUM_LAYERS - 1)))
        waiter.start()
        ticket.cancel()
        waiter.join(20)
        assert answers == [False]
        engine.poison()
        gated.permit(100)
        assert cache._dispatcher.transfer.drain(20)
        for layer in range(NUM_LAYERS):
            assert (engine.keys[layer] == POISON * 257).all() or (engine.keys[layer] == POISON).all()
        assert ticket.wait(20).num_blocks_ok == 0
        stats = cache.stats()
        assert all(tier.num_pinned == tier.num_writing == 0 for tier in stats.tiers)
        assert cache._dispatcher.transfer.queued_bytes() == {}


@pytest.mark.parametrize("host", [8, 0])
def test_what_comes_from_disk_counts_for_every_layer(tmp_path: Path, host: int) -> None:
    settings = config(tmp_path, host=host, disk=64, transfer_chunk_bytes=16384)
    with Cache.open(DEEP, settings) as cache:
        engine = SmallEngine(cache.geometry)
        prompt = stored(cache, engine)
    with Cache.open(DEEP, settings) as cache:
        ticket = cache.load(cache.sequence(prompt), engine.blocks(0, NUM_BLOCKS), by_layer=True)
        assert all(ticket.wait_layer(layer, timeout_s=20) for layer in range(NUM_LAYERS))
        assert ticket.wait(20).num_blocks_ok == NUM_BLOCKS
        engine.check(cache.sequence(prompt), NUM_BLOCKS)
        disk = cache._assembly.disk
        assert disk is not None
        assert disk.stats().blocks_read == NUM_BLOCKS, "a block is read once, not once for each group of layers"


def test_layers_are_waited_for_only_where_they_were_asked_for() -> None:
    with Cache.open(DEEP, config()) as cache:
        engine = SmallEngine(cache.geometry)
        prompt = stored(cache, engine)
        with pytest.raises(ValueError, match="by_layer"):
            cache.load(cache.sequence(prompt), engine.blocks(0, NUM_BLOCKS)).wait_layer(0)
        ticket = cache.load(cache.sequence(prompt), engine.blocks(0, NUM_BLOCKS), by_layer=True)
        with pytest.raises(ValueError, match=r"layer = 6"):
            ticket.wait_layer(NUM_LAYERS)
        with pytest.raises(TypeError, match="no CUDA stream"):
            ticket.wait_layer(0, stream="stream")
        assert ticket.wait(20).ok


def test_nothing_to_load_has_arrived() -> None:
    with Cache.open(DEEP, config()) as cache:
        engine = SmallEngine(cache.geometry)
        ticket = cache.load(cache.sequence(tokens(4, seed=9)), engine.blocks(0, 4), by_layer=True)
        assert ticket.wait_layer(0, timeout_s=1)


def test_a_stream_waits_for_what_is_queued_of_its_layer_and_for_nothing_else() -> None:
    class Transfer:
        def __init__(self) -> None:
            self.held: list[int] = []

        def hold(self, stream: int) -> None:
            self.held.append(stream)

    arrivals = LayerArrivals(num_layers=5, group_layers=2, num_blocks=10)
    assert [arrivals.layers_of(group) for group in range(arrivals.num_groups)] == [(0, 2), (2, 4), (4, 5)]
    first, second, other = Transfer(), Transfer(), Transfer()
    arrivals.starter(0)(6, first)
    arrivals.starter(1)(10, other)
    with pytest.raises(DeadlineError):
        arrivals.wait(1, 77, 0.01)
    arrivals.starter(0)(4, second)
    assert arrivals.wait(1, 77, 0.01)
    assert (first.held, second.held, other.held) == ([77], [77], [])
    arrivals.arrived(0, 10)
    assert arrivals.wait(0, 88, 0.01)
    assert first.held == [77]
    with pytest.raises(DeadlineError):
        arrivals.wait(2, None, 0.01)
    arrivals.end()
    assert not arrivals.wait(2, 77, 0.01)


def test_groups_grow_as_loads_shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "GROUP_BYTES", 16 << 20)
    sizes = {num_mib: layers_per_group(32, num_mib << 20) for num_mib in (0, 1, 16, 63, 64, 512, 4096)}
    assert sizes == {0: 32, 1: 32, 16: 32, 63: 16, 64: 8, 512: 1, 4096: 1}
