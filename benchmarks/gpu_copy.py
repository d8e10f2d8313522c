"""How fast do scattered blocks move between a GPU and pinned host memory, against one contiguous copy in the same run?

An engine's side is [layers][K and V][blocks][piece] with 32 layers: a block's 64 pieces lie in 64 places, blocks are visited in
random order, and slots lie in random order too. Buffers rotate, so that no cache holds what is copied. Rates are those of the
GPU's own clock (events around the copy, arguments included); the rows named "wall" are by the host's clock, call to return.
D2H is a store, H2D a load. The bounds are DESIGN section 11's, in percent of the contiguous copy.

Run: python benchmarks/gpu_copy.py [--json FILE] [--repeats N]        (an NVIDIA GPU, PyTorch, tiercel[cuda])
"""

import itertools
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from _harness import Row, parse_arguments, report
from numpy.typing import NDArray

from tiercel import _native
from tiercel.transfer.cuda import CopyWay, CudaCopyOptions, PinnedHost
from tiercel.transfer.cuda.nvrtc import copy_kernels

Start = Callable[..., _native.CudaTransfer]

_PIECES_PER_BLOCK = 64  # 32 layers, K and V
_COPY_BYTES = 512 << 20
_NUM_SETS = 3


def kernel(num_ctas: int) -> CudaCopyOptions:
    """A kernel of so many CTAs, both ways."""
    way = CopyWay.KERNEL
    return CudaCopyOptions(way_h2d=way, way_d2h=way, num_ctas_h2d=num_ctas, num_ctas_d2h=num_ctas)


def staged(num_ctas: int, scratch_mib: int = 16) -> CudaCopyOptions:
    """The copy engine to and from scratch memory, and a kernel of so many CTAs from there."""
    way = CopyWay.STAGED
    return CudaCopyOptions(way_h2d=way, way_d2h=way, num_ctas_staged=num_ctas, scratch_bytes=scratch_mib << 20)


ENGINE = CudaCopyOptions(way_h2d=CopyWay.COPY_ENGINE, way_d2h=CopyWay.COPY_ENGINE)
"""The copy engine, both ways."""

CASES: list[tuple[int, str, CudaCopyOptions, tuple[int, int] | None]] = [
    (4, "4 CTAs", kernel(4), None),
    (4, "32 CTAs", kernel(32), (90, 87)),
    (32, "2 CTAs", kernel(2), None),
    (32, "4 CTAs", kernel(4), None),
    (32, "8 CTAs", kernel(8), (93, 91)),
    (64, "4 CTAs", kernel(4), None),
    (4, "copy engine", ENGINE, None),
    (32, "copy engine", ENGINE, (75, 75)),
    (64, "copy engine", ENGINE, None),
    (4, "staged, 2 CTAs", staged(2), None),
    (4, "staged, 8 CTAs", staged(8), None),
    (32, "staged, 1 CTA", staged(1), None),
    (32, "staged, 2 CTAs", staged(2), None),
    (32, "staged, 4 CTAs", staged(4), (75, 75)),
    (32, "staged, 8 CTAs", staged(8), (75, 75)),
    (32, "staged, 8 CTAs, 4 MiB of scratch", staged(8, 4), None),
    (32, "staged, 8 CTAs, 64 MiB of scratch", staged(8, 64), None),
    (64, "staged, 8 CTAs", staged(8), None),
]
"""(KiB a piece, name, way, bounds of D2H and H2D in percent of the contiguous copy)."""


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
        self.pool = _native.CudaMemoryPool(self.device, reserve_bytes=128 << 20, release_threshold_bytes=256 << 20)
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
        native = _native.CudaCopierOptions(
            num_ctas_gather=options.num_ctas_d2h,
            num_ctas_scatter=options.num_ctas_h2d,
            num_ctas_staged=options.num_ctas_staged,
            num_streams=options.num_streams,
            batch_copies=options.batch_copies,
            scratch_bytes=options.scratch_bytes,
        )
        return _native.CudaCopier(self.pool, self.cubin, native)

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


def starter(copier: _native.CudaCopier, options: CudaCopyOptions, direction: str) -> Start:
    """The call that starts a copy in a direction."""
    method = copier.start_gather if direction == "D2H" else copier.start_scatter
    return partial(method, way=_native.CudaWay[options.way_h2d.name])


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
    for kib, name, options, bounds in CASES:
        for number, direction in enumerate(("D2H", "H2D")):
            baseline = statistics.median(bench.contiguous(direction))
            device_s, wall_s = scattered(bench, kib << 10, options, direction)
            yield rate(f"{kib} KiB, {name}, {direction}", device_s)
            share = 100 * baseline / statistics.median(device_s)
            bound = None if bounds is None else bounds[number]
            yield Row(name="  of the contiguous copy", value=share, unit="%", bound=bound, higher_is_better=True)
            yield rate("  wall", wall_s)
    both_ways = {"4 CTAs each": kernel(4), "copy engine": ENGINE, "staged": staged(8)}
    for name, options in both_ways.items():
        value = both_at_once(bench, 32 << 10, options)
        yield Row(name=f"32 KiB, {name}, both at once", value=value, unit="GB/s", higher_is_better=True)
    for num_blocks in (1, 8, 64):
        yield from small_rows(bench, num_blocks)


def small_rows(bench: Bench, num_blocks: int) -> Iterator[Row]:
    """What a call costs that moves little: 2 MiB blocks of 32 KiB pieces."""
    for (way, options), direction in itertools.product(
        {"kernel": kernel(4), "staged": staged(8)}.items(), ("D2H", "H2D")
    ):
        copier, side = bench.copier(options), bench.sides(32 << 10, 0)[0]
        program = copier.program(side.pieces, _PIECES_PER_BLOCK * (32 << 10))
        start = starter(copier, options, direction)
        wall_us: list[float] = []
        for _ in range(50):
            started = time.perf_counter()
            start(program, side.ids[:num_blocks], side.slots[:num_blocks]).wait()
            wall_us.append(1e6 * (time.perf_counter() - started))
        spread = (min(wall_us), max(wall_us))
        name = f"{num_blocks} block{'s' if num_blocks > 1 else ''} of 2 MiB, {way}, {direction}, wall"
        yield Row(name=name, value=statistics.median(wall_us), unit="us", spread=spread)


def main() -> int:
    arguments = parse_arguments(__doc__)
    bench = Bench(arguments.repeats or 11)
    print(f"# gpu: {bench.device.name}, driver for CUDA {_native.cuda_driver_version()}")
    return report(list(rows_of(bench)), arguments.json)


if __name__ == "__main__":
    sys.exit(main())
