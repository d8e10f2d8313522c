"""Machines as `tiercel probe` writes them, without measuring."""

from typing import Literal

import msgspec

from tiercel.tune.machine import DirectoryFigures, DiskFigure, Figure, GpuCopyFigure, GpuFigures, Machine, NodeFigures

KIB, MIB = 1 << 10, 1 << 20


def figure(value: float, *, spread: float = 0.02, repeats: int = 7) -> Figure:
    """A figure whose quartiles lie `spread` of its value apart."""
    return Figure(value=value, low=value * (1 - spread / 2), high=value * (1 + spread / 2), repeats=repeats)


def disk_figure(
    block_bytes: int,
    depth: int,
    rate: float,
    *,
    operation: Literal["read", "write", "mixed"] = "read",
    latency_s: float = 1e-3,
) -> DiskFigure:
    """One way of using a directory."""
    return DiskFigure(
        operation=operation,
        block_bytes=block_bytes,
        depth=depth,
        bytes_per_s=figure(rate),
        latency_p50_s=latency_s,
        latency_p99_s=5 * latency_s,
        fio_bytes_per_s=figure(rate),
        fio_ratio=figure(1.0),
    )


def directory(path: str = "/ssd", figures: tuple[DiskFigure, ...] | None = None) -> DirectoryFigures:
    """A directory; by default of 0.1 and 1 GB/s at 64 KiB and 1 MiB, reads and writes alike."""
    if figures is None:
        figures = tuple(
            disk_figure(size, depth, rate * depth, operation=operation, latency_s=size / rate)
            for operation in ("read", "write")
            for size, rate in ((64 * KIB, 1e8), (MIB, 1e9))
            for depth in (1, 8)
        )
    return DirectoryFigures(
        path=path,
        filesystem="ext4",
        capacity_bytes=10**12,
        free_bytes=10**11,
        engine="io_uring",
        direct=True,
        figures=figures,
    )


def gpu() -> GpuFigures:
    """A GPU whose copies of 32 KiB and more are faster than those of 4 KiB, and kernels faster than the copy engine."""
    copies = [
        GpuCopyFigure(direction=direction, piece_bytes=size, ctas=ctas, bytes_per_s=figure(rate + ctas * 1e9))
        for direction in ("h2d", "d2h")
        for size, rate in ((4 * KIB, 5e9), (32 * KIB, 40e9))
        for ctas in (0, 4)
    ]
    return GpuFigures(
        name="a GPU",
        memory_bytes=80 << 30,
        h2d_bytes_per_s=figure(55e9),
        d2h_bytes_per_s=figure(54e9),
        both_bytes_per_s=figure(59e9),
        copies=tuple(copies),
    )


def node() -> NodeFigures:
    """A node whose lookups take 150 us, 20 of them the way there and back."""
    return NodeFigures(num_tokens=16_384, lookup_s=figure(150e-6), exchange_s=figure(20e-6))


def machine(**changes: object) -> Machine:
    """A machine with one directory and no GPU, with what is given changed."""
    whole = Machine(
        measured_at=1e9,
        tiercel="0.1.0",
        cpu="a processor",
        num_cores=8,
        memory_bytes=64 << 30,
        kernel="6.1",
        copy_bytes_per_s=figure(20e9),
        copy_threads=4,
        copy_core_bytes_per_s=figure(8e9),
        checksum_bytes_per_s=figure(12e9),
        hash_tokens_per_s=figure(3e8),
        directories=(directory(),),
    )
    return msgspec.structs.replace(whole, **changes)
