"""The whole way: an engine's blocks on a GPU through host memory and disk and back, by the facade."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gpu.conftest import DEVICE, WAYS
from tests.helpers.small_engine import MODEL, config, tokens
from tiercel import Cache, EngineMemory, TierName
from tiercel.layout import BlockGeometry
from tiercel.transfer import layers
from tiercel.transfer.cuda import nvrtc


class GpuEngine:
    """As SmallEngine, with its KV memory on the GPU, keys and values together."""

    def __init__(self, geometry: BlockGeometry, num_blocks: int = 256) -> None:
        import torch

        shape = (2, num_blocks, geometry.tokens_per_block, geometry.num_kv_heads, geometry.head_size)
        self._torch = torch
        self.layers = [torch.full(shape, 7, dtype=torch.float16, device=DEVICE) for _ in range(geometry.num_layers)]
        self.memory = EngineMemory.from_arrays(geometry, self.layers, axes="kv block token head dim")

    def fill(self, start: int, stop: int, seed: int) -> Any:
        """Write random KV on a stream of its own; returns the blocks with the event of the last write."""
        stream = self._torch.cuda.Stream()
        generator = self._torch.Generator(DEVICE).manual_seed(seed)
        with self._torch.cuda.stream(stream):
            self._torch.cuda._sleep(20_000_000)
            for layer in self.layers:
                part = layer[:, start:stop]
                part.copy_(self._torch.rand(part.shape, device=DEVICE, generator=generator))
            event = self._torch.cuda.Event()
            event.record()
        return self.memory.blocks(range(start, stop), after=event)

    def content(self, start: int, stop: int) -> list[str]:
        """A digest of each block."""
        self._torch.cuda.synchronize()
        parts = self._torch.stack([layer[:, start:stop] for layer in self.layers]).cpu().numpy()
        return [hashlib.sha256(parts[:, :, i].tobytes()).hexdigest() for i in range(stop - start)]

    def poison(self) -> None:
        for layer in self.layers:
            layer.fill_(9)
        self._torch.cuda.synchronize()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", [64, 0])
def test_blocks_survive_gpu_host_disk_restart_and_come_back_to_the_gpu(tmp_path: Path, way: str, host: int) -> None:
    with Cache.open(MODEL, config(tmp_path, host=host, disk=128)) as cache:
        engine = GpuEngine(cache.geometry)
        seen: list[tuple[int, int]] = []
        cache.devices.attach(engine.memory, WAYS[way], lambda done, total: seen.append((done, total)))
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
        assert seen[-1][0] == seen[-1][1]
        sequence = cache.sequence(tokens(40, seed=1))
        assert cache.store(sequence, engine.fill(0, 40, seed=1)).wait(20).ok
        stored = engine.content(0, 40)
        engine.poison()
        if host:
            loaded = cache.load(cache.sequence(tokens(40, seed=1)), engine.memory.blocks(range(100, 140))).wait(20)
            assert loaded.blocks_by_tier == {TierName.HOST: 40}
            assert engine.content(100, 140) == stored
            engine.poison()
    with Cache.open(MODEL, config(tmp_path, host=host, disk=128)) as cache:
        ids = np.random.default_rng(0).permutation(256)[:40]
        loaded = cache.load(cache.sequence(tokens(40, seed=1)), engine.memory.blocks(ids)).wait(20)
        assert loaded.num_blocks_ok == 40
        whole = engine.content(0, 256)
        assert [whole[block] for block in ids] == stored


def test_settings_and_no_options_attach_and_the_pool_is_told_of_in_status(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, host=64, disk=64, gpu_pool_reserve_bytes="3MiB")) as cache:
        engine = GpuEngine(cache.geometry)
        assert cache.stats().gpu_pools == ()
        cache.devices.attach(engine.memory)
        sequence = cache.sequence(tokens(20, seed=1))
        assert cache.store(sequence, engine.fill(0, 20, seed=1)).wait(20).ok
        (pool,) = cache.stats().gpu_pools
        assert pool.device == DEVICE
        assert 3 << 20 <= pool.held_bytes <= pool.held_bytes_high
        assert 0 < pool.used_bytes <= pool.used_bytes_high <= pool.held_bytes_high
        assert not any("not pinned" in note for note in cache.stats().notes), "the disk's buffers are pinned"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("on_stream", [True, False])
def test_layers_are_there_when_their_wait_has_returned(
    way: str, on_stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(layers, "GROUP_BYTES", 1)
    with Cache.open(MODEL, config(host=64, transfer_gpu_chunk_bytes=16384, transfer_chunk_bytes=16384)) as cache:
        engine = GpuEngine(cache.geometry)
        cache.devices.attach(engine.memory, WAYS[way])
        sequence = cache.sequence(tokens(40, seed=2))
        assert cache.store(sequence, engine.fill(0, 40, seed=2)).wait(20).ok
        stored = engine.content(0, 40)
        stream = torch.cuda.Stream()
        for _ in range(10):
            engine.poison()
            ticket = cache.load(
                cache.sequence(tokens(40, seed=2)), engine.memory.blocks(range(100, 140)), by_layer=True
            )
            seen = []
            with torch.cuda.stream(stream):
                for number, layer in enumerate(engine.layers):
                    assert ticket.wait_layer(number, stream=stream if on_stream else None, timeout_s=20)
                    seen.append(layer[:, 100:140].clone())
            assert ticket.wait(20).ok
            torch.cuda.synchronize()
            parts = torch.stack(seen).cpu().numpy()
            assert [hashlib.sha256(parts[:, :, i].tobytes()).hexdigest() for i in range(40)] == stored


@pytest.mark.parametrize("way", WAYS)
def test_a_cancelled_load_touches_nothing_afterwards_and_the_next_one_is_whole(way: str) -> None:
    import torch

    settings = config(host=256, transfer_gpu_chunk_bytes=16384, transfer_chunk_bytes=16384)
    with Cache.open(MODEL, settings) as cache:
        engine = GpuEngine(cache.geometry)
        cache.devices.attach(engine.memory, WAYS[way])
        assert cache.store(cache.sequence(tokens(120, seed=3)), engine.fill(0, 120, seed=3)).wait(20).ok
        stored = engine.content(0, 120)
        for attempt in range(20):
            ticket = cache.load(
                cache.sequence(tokens(120, seed=3)), engine.memory.blocks(range(120, 240)), by_layer=attempt % 2 == 1
            )
            ticket.cancel()
            engine.poison()
            assert all(bool((layer == 9).all()) for layer in engine.layers)
            loaded = cache.load(cache.sequence(tokens(120, seed=3)), engine.memory.blocks(range(120, 240))).wait(20)
            assert loaded.ok
            assert engine.content(120, 240) == stored
        torch.cuda.synchronize()
        assert all(tier.num_pinned == tier.num_writing == 0 for tier in cache.stats().tiers)


def test_attaching_again_with_other_options_is_refused(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, host=8)) as cache:
        engine = GpuEngine(cache.geometry, num_blocks=4)
        cache.devices.attach(engine.memory, WAYS["kernel"])
        cache.devices.attach(engine.memory)
        with pytest.raises(ValueError, match="was attached with"):
            cache.devices.attach(engine.memory, WAYS["copy engine"])


def test_kernels_are_compiled_once_and_again_if_what_was_kept_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cubin = nvrtc.copy_kernels(90)
    (kept,) = tmp_path.glob("tiercel/kernels/*.cubin")
    written = kept.stat().st_mtime_ns
    assert nvrtc.copy_kernels(90) == cubin
    assert kept.stat().st_mtime_ns == written
    kept.write_bytes(b"damaged" + kept.read_bytes()[7:])
    assert nvrtc.copy_kernels(90) == cubin
