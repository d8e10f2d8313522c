"""What a cache directory is capable of, by operation, block size and depth, with fio beside it where it is installed.

`disk_side` makes the runs of Tiercel's own disk engine; here they are paired with fio's, repeated, and told as figures. A
directory that cannot be measured is a note, not the end of the probe.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiercel.tune.machine import DirectoryFigures, DiskFigure, Figure
from tiercel.tune.probe.disk_side import DiskSide, Workload
from tiercel.tune.probe.facts import filesystem_of, free_space_of, storage_device_of
from tiercel.tune.probe.fio import FioError, fio_jobs, run_of
from tiercel.tune.probe.options import Effort
from tiercel.tune.probe.trust import REPEATS_MIN, Clock, repeat_until_trusted

_RUN_S_MIN, _RUN_S_MAX = 0.02, 0.25
_ROUND_BYTES = 16 << 20
_FILE_BYTES_MIN = 64 << 20
_FREE_SHARE = 20
"""The file takes at most this part of a directory's free space, and of the memory that is free."""

_BELOW = 0.95
"""Share of fio's rate under which Tiercel is said to be below the device."""

_FIO_IDLE_S, _FIO_IDLE_S_MAX = 0.5, 1.0

_REGISTERED = ("--fixedbufs",)

_FIO_SHARES = 5.0
"""Of time, for a workload that is compared, against one that is not: fio takes its own runs, its starts and the pauses."""

Report = Callable[[str], None]
TakeSeconds = Callable[[float], float]


@dataclass(kw_only=True)
class DiskProbe:
    """One directory's measurement.

    Attributes:
        directory: the cache directory, as the user named it.
        place: an existing directory on the same filesystem, where the file goes.
        engine: "auto", "io_uring" or "threads".
        direct: ask for O_DIRECT.
        effort: how much is measured.
        available_bytes: of host memory.
        notes: what could not be measured, and why; added to.
    """

    directory: Path
    place: Path
    engine: str
    direct: bool
    effort: Effort
    available_bytes: int
    clock: Clock
    notes: list[str] = field(default_factory=list)

    def run(self, take_seconds: TakeSeconds, report: Report) -> DirectoryFigures | None:
        """Measure. None, with a note, if the directory cannot be used at all.

        Args:
            take_seconds: asked for the seconds of each workload, by its `shares_of`.
            report: told of each workload before it is measured.
        """
        num_bytes = self._file_bytes()
        if num_bytes < _FILE_BYTES_MIN:
            self._note(
                f"not measured: the probe's file takes at most a {_FREE_SHARE}th of what is free on disk and in memory, "
                f"and that is less than {_FILE_BYTES_MIN >> 20} MiB"
            )
            return None
        try:
            with DiskSide(self.place, num_bytes=num_bytes, engine=self.engine, direct=self.direct) as side:
                for reason in side.reasons:
                    self._note(reason)
                return self._described(side, tuple(self._figures(side, take_seconds, report)))
        except OSError as error:
            self._note(f"not measured: {error.strerror or error}")
            return None

    def _figures(self, side: DiskSide, take_seconds: TakeSeconds, report: Report) -> Iterator[DiskFigure]:
        fio = self._fio(side)
        for workload in grid(self.effort):
            report(f"{workload.operation} {workload.block_bytes >> 10} KiB, depth {workload.depth}")
            seconds = take_seconds(shares_of(workload, self.effort))
            if not side.fits(workload):
                self._note(
                    f"{workload.operation} of {workload.block_bytes >> 10} KiB at depth {workload.depth} not measured: "
                    f"the file of {2 * side.half_bytes >> 20} MiB is too small for it"
                )
                continue
            if fio is not None and is_compared(workload, self.effort):
                try:
                    yield self._warned(measured(side, workload, seconds, self.clock, fio=fio))
                    continue
                except FioError as error:
                    self._note(f"not compared with fio: {error}")
                    fio = None
            yield measured(side, workload, seconds, self.clock)
        if fio is not None and fio.unregistered_reason:
            self._note(
                f"fio might be faster than it was: its buffers could not be registered: {fio.unregistered_reason}"
            )

    def _fio(self, side: DiskSide) -> "FioSide | None":
        if not self.effort.with_fio:
            return None
        if side.engine != "io_uring" or not side.direct:
            self._note("not compared with fio: that takes io_uring and O_DIRECT")
            return None
        return FioSide(side)

    def _warned(self, figure: DiskFigure) -> DiskFigure:
        ratio = figure.fio_ratio
        if ratio is not None and ratio.high < _BELOW:  # three of four runs, however far apart
            self._note(
                f"{figure.operation} of {figure.block_bytes >> 10} KiB at depth {figure.depth} reaches "
                f"{ratio.value:.0%} of what fio does: Tiercel is below the device there"
            )
        return figure

    def _file_bytes(self) -> int:
        _, free = free_space_of(self.place)
        most = min(self.effort.file_bytes, free // _FREE_SHARE, 2 * self.available_bytes // _FREE_SHARE)
        return most // _ROUND_BYTES * _ROUND_BYTES

    def _described(self, side: DiskSide, figures: tuple[DiskFigure, ...]) -> DirectoryFigures:
        capacity, free = free_space_of(self.place)
        return DirectoryFigures(
            path=str(self.directory),
            filesystem=filesystem_of(self.place),
            capacity_bytes=capacity,
            free_bytes=free,
            engine=side.engine,
            direct=side.direct,
            figures=figures,
            device=storage_device_of(self.place),
        )

    def _note(self, text: str) -> None:
        self.notes.append(f"{self.directory}: {text}.")


class FioSide:
    """fio on the same halves of the same file, in whichever of two ways is faster for a workload.

    fio's memory lies in scattered pages of 4 KiB, which the kernel pins for each request, and by whose number it cuts large
    blocks into several requests. Registered buffers are pinned once, before fio's clock starts, but their pages are not taken
    together where they lie side by side. Neither is always the faster, and only the faster one tells what the device can do.

    Attributes:
        idle_s: for how long its last run left the device idle, by starting and ending. Tiercel pauses as long before its own
            runs: a device with a rate limit, or one that clears its buffers meanwhile, gains from a pause.
        unregistered_reason: why buffers could not be registered; "" while they could.
    """

    def __init__(self, side: DiskSide) -> None:
        self._side = side
        self._ways: dict[Workload, tuple[str, ...]] = {}
        self.idle_s = _FIO_IDLE_S
        self.unregistered_reason = ""

    def run(self, workload: Workload, num_bytes: int) -> float:
        """Read or write so many bytes in random order; returns bytes a second. Raises FioError.

        The first run of a workload is preceded by one in each way.
        """
        if workload not in self._ways:
            self._ways[workload] = self._faster_way(workload, num_bytes)
        return self._run(workload, num_bytes, self._ways[workload])

    def _faster_way(self, workload: Workload, num_bytes: int) -> tuple[str, ...]:
        plain = self._run(workload, num_bytes, ())
        try:
            registered = self._run(workload, num_bytes, _REGISTERED)
        except FioError as error:  # the kernel limits by RLIMIT_MEMLOCK what may be pinned
            self.unregistered_reason = str(error)
            return ()
        return _REGISTERED if registered > plain else ()

    def _run(self, workload: Workload, num_bytes: int, way: Sequence[str]) -> float:
        started = time.perf_counter()
        side, offset = self._side, 0 if workload.operation == "read" else self._side.half_bytes
        jobs = fio_jobs(
            [
                "--name=tiercel",
                "--thread",
                "--randrepeat=0",
                f"--rw=rand{workload.operation}",
                f"--filename={side.file.path}",
                f"--bs={workload.block_bytes}",
                f"--iodepth={workload.depth}",
                f"--offset={offset}",
                f"--size={side.half_bytes}",
                f"--io_size={num_bytes}",
                *way,
            ],
            descriptors=(side.file.descriptor,),
        )
        run = run_of(jobs[0])
        self.idle_s = min(max(0.0, time.perf_counter() - started - run.busy_s), _FIO_IDLE_S_MAX)
        return run.bytes_per_s


def measured(
    side: DiskSide, workload: Workload, seconds: float, clock: Clock, *, fio: FioSide | None = None
) -> DiskFigure:
    """Measure one workload until it is trusted, or its seconds are over; with fio in turns, if given.

    Raises:
        OSError: the device failed.
        FioError: fio did.
    """
    num_bytes = _run_bytes(side, workload, seconds if fio is None else seconds / _FIO_SHARES)
    latencies: list[NDArray[np.float64]] = []

    def sample() -> tuple[float, ...]:
        if fio is not None:
            time.sleep(fio.idle_s)
        run = side.run(workload, num_bytes)
        latencies.append(run.seconds)
        if fio is None:
            return (run.bytes_per_s,)
        other = fio.run(workload, num_bytes)
        return run.bytes_per_s, other, run.bytes_per_s / other

    figures: tuple[Figure | None, ...] = repeat_until_trusted(sample, seconds=seconds, clock=clock)
    ours, theirs, ratio = (*figures, None, None)[:3]
    assert ours is not None
    p50, p99 = np.percentile(np.concatenate(latencies), (50, 99))
    return DiskFigure(
        operation=workload.operation,
        block_bytes=workload.block_bytes,
        depth=workload.depth,
        bytes_per_s=ours,
        latency_p50_s=float(p50),
        latency_p99_s=float(p99),
        fio_bytes_per_s=theirs,
        fio_ratio=ratio,
    )


def _run_bytes(side: DiskSide, workload: Workload, seconds: float) -> int:
    """How much a run moves, so that the repeats fit the time: after a first, small one, which also warms up."""
    least = workload.block_bytes * workload.depth * 2
    rate = side.run(workload, least).bytes_per_s
    run_s = min(max(seconds / (2 * REPEATS_MIN), _RUN_S_MIN), _RUN_S_MAX)
    num_blocks = max(least, int(rate * run_s)) // workload.block_bytes
    return num_blocks * workload.block_bytes


def grid(effort: Effort) -> Iterator[Workload]:
    """What is asked of a directory, in order: reads before writes, one size after another."""
    for block_bytes in effort.block_bytes:
        depths = _depths(block_bytes, effort)
        for depth in depths:
            yield Workload(operation="read", block_bytes=block_bytes, depth=depth)
        for depth in depths:
            yield Workload(operation="write", block_bytes=block_bytes, depth=depth)
        if depths[-1] > 1:
            yield Workload(operation="mixed", block_bytes=block_bytes, depth=depths[-1])


def is_compared(workload: Workload, effort: Effort) -> bool:
    """Say whether fio is to run beside: for reads and writes at each size's largest depth, where the device is busy."""
    is_deepest = workload.depth == _depths(workload.block_bytes, effort)[-1]
    return effort.with_fio and is_deepest and workload.operation != "mixed"


def shares_of(workload: Workload, effort: Effort) -> float:
    """How much of the time a workload gets."""
    return _FIO_SHARES if is_compared(workload, effort) else 1.0


def _depths(block_bytes: int, effort: Effort) -> list[int]:
    return [depth for depth in effort.depths if depth * block_bytes <= effort.in_flight_bytes]
