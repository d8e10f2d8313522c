"""What copies between GPUs and pinned host memory reach, over a small seam: `transfer.cuda.speed` behind it, or a fake in tests.

Contiguous copies each way and both at once, then scattered ones by the length of their pieces: the copy engine, and kernels by
their number of thread blocks.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Literal, Protocol

from tiercel.errors import DeviceError
from tiercel.transfer.cuda.speed import CopyDirection, CopySpeed, count_gpus
from tiercel.tune.machine import Figure, GpuCopyFigure, GpuFigures
from tiercel.tune.probe.trust import Clock, repeat_until_trusted

PIECE_BYTES = (4 << 10, 16 << 10, 32 << 10, 64 << 10)
NUM_CTAS = (0, 2, 4, 8, 32)
"""0 is the copy engine."""

NUM_STEPS = 3 + 2 * len(PIECE_BYTES) * len(NUM_CTAS)

Report = Callable[[str], None]


class GpuCopies(Protocol):
    """One GPU's copies, each call one measurement in bytes a second. Calls raise DeviceError when the device fails."""

    @property
    def name(self) -> str:
        """The GPU's name."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Its memory."""
        ...

    @property
    def kernel_problem(self) -> str:
        """Why kernels cannot copy, "" if they can."""
        ...

    def contiguous(self, direction: CopyDirection) -> float:
        """Copy one long stretch of pinned memory."""
        ...

    def both(self) -> float:
        """Copy one each way at once; the rate of both together."""
        ...

    def scattered(self, direction: CopyDirection, piece_bytes: int, num_ctas: int) -> float:
        """Copy blocks in pieces; num_ctas: of the kernel, 0 for the copy engine."""
        ...

    def close(self) -> None:
        """Let go of the device."""


def find_gpus(notes: list[str]) -> int:
    """Return how many GPUs can be measured; why there is none is added to the notes."""
    try:
        count = count_gpus()
    except DeviceError as error:
        notes.append(f"No GPU was measured: {error}.")
        return 0
    if count == 0:
        notes.append("No GPU was measured: this process sees none.")
    return count


def probe_gpu(
    open_device: Callable[[], GpuCopies],
    take_seconds: Callable[[], float],
    report: Report,
    notes: list[str],
    clock: Clock,
) -> GpuFigures | None:
    """Measure one GPU. None, with a note, if it cannot be used.

    Args:
        open_device: opens it.
        take_seconds: asked for the seconds of each step, `NUM_STEPS` times at most.
        report: told of each step before it is measured.
        notes: what could not be measured, and why; added to.
    """
    try:
        with closing(open_device()) as gpu:
            return _measured(gpu, take_seconds, report, notes, clock)
    except (DeviceError, OSError) as error:
        notes.append(f"A GPU was not measured: {error}.")
        return None


def open_gpu(ordinal: int) -> GpuCopies:
    """Open the real device of a number. Raises DeviceError and OSError."""
    return CopySpeed(ordinal)


def _measured(
    gpu: GpuCopies, take_seconds: Callable[[], float], report: Report, notes: list[str], clock: Clock
) -> GpuFigures:
    def figure(title: str, rate: Callable[[], float]) -> Figure:
        report(title)
        return repeat_until_trusted(lambda: (rate(),), seconds=take_seconds(), clock=clock)[0]

    return GpuFigures(
        name=gpu.name,
        memory_bytes=gpu.memory_bytes,
        h2d_bytes_per_s=figure("host to GPU", lambda: gpu.contiguous(CopyDirection.H2D)),
        d2h_bytes_per_s=figure("GPU to host", lambda: gpu.contiguous(CopyDirection.D2H)),
        both_bytes_per_s=figure("both ways at once", gpu.both),
        copies=tuple(_copies(gpu, figure, notes)),
    )


def _copies(
    gpu: GpuCopies, figure: Callable[[str, Callable[[], float]], Figure], notes: list[str]
) -> Iterator[GpuCopyFigure]:
    if gpu.kernel_problem:
        notes.append(f"{gpu.name}: kernel copies were not measured: {gpu.kernel_problem}.")
    ways = [0] if gpu.kernel_problem else NUM_CTAS
    for piece_bytes, num_ctas, direction in itertools.product(PIECE_BYTES, ways, CopyDirection):
        name: Literal["h2d", "d2h"] = "h2d" if direction is CopyDirection.H2D else "d2h"
        way = f"{num_ctas} CTAs" if num_ctas else "copy engine"
        measure = partial(gpu.scattered, direction, piece_bytes, num_ctas)
        rate = figure(f"{name} of {piece_bytes >> 10} KiB pieces, {way}", measure)
        yield GpuCopyFigure(direction=name, piece_bytes=piece_bytes, ctas=num_ctas, bytes_per_s=rate)
