"""How fast do blocks go through the whole cache: GPU to host memory and back, layer by layer, and from disk to a GPU?

256 to 4,096 blocks of 32 layers, 1 GiB in all, are stored and loaded through the facade, from the call to the ticket's outcome,
with blocks and slots in random order and nothing set but capacities. Loads are of a lookup made before, stores look up
themselves. Pieces are what one layer's K or V of a block takes in the
engine's memory; 2 MiB is an engine that keeps blocks whole. The contiguous copy in the same run is the ceiling.

Disk: the host tier is off, so blocks go between disk and GPU through pinned buffers. The bound is what the same cache reads into
page-aligned host memory, without a copy, plus 20 %.

Run: python benchmarks/gpu_cache.py [--dir DIR] [--json FILE] [--repeats N]      (an NVIDIA GPU, PyTorch, tiercel[cuda])
"""

import itertools
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _harness import Row, make_parser, report
from numpy.typing import NDArray

from tiercel import Cache, CacheConfig, EngineMemory, ModelConfig

_NUM_LAYERS, _TOKENS, _HEAD_SIZE = 32, 16, 128
_COPY_BYTES = 1 << 30
_LOAD_BOUND = 50.0
_DISK_BOUND = 1 / 1.2


class Engine:
    """An engine's memory on the GPU with pieces of one size; twice what one load needs."""

    def __init__(self, torch: Any, piece_bytes: int) -> None:
        self.torch = torch
        whole = piece_bytes > 64 << 10
        heads = 8 if whole else piece_bytes // (_TOKENS * _HEAD_SIZE * 2)
        self.model = ModelConfig(
            num_layers=_NUM_LAYERS, num_kv_heads=heads, head_size=_HEAD_SIZE, dtype="bfloat16", model_id="bench"
        )
        self.block_bytes = _NUM_LAYERS * 2 * _TOKENS * heads * _HEAD_SIZE * 2
        self.num_blocks = _COPY_BYTES // self.block_bytes
        count = 2 * self.num_blocks
        shapes: list[tuple[int, ...]]
        if whole:
            self.axes, shapes = "block layer kv token head dim", [(count, _NUM_LAYERS, 2, _TOKENS, heads, _HEAD_SIZE)]
        else:
            self.axes, shapes = "kv block token head dim", [(2, count, _TOKENS, heads, _HEAD_SIZE)] * _NUM_LAYERS
        self.arrays = [torch.full(shape, 1.5, dtype=torch.bfloat16, device="cuda") for shape in shapes]

    def memory(self, cache: Cache) -> EngineMemory:
        return EngineMemory.from_arrays(cache.geometry, self.arrays, axes=self.axes)


class Round:
    """Stores and loads of fresh prompts, timed."""

    def __init__(self, cache: Cache, engine: Engine, memory: EngineMemory) -> None:
        self._cache, self._engine, self._memory = cache, engine, memory
        self._rng = np.random.default_rng(0)
        self._prompt: NDArray[np.int32] = np.empty(0, np.int32)

    def _blocks(self) -> Any:
        return self._memory.blocks(self._rng.permutation(self._memory.num_blocks)[: self._engine.num_blocks])

    def store(self) -> float:
        self._prompt = self._rng.integers(0, 50_000, self._engine.num_blocks * _TOKENS, np.int32)
        sequence, blocks = self._cache.sequence(self._prompt), self._blocks()
        started = time.perf_counter()
        assert self._cache.store(sequence, blocks).wait(60).ok
        return time.perf_counter() - started

    def load(self) -> float:
        blocks, lookup = self._blocks(), self._cache.lookup(self._cache.sequence(self._prompt))
        started = time.perf_counter()
        result = self._cache.load(lookup, blocks).wait(60)
        assert result.num_blocks_ok == self._engine.num_blocks
        return time.perf_counter() - started

    def lookup(self) -> float:
        """Seconds of a lookup with hashing, which an engine does before it has room for the blocks."""
        started = time.perf_counter()
        self._cache.lookup(self._cache.sequence(self._prompt)).release()
        return time.perf_counter() - started

    def load_by_layer(self) -> tuple[float, float]:
        """Seconds until the first layer and until all."""
        blocks, lookup = self._blocks(), self._cache.lookup(self._cache.sequence(self._prompt))
        started = time.perf_counter()
        ticket = self._cache.load(lookup, blocks, by_layer=True)
        assert ticket.wait_layer(0, timeout_s=60)
        first = time.perf_counter() - started
        assert ticket.wait(60).ok
        return first, time.perf_counter() - started

    def cancel(self) -> float:
        """Seconds that cancelling a running load takes."""
        ticket = self._cache.load(self._cache.sequence(self._prompt), self._blocks())
        time.sleep(0.005)
        started = time.perf_counter()
        ticket.cancel()
        return time.perf_counter() - started


def rate(name: str, seconds: list[float], *, bound: float | None = None) -> Row:
    """A row of GB/s."""
    spread = (_COPY_BYTES / max(seconds) / 1e9, _COPY_BYTES / min(seconds) / 1e9)
    value = _COPY_BYTES / statistics.median(seconds) / 1e9
    return Row(name=name, value=value, unit="GB/s", bound=bound, higher_is_better=True, spread=spread)


def milliseconds(name: str, seconds: list[float]) -> Row:
    spread = (1e3 * min(seconds), 1e3 * max(seconds))
    return Row(name=name, value=1e3 * statistics.median(seconds), unit="ms", spread=spread)


def contiguous(torch: Any, repeats: int) -> Iterator[Row]:
    host = torch.empty(_COPY_BYTES, dtype=torch.uint8, pin_memory=True)
    device = torch.empty(_COPY_BYTES, dtype=torch.uint8, device="cuda")
    for name, target, source in (("D2H", host, device), ("H2D", device, host)):
        seconds: list[float] = []
        for _ in range(repeats + 1):
            torch.cuda.synchronize()
            started = time.perf_counter()
            target.copy_(source, non_blocking=True)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        yield rate(f"contiguous copy, {name}", seconds[1:])


def host_rows(torch: Any, piece_kib: int, repeats: int, **settings: Any) -> Iterator[Row]:
    """Stores and loads between GPU and host memory."""
    engine = Engine(torch, piece_kib << 10)
    told = "".join(f", {key} = {value}" for key, value in settings.items())
    config = CacheConfig(num_cpu_blocks=2 * engine.num_blocks + 64, load_policy="always", **settings)
    with Cache.open(engine.model, config) as cache:
        memory = engine.memory(cache)
        cache.devices.attach(memory)
        turn = Round(cache, engine, memory)
        stores: list[float] = []
        loads: list[float] = []
        layered: list[tuple[float, float]] = []
        for _ in range(repeats + 2):
            stores.append(turn.store())
            loads.append(turn.load())
            layered.append(turn.load_by_layer())
        name = f"{piece_kib} KiB pieces{told}"
        yield rate(f"{name}: store", stores[2:], bound=None if settings else _LOAD_BOUND)
        yield rate(f"{name}: load", loads[2:], bound=None if settings else _LOAD_BOUND)
        if not settings:
            yield rate(f"{name}: load by layer", [whole for _, whole in layered[2:]])
            yield milliseconds("  until its first layer", [first for first, _ in layered[2:]])
            yield milliseconds("  lookup before it", [turn.lookup() for _ in range(repeats)])
            yield milliseconds("  cancelling a running load", [turn.cancel() for _ in range(repeats)])
            (pool,) = cache.devices.pools()
            yield Row(name="  GPU memory beside the blocks", value=pool.held_bytes_high / (1 << 20), unit="MiB")


def disk_rows(torch: Any, directory: Path, repeats: int) -> Iterator[Row]:
    """Loads from disk to a GPU with the host tier off, and to host memory for comparison."""
    engine = Engine(torch, 64 << 10)
    config = CacheConfig(
        enable_cpu=False,
        enable_ssd=True,
        ssd_cache_dir=str(directory),
        num_ssd_blocks=2 * engine.num_blocks + 64,
        load_policy="always",
    )
    with Cache.open(engine.model, config) as cache:
        memory = engine.memory(cache)
        cache.devices.attach(memory)
        turn = Round(cache, engine, memory)
        stores = [turn.store() for _ in range(2)]
        host = aligned_host_memory(engine, cache)
        beside = Round(cache, engine, host)
        beside._prompt = turn._prompt
        pairs = [(beside.load(), turn.load()) for _ in range(repeats)]
        reached = rate("disk -> page-aligned host memory", [first for first, _ in pairs])
        yield reached
        yield rate("disk -> GPU, no host tier", [second for _, second in pairs], bound=_DISK_BOUND * reached.value)
        yield rate("GPU -> disk, no host tier", stores)


def aligned_host_memory(engine: Engine, cache: Cache) -> EngineMemory:
    """Host memory whose blocks lie as in a slot, page-aligned: read into without a copy."""
    shape = (engine.num_blocks, *cache.geometry.shape.values())
    raw = np.zeros(engine.num_blocks * engine.block_bytes + 4096, np.uint8)
    offset = -raw.ctypes.data % 4096
    array = raw[offset : offset + engine.num_blocks * engine.block_bytes].view(np.uint16).reshape(shape)
    return EngineMemory.from_arrays(cache.geometry, [array], axes="block layer kv token head dim")


def rows_of(torch: Any, directory: Path, repeats: int) -> Iterator[Row]:
    yield from contiguous(torch, repeats)
    for piece_kib in (4, 16, 32, 64, 2048):
        yield from host_rows(torch, piece_kib, repeats)
    for piece_kib, engine in itertools.product((32, 64), (True, False)):
        ways = {"use_ce_transfer_h2d": engine, "use_ce_transfer_d2h": engine}
        yield from host_rows(torch, piece_kib, repeats, **ways)
    for chunk in ("32MiB", "128MiB"):
        yield from host_rows(torch, 64, repeats, transfer_gpu_chunk_bytes=chunk)
    yield from disk_rows(torch, directory, repeats)


def main() -> int:
    import torch  # pyright: ignore[reportMissingImports]

    parser = make_parser(__doc__)
    parser.add_argument("--dir", type=Path, default=Path("/tmp/tiercel-gpu-cache"), help="directory of the disk tier")
    arguments = parser.parse_args()
    rows = list(rows_of(torch, arguments.dir, arguments.repeats or 9))
    return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
