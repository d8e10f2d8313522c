"""How fast do scattered blocks move between a GPU and pinned host memory, against one contiguous copy in the same run?

An engine's side is [layers][K and V][blocks][piece] with 32 layers: a block's 64 pieces lie in 64 places, blocks are visited in
random order, and slots lie in random order too. Buffers rotate, so that no cache holds what is copied. Rates are those of the
GPU's own clock (events around the copy, arguments included); the rows named "wall" are by the host's clock, call to return.
D2H is a store, H2D a load. The bounds are DESIGN section 11's, in percent of the contiguous copy.

Run: python benchmarks/gpu_copy.py [--json FILE] [--repeats N]        (an NVIDIA GPU, PyTorch, tiercel[cuda])
"""

import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from _harness import Row, parse_arguments, report
from numpy.typing import NDArray

from tiercel import Cache, CacheConfig, EngineMemory, ModelConfig, _native
from tiercel.transfer.cuda import CopyWay, CudaCopyOptions, PinnedHost
from tiercel.transfer.cuda.nvrtc import copy_kernels

Start = Callable[..., _native.CudaTransfer]

_PIECES_PER_BLOCK = 64  # 32 layers, K and V
_COPY_BYTES = 512 << 20
_NUM_SETS = 3
_PIN_BYTES = 8 << 30

BOUNDS = {
    (32, "D2H", 8): 93,
    (32, "H2D", 8): 91,
    (4, "D2H", 32): 90,
    (4, "H2D", 32): 87,
    (32, "D2H", 0): 75,
    (32, "H2D", 0): 75,
}
"""Percent of the contiguous copy: (KiB a piece, direction, CTAs; 0 for the copy engine)."""

CASES = [
    (4, 4),
    (4, 8),
    (4, 32),
    (16, 8),
    (32, 1),
    (32, 2),
    (32, 4),
    (32, 8),
    (64, 4),
    (64, 8),
    (4, 0),
    (32, 0),
    (64, 0),
]
"""(KiB a piece, CTAs; 0 for the copy engine)."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One set of buffers: an engine's pieces and where its slots lie."""

    pieces: NDArray[np.int64]
    ids: NDArray[np.int64]
    slots: NDArray[np.uint64]


class Bench:
    """The device, its buffers and pinned slots."""

    def __init__(self, repeats: int) -> None:
        import torch  # pyright: ignore[reportMissingImports]

        self.torch = torch
        self.repeats = repeats
        self.device = _native.CudaDevice(0)
        self.cubin = copy_kernels(self.device.capability)
        size = _COPY_BYTES
        self.engine = [torch.randint(0, 255, (size,), dtype=torch.uint8, device="cuda") for _ in range(_NUM_SETS)]
        self.arena = _native.Arena(2 * _NUM_SETS * size)
        self.arena.prefault(0, self.arena.num_bytes)
        self.pinned = PinnedHost(1 << 30)
        self.pinned.pin(self.device, self.arena.address, self.arena.num_bytes, unit_bytes=size)
        self.host = [torch.empty(size, dtype=torch.uint8, pin_memory=True) for _ in range(2)]

    def sides(self, piece_bytes: int, half: int) -> list[Side]:
        """Buffers of blocks of 64 pieces. half: which half of the arena, so that two directions do not share slots."""
        block_bytes = _PIECES_PER_BLOCK * piece_bytes
        num_blocks = _COPY_BYTES // block_bytes
        rng = np.random.default_rng(0)
        sides: list[Side] = []
        for number, engine in enumerate(self.engine):
            pieces = [
                [
                    engine.data_ptr() + i * num_blocks * piece_bytes,
                    piece_bytes,
                    i * piece_bytes,
                    1,
                    0,
                    0,
                    1,
                    0,
                    piece_bytes,
                ]
                for i in range(_PIECES_PER_BLOCK)
            ]
            base = self.arena.address + (half * _NUM_SETS + number) * _COPY_BYTES
            slots = base + rng.permutation(num_blocks) * block_bytes
            ids = rng.permutation(num_blocks).astype(np.int64)
            sides.append(Side(pieces=np.array(pieces, np.int64), ids=ids, slots=slots.astype(np.uint64)))
        return sides

    def copier(self, options: CudaCopyOptions) -> _native.CudaCopier:
        return _native.CudaCopier(
            self.device,
            self.cubin,
            num_ctas_gather=options.num_ctas_d2h,
            num_ctas_scatter=options.num_ctas_h2d,
            num_streams=options.num_streams,
            batch_copies=options.batch_copies,
        )

    def contiguous(self, direction: str) -> list[float]:
        """Seconds of one copy of a contiguous buffer to or from memory that PyTorch pinned, by the GPU's clock."""
        torch = self.torch
        seconds: list[float] = []
        for repeat in range(self.repeats + 2):
            device, host = self.engine[repeat % _NUM_SETS], self.host[repeat % 2]
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            if direction == "D2H":
                host.copy_(device, non_blocking=True)
            else:
                device.copy_(host, non_blocking=True)
            stop.record()
            torch.cuda.synchronize()
            seconds.append(start.elapsed_time(stop) / 1e3)
        return seconds[2:]

    def contiguous_both(self) -> list[float]:
        """Seconds of a copy each way at the same time, by the host's clock."""
        torch = self.torch
        streams = [torch.cuda.Stream() for _ in range(2)]
        seconds: list[float] = []
        for _ in range(self.repeats + 2):
            torch.cuda.synchronize()
            started = time.perf_counter()
            with torch.cuda.stream(streams[0]):
                self.host[0].copy_(self.engine[0], non_blocking=True)
            with torch.cuda.stream(streams[1]):
                self.engine[1].copy_(self.host[1], non_blocking=True)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        return seconds[2:]


def options_of(num_ctas: int) -> CudaCopyOptions:
    """How to copy: with a kernel of so many CTAs, or with the copy engine for 0."""
    if num_ctas == 0:
        return CudaCopyOptions(way_h2d=CopyWay.COPY_ENGINE, way_d2h=CopyWay.COPY_ENGINE)
    kernel = CopyWay.KERNEL
    return CudaCopyOptions(way_h2d=kernel, way_d2h=kernel, num_ctas_h2d=num_ctas, num_ctas_d2h=num_ctas)


def starter(copier: _native.CudaCopier, options: CudaCopyOptions, direction: str) -> Start:
    """The call that starts a copy in a direction."""
    method = copier.start_gather if direction == "D2H" else copier.start_scatter
    return partial(method, copy_engine=options.way_h2d is CopyWay.COPY_ENGINE)


def scattered(
    bench: Bench, piece_bytes: int, options: CudaCopyOptions, direction: str, half: int = 0
) -> tuple[list[float], list[float]]:
    """Seconds of each copy by the GPU's clock and by the host's."""
    copier = bench.copier(options)
    sides = bench.sides(piece_bytes, half)
    programs = [copier.program(side.pieces, _PIECES_PER_BLOCK * piece_bytes) for side in sides]
    start = starter(copier, options, direction)
    device_s: list[float] = []
    wall_s: list[float] = []
    for repeat in range(bench.repeats + 2):
        side, program = sides[repeat % _NUM_SETS], programs[repeat % _NUM_SETS]
        started = time.perf_counter()
        device_s.append(start(program, side.ids, side.slots).wait() / 1e3)
        wall_s.append(time.perf_counter() - started)
    return device_s[2:], wall_s[2:]


def both_at_once(bench: Bench, piece_bytes: int, options: CudaCopyOptions) -> float:
    """GB/s of both directions together, while both run for the same time."""
    stop = threading.Event()
    counts = {"D2H": 0, "H2D": 0}
    copier = bench.copier(options)

    def work(direction: str, half: int) -> None:
        side = bench.sides(piece_bytes, half)[half]
        program = copier.program(side.pieces, _PIECES_PER_BLOCK * piece_bytes)
        start = starter(copier, options, direction)
        while not stop.is_set():
            start(program, side.ids, side.slots).wait()
            counts[direction] += 1

    threads = [threading.Thread(target=work, args=pair) for pair in (("D2H", 0), ("H2D", 1))]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    first, started = dict(counts), time.perf_counter()
    time.sleep(1.0)
    moved, seconds = sum(counts[name] - first[name] for name in counts), time.perf_counter() - started
    stop.set()
    for thread in threads:
        thread.join()
    return moved * _COPY_BYTES / seconds / 1e9


def rate(name: str, seconds: list[float], bound: float | None = None) -> Row:
    """A row of GB/s."""
    spread = (_COPY_BYTES / max(seconds) / 1e9, _COPY_BYTES / min(seconds) / 1e9)
    value = _COPY_BYTES / statistics.median(seconds) / 1e9
    return Row(name=name, value=value, unit="GB/s", bound=bound, higher_is_better=True, spread=spread)


def rows_of(bench: Bench) -> Iterator[Row]:
    for direction in ("D2H", "H2D"):
        yield rate(f"contiguous {direction}", bench.contiguous(direction))
    both = 2 * _COPY_BYTES / statistics.median(bench.contiguous_both()) / 1e9
    yield Row(name="contiguous, both at once", value=both, unit="GB/s", higher_is_better=True)
    for kib, num_ctas in CASES:
        way = f"{num_ctas} CTAs" if num_ctas else "copy engine"
        for direction in ("D2H", "H2D"):
            baseline = statistics.median(bench.contiguous(direction))
            device_s, wall_s = scattered(bench, kib << 10, options_of(num_ctas), direction)
            yield rate(f"{kib} KiB, {way}, {direction}", device_s)
            share = 100 * baseline / statistics.median(device_s)
            bound = BOUNDS.get((kib, direction, num_ctas))
            yield Row(name="  of the contiguous copy", value=share, unit="%", bound=bound, higher_is_better=True)
            yield rate("  wall", wall_s)
    for kib, num_ctas in ((32, 4), (32, 8), (4, 32), (32, 0)):
        way = f"{num_ctas} CTAs each" if num_ctas else "copy engine"
        value = both_at_once(bench, kib << 10, options_of(num_ctas))
        yield Row(name=f"{kib} KiB, {way}, both at once", value=value, unit="GB/s", higher_is_better=True)
    for kib in (32, 64):
        for batch_copies in (64, 1024, 4096):
            options = replace(options_of(0), batch_copies=batch_copies)
            for direction in ("D2H", "H2D"):
                device_s, _ = scattered(bench, kib << 10, options, direction)
                yield rate(f"{kib} KiB, copy engine, {batch_copies} a batch, {direction}", device_s)
    for num_blocks in (1, 8, 64):
        yield from small_rows(bench, num_blocks)
    for copy_way in CopyWay:
        yield from cache_rows(bench, copy_way, 32)
    yield from cache_rows(bench, CopyWay.AUTO, 128)
    yield from pinning_rows(bench)


def small_rows(bench: Bench, num_blocks: int) -> Iterator[Row]:
    """What a call costs that moves little: 2 MiB blocks of 32 KiB pieces, 8 CTAs."""
    copier, side = bench.copier(options_of(8)), bench.sides(32 << 10, 0)[0]
    program = copier.program(side.pieces, _PIECES_PER_BLOCK * (32 << 10))
    for direction in ("D2H", "H2D"):
        start = starter(copier, options_of(8), direction)
        wall_us: list[float] = []
        for _ in range(50):
            started = time.perf_counter()
            start(program, side.ids[:num_blocks], side.slots[:num_blocks]).wait()
            wall_us.append(1e6 * (time.perf_counter() - started))
        spread = (min(wall_us), max(wall_us))
        name = f"{num_blocks} block{'s' if num_blocks > 1 else ''} of 2 MiB, {direction}, wall"
        yield Row(name=name, value=statistics.median(wall_us), unit="us", spread=spread)


def cache_rows(bench: Bench, way: CopyWay, chunk_mib: int) -> Iterator[Row]:
    """The whole cache around it: store and load of 512 blocks of 2 MiB through the facade, in its chunks."""
    model = ModelConfig(num_layers=32, num_kv_heads=8, head_size=128, dtype="bfloat16", model_id="bench")
    config = CacheConfig(
        num_cpu_blocks=1024, tokens_per_block=16, load_policy="always", transfer_chunk_bytes=chunk_mib << 20
    )
    torch, num_blocks = bench.torch, 512
    with Cache.open(model, config) as cache:
        layers = [torch.zeros(2, 2 * num_blocks, 16, 8, 128, dtype=torch.bfloat16, device="cuda") for _ in range(32)]
        memory = EngineMemory.from_arrays(cache.geometry, layers, axes="kv block token head dim")
        started = time.perf_counter()
        cache.devices.attach(memory, CudaCopyOptions(way_h2d=way, way_d2h=way))
        yield Row(name=f"attach ({way.value}), 2 GiB to pin", value=1e3 * (time.perf_counter() - started), unit="ms")
        num_bytes = num_blocks * cache.geometry.block_bytes
        rng = np.random.default_rng(0)
        seconds: dict[str, list[float]] = {"store": [], "load": []}
        for _ in range(bench.repeats):
            tokens = rng.integers(0, 50_000, num_blocks * 16, np.int32)
            ids = rng.permutation(2 * num_blocks)[:num_blocks]
            torch.cuda.synchronize()
            started = time.perf_counter()
            assert cache.store(cache.sequence(tokens), memory.blocks(ids)).wait(30).ok
            seconds["store"].append(time.perf_counter() - started)
            started = time.perf_counter()
            assert cache.load(cache.sequence(tokens), memory.blocks(ids)).wait(30).num_blocks_ok == num_blocks
            seconds["load"].append(time.perf_counter() - started)
        for name, times in seconds.items():
            spread = (num_bytes / max(times) / 1e9, num_bytes / min(times) / 1e9)
            value = num_bytes / statistics.median(times) / 1e9
            yield Row(
                name=f"cache ({way.value}, {chunk_mib} MiB chunks), {name} of 1 GiB, wall",
                value=value,
                unit="GB/s",
                higher_is_better=True,
                spread=spread,
            )


def pinning_rows(bench: Bench) -> Iterator[Row]:
    """What pinning host memory costs, resident already, and giving it back."""
    arena = _native.Arena(_PIN_BYTES)
    step = _PIN_BYTES // 8
    threads = [threading.Thread(target=arena.prefault, args=(at, at + step)) for at in range(0, _PIN_BYTES, step)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    prefault_s = time.perf_counter() - started
    pinned = PinnedHost(1 << 30)
    started = time.perf_counter()
    pinned.pin(bench.device, arena.address, _PIN_BYTES, unit_bytes=2 << 20)
    pin_s = time.perf_counter() - started
    started = time.perf_counter()
    pinned.close()
    unpin_s = time.perf_counter() - started
    arena.close()
    gib = _PIN_BYTES >> 30
    for name, seconds in (("prefault, 8 threads", prefault_s), ("pin", pin_s), ("unpin", unpin_s)):
        yield Row(name=f"{name}, huge pages {arena.huge}", value=1e3 * seconds / gib, unit="ms/GiB")


def main() -> int:
    arguments = parse_arguments(__doc__)
    bench = Bench(arguments.repeats or 11)
    print(f"# gpu: {bench.device.name}, driver for CUDA {_native.cuda_driver_version()}")
    return report(list(rows_of(bench)), arguments.json)


if __name__ == "__main__":
    sys.exit(main())
