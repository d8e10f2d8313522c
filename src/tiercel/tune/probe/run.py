"""Goes through a probe's steps and makes a `Machine` of what they find.

Each step takes its share of the time that is left, so that the whole ends in time whatever single steps took; what could not be
measured becomes a note. Whoever runs it is told of each step (`Watcher`).
"""

import platform
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import tiercel
from tiercel.config.resources import probe_memory
from tiercel.tune.machine import DirectoryFigures, Figure, GpuFigures, Machine, NodeFigures
from tiercel.tune.probe import facts, gpu, host, node
from tiercel.tune.probe.disk import DiskProbe, grid, shares_of
from tiercel.tune.probe.figures import with_doubts
from tiercel.tune.probe.fio import is_installed
from tiercel.tune.probe.options import Effort, ProbeOptions
from tiercel.tune.probe.trust import Clock, TimeBudget

Found = TypeVar("Found")

_HOST_STEPS = 4
_COPY_MEMORY_SHARE = 8
"""A copy takes at most this part of the free memory for each of its two sides."""

_HOST_STEP_S_MAX = 3.0
"""More time would not settle what is not settled by then; disks can use it."""

_FIO_STEP_S_MIN = 0.5
"""Below so many seconds a share, fio's starts would take the time that the figures need."""

_TIME_SHARE = 0.87
"""Of the time given, what the steps plan with: files are filled and devices opened beside them."""


class Watcher(Protocol):
    """Who is told how far a probe is."""

    def begin(self, num_steps: int) -> None:
        """Note how many steps there will be."""

    def step(self, title: str) -> None:
        """A step begins; the one before it is done."""


def run_probe(options: ProbeOptions, watcher: Watcher, *, clock: Clock = time.monotonic) -> Machine:
    """Measure this machine.

    Raises:
        OSError: host memory for the copies is not to be had.
    """
    return with_doubts(_Run(options, watcher, clock).machine())


class _Run:
    """One probe under way: its time, its notes, and who watches."""

    def __init__(self, options: ProbeOptions, watcher: Watcher, clock: Clock) -> None:
        self._options = options
        self._watcher = watcher
        self._clock = clock
        self._notes: list[str] = []
        self._available_bytes = probe_memory().available_bytes
        self._num_gpus = gpu.find_gpus(self._notes)
        self._with_node = options.seconds >= node.SECONDS_MIN
        self._effort = self._with_or_without_fio()
        other_steps = self._num_own_steps + self._num_gpus * gpu.NUM_STEPS
        watcher.begin(other_steps + len(options.directories) * len(list(grid(self._effort))))
        self._budget = TimeBudget(_TIME_SHARE * options.seconds, self._num_shares(self._effort), clock)

    def machine(self) -> Machine:
        """Go through all steps."""
        threads = self._options.copy_threads
        copy_bytes = min(host.COPY_BYTES, max(host.COPY_BYTES_MIN, self._available_bytes // _COPY_MEMORY_SHARE))
        copy_core = self._figure("memory copy, one core", partial(host.copy_rate, 1, copy_bytes))
        copy = self._figure(f"memory copy, {threads} threads", partial(host.copy_rate, threads, copy_bytes))
        return Machine(
            measured_at=time.time(),
            tiercel=tiercel.__version__,
            cpu=facts.cpu_model(),
            num_cores=facts.usable_cores(),
            memory_bytes=facts.memory_bytes(),
            kernel=platform.release(),
            copy_bytes_per_s=copy,
            copy_threads=threads,
            copy_core_bytes_per_s=copy_core,
            checksum_bytes_per_s=self._figure("checksum", host.checksum_rate),
            hash_tokens_per_s=self._figure("keys of tokens", host.hash_rate),
            numa_nodes=facts.numa_nodes(),
            hugepages=facts.hugepages(),
            directories=_measured(self._directory(each) for each in self._options.directories),
            gpus=_measured(self._gpu(each) for each in range(self._num_gpus)),
            node=self._node(),
            notes=tuple(self._all_notes()),
        )

    @property
    def _num_own_steps(self) -> int:
        """Steps of what every machine has."""
        return _HOST_STEPS + self._with_node

    def _num_shares(self, effort: Effort) -> float:
        of_directory = sum(shares_of(workload, effort) for workload in grid(effort))
        return self._num_own_steps + self._num_gpus * gpu.NUM_STEPS + len(self._options.directories) * of_directory

    def _with_or_without_fio(self) -> Effort:
        effort = self._options.effort
        step_s = _TIME_SHARE * self._options.seconds / self._num_shares(effort)
        if not effort.with_fio or not self._options.directories:
            return effort
        if not is_installed():
            self._notes.append("Disks are not compared with fio: it is not installed.")
        elif step_s < _FIO_STEP_S_MIN:
            self._notes.append(
                f"Disks are not compared with fio: {step_s:.1f} s a figure are too few for it; give more --seconds."
            )
        else:
            return effort
        return replace(effort, with_fio=False)

    def _figure(self, title: str, measure: Callable[..., Figure]) -> Figure:
        self._watcher.step(title)
        return measure(seconds=min(_HOST_STEP_S_MAX, self._budget.take()), clock=self._clock)

    def _directory(self, directory: Path) -> DirectoryFigures | None:
        place = existing_place(directory)
        if place != directory:
            self._notes.append(f"{directory}: does not exist yet; measured in {place}.")
        disk = DiskProbe(
            directory=directory,
            place=place,
            engine=self._options.engine,
            direct=self._options.direct,
            effort=self._effort,
            available_bytes=self._available_bytes,
            clock=self._clock,
        )
        figures = disk.run(self._budget.take, lambda title: self._watcher.step(f"{directory}: {title}"))
        self._notes += disk.notes
        return figures

    def _node(self) -> NodeFigures | None:
        if not self._with_node:
            self._notes.append(
                f"The way to a node was not measured: that takes --seconds {node.SECONDS_MIN:g} or more."
            )
            return None
        self._watcher.step("way to a node")
        return node.probe_node(lambda: min(_HOST_STEP_S_MAX, self._budget.take()), self._notes, self._clock)

    def _gpu(self, ordinal: int) -> GpuFigures | None:
        return gpu.probe_gpu(
            partial(gpu.open_gpu, ordinal),
            self._budget.take,
            lambda title: self._watcher.step(f"GPU {ordinal}: {title}"),
            self._notes,
            self._clock,
        )

    def _all_notes(self) -> Iterator[str]:
        if not self._options.directories:
            yield "No cache directory was measured: name one with --directory or --config."
        yield from self._notes


def _measured(found: Iterable[Found | None]) -> tuple[Found, ...]:
    return tuple(each for each in found if each is not None)


def existing_place(directory: Path) -> Path:
    """Return the directory, or the nearest folder above it that exists: a cache would make it there."""
    return next(place for place in (directory, *directory.absolute().parents) if place.is_dir())
