"""From what a machine was measured to be capable of to what the simulator and the plan count with: links and costs of tiers.

Disks: the figure at the depth that the cache reaches with blocks of the size; a tier on several directories stripes over them.
Host memory: the first GPU's copies, by the length of a block's runs, else the copy between host memory and host memory. Between
two measured sizes rates go along a straight line of their logarithms. Pure; used by whoever makes a `SimulationSetup`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tiercel.costs import TransferCost
from tiercel.errors import ConfigError
from tiercel.tiers.base import TierName
from tiercel.tune.machine import DirectoryFigures, DiskFigure, GpuCopyFigure, GpuFigures, Machine
from tiercel.tune.simulate.setup import Link

_COPY_LATENCY_S = 20e-6
"""Of a copy between host memory and engine memory: a call and a thread that wakes, which a probe does not measure."""


@dataclass(frozen=True, kw_only=True)
class CacheDepth:
    """How a cache keeps a disk busy, by the defaults of its settings.

    Attributes:
        chunk_bytes: `transfer_chunk_bytes`, of one call.
        callers: calls of a direction in progress at once.
        requests_max: `ssd_cache_iouring_entries`.
    """

    chunk_bytes: int = 32 << 20
    callers: int = 2
    requests_max: int = 512

    def blocks(self, block_bytes: int) -> int:
        """Blocks of a size that are in progress at once when a long load runs."""
        return min(self.callers * max(1, self.chunk_bytes // block_bytes), self.requests_max)


DEFAULT_DEPTH = CacheDepth()


def link_of(
    machine: Machine,
    tier: TierName,
    operation: Literal["read", "write"],
    block_bytes: int,
    *,
    piece_bytes: int | None = None,
    depth: CacheDepth = DEFAULT_DEPTH,
) -> Link:
    """Return the link of a tier's reads, towards the engine, or of its writes.

    Latency and rate are such that one block by itself takes as long as it did at a depth of 1, and many take the rate at depth.

    Args:
        machine: what was measured.
        tier: HOST or DISK.
        operation: "read" for loads, "write" for stores.
        block_bytes: size of a block.
        piece_bytes: length of a block's runs in a GPU's memory, by which the copies of a machine with a GPU are looked up; the
            contiguous copy if None.
        depth: how the cache keeps a disk busy.

    Raises:
        ConfigError: the machine's file has no figure for it.
        ValueError: there is no such tier to measure, or a size is not positive.
    """
    if block_bytes <= 0 or (piece_bytes is not None and piece_bytes <= 0):
        raise ValueError(f"block_bytes and piece_bytes must be positive: {block_bytes}, {piece_bytes}")
    if tier is TierName.HOST:
        return Link(latency_s=_COPY_LATENCY_S, bytes_per_s=_copy_rate(machine, operation, piece_bytes))
    if tier is not TierName.DISK:
        raise ValueError(f"{tier.name.lower()}: a machine's file says nothing of this tier")
    if not machine.directories:
        raise ConfigError("the machine's file has no cache directory: measure with tiercel probe --directory DIR")
    links = [_disk_link(directory, operation, block_bytes, depth) for directory in machine.directories]
    slowest = min(link.bytes_per_s for link in links)  # stripes are equal, so all wait for it
    return Link(latency_s=max(link.latency_s for link in links), bytes_per_s=slowest * len(links))


def transfer_cost_of(
    machine: Machine,
    tier: TierName,
    block_bytes: int,
    *,
    piece_bytes: int | None = None,
    depth: CacheDepth = DEFAULT_DEPTH,
) -> TransferCost:
    """Return what loads from an idle tier cost: its link of reads, as `plan` takes it. Arguments and errors as `link_of`."""
    link = link_of(machine, tier, "read", block_bytes, piece_bytes=piece_bytes, depth=depth)
    return TransferCost(latency_s=link.latency_s, bytes_per_s=link.bytes_per_s)


def _disk_link(
    directory: DirectoryFigures, operation: Literal["read", "write"], block_bytes: int, depth: CacheDepth
) -> Link:
    by_size: dict[int, list[DiskFigure]] = {}
    for figure in directory.figures:
        if figure.operation == operation:
            by_size.setdefault(figure.block_bytes, []).append(figure)
    if not by_size:
        raise ConfigError(
            f"the machine's file has no {operation} of {directory.path}: measure with tiercel probe again"
        )
    deep = {size: _at_depth(figures, depth.blocks(size)) for size, figures in by_size.items()}
    alone = {size: _at_depth(figures, 1) for size, figures in by_size.items()}
    rate = _interpolated({size: figure.bytes_per_s.value for size, figure in deep.items()}, block_bytes)
    # Blocks a second at a depth of 1 are what a block by itself takes; below the smallest size that stays the same.
    rate_alone = _interpolated({size: size / figure.latency_p50_s for size, figure in alone.items()}, block_bytes)
    return Link(latency_s=max(0.0, block_bytes / rate_alone - block_bytes / rate), bytes_per_s=rate)


def _at_depth(figures: Sequence[DiskFigure], depth: int) -> DiskFigure:
    """The deepest figure that is no deeper, else the least deep."""
    reached = [figure for figure in figures if figure.depth <= depth]
    if reached:
        return max(reached, key=lambda figure: figure.depth)
    return min(figures, key=lambda figure: figure.depth)


def _copy_rate(machine: Machine, operation: Literal["read", "write"], piece_bytes: int | None) -> float:
    if not machine.gpus:
        return machine.copy_bytes_per_s.value
    gpu = machine.gpus[0]
    direction = "h2d" if operation == "read" else "d2h"
    contiguous = (gpu.h2d_bytes_per_s if operation == "read" else gpu.d2h_bytes_per_s).value
    best = _best_by_piece(gpu, direction)
    if piece_bytes is None or not best:
        return contiguous
    return min(contiguous, _interpolated(best, piece_bytes))


def _best_by_piece(gpu: GpuFigures, direction: str) -> dict[int, float]:
    """The rate of the fastest way to copy pieces of each size."""
    copies: list[GpuCopyFigure] = [copy for copy in gpu.copies if copy.direction == direction]
    best: dict[int, float] = {}
    for copy in copies:
        best[copy.piece_bytes] = max(best.get(copy.piece_bytes, 0.0), copy.bytes_per_s.value)
    return best


def _interpolated(rates: dict[int, float], size: int) -> float:
    """The rate at a size: that of the largest beyond it, and as many operations a second as the smallest below it."""
    sizes = sorted(rates)
    if size <= sizes[0]:
        return rates[sizes[0]] * size / sizes[0]
    logs = [math.log(each) for each in sizes]
    return math.exp(float(np.interp(math.log(size), logs, [math.log(rates[each]) for each in sizes])))
