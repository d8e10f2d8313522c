"""`tiercel probe`: measure this machine, write machine.json, and hold two such files side by side."""

import os
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tiercel.cli.render import bytes_text, print_line, print_table, seconds_text

if TYPE_CHECKING:
    from tiercel.tune.machine import Figure, Machine
    from tiercel.tune.probe.compare import Comparison
    from tiercel.tune.probe.figures import NamedFigure
    from tiercel.tune.probe.options import ProbeOptions

UNTRUSTED = "not trusted"


def probe(
    *,
    directory: Annotated[Sequence[Path], Parameter(negative="")] = (),
    config: Path | None = None,
    output: Path = Path("machine.json"),
    quick: Annotated[bool, Parameter(negative="")] = False,
    seconds: float = 120.0,
    compare: Path | None = None,
    against: Path | None = None,
) -> None:
    """Measure what this machine is capable of: memory, processor, GPUs and cache directories; write it to a file.

    Args:
        directory: cache directory to measure; may be given several times. A file is written there, and gone at the end.
        config: settings file, whose cache directories and ways of reading them are taken.
        output: file to write.
        quick: fewer figures, a smaller file on disk, no comparison with fio.
        seconds: time to take for all of it.
        compare: an older file; what changed since, beyond the spread of either, is shown.
        against: a file to show instead of measuring; for --compare of two files.
    """
    from tiercel.tune.machine import read_machine, write_machine
    from tiercel.tune.probe.compare import compare as compared

    old = read_machine(compare) if compare is not None else None
    if against is None:
        _check_output(output)
        options = _options(tuple(directory), config, quick=quick, seconds=seconds)
        machine = _measured(options)
        write_machine(machine, output)
    else:
        machine = read_machine(against)
    print_machine(machine)
    if old is not None:
        print_comparison(compared(old, machine))
    if against is None:
        print_line(f"written to {output}")


def print_machine(machine: "Machine") -> None:
    """Print a machine's figures, those that are not to be trusted marked, and its notes."""
    from tiercel.tune.probe.figures import named_figures

    pages = machine.hugepages
    huge = f", {pages.total} huge pages of {bytes_text(pages.page_bytes)}" if pages else ""
    print_line(
        f"{machine.cpu}, {machine.num_cores} cores, {machine.numa_nodes} NUMA nodes, "
        f"{bytes_text(machine.memory_bytes)}{huge}, Linux {machine.kernel}"
    )
    for place, figures in groupby(named_figures(machine), key=lambda each: each.place):
        rows = list(figures)
        disks = [row.disk for row in rows if row.disk is not None]
        with_fio = any(disk.fio_ratio is not None for disk in disks)
        columns = ["figure", "median", "quartiles", "repeats"]
        columns += ["p50", "p99"] if disks else []
        columns += ["fio", "of fio"] if with_fio else []
        title = _directory_title(machine, place) if disks else place
        print_table(title, [*columns, ""], (_row(row, with_fio=with_fio) for row in rows))
    for note in machine.notes:
        print_line(f"note: {note}")


def print_comparison(comparison: "Comparison") -> None:
    """Print what changed beyond the spread, and what only one file has."""
    rows = (
        (change.place, change.name, rate(change.old.value, change.unit), rate(change.new.value, change.unit),
         f"{change.ratio:.2f}", _untrusted(change.old, change.new))
        for change in comparison.changed
    )  # fmt: skip
    num_same = len(comparison.figures) - len(comparison.changed)
    title = f"changed beyond the spread: {len(comparison.changed)} figures; {num_same} did not"
    print_table(title, ("where", "figure", "was", "is", "ratio", ""), rows)
    for fact in comparison.facts:
        print_line(fact)
    for name in comparison.only_old:
        print_line(f"only in the older file: {name}")
    for name in comparison.only_new:
        print_line(f"only in the newer file: {name}")


def rate(value: float, unit: str) -> str:
    """Return a rate as people read it: 1.25 GB/s (10^9 bytes), 320 M tokens/s, or a duration: 95 us."""
    if unit == "s":
        return seconds_text(value)
    if unit != "bytes/s":
        return f"{value / 1e6:.3g} M {unit}"
    return f"{value / 1e9:.3g} GB/s" if value >= 1e9 else f"{value / 1e6:.3g} MB/s"


def _check_output(output: Path) -> None:
    """Find out now, not when all is measured, whether a file can be written there."""
    folder = output.absolute().parent
    if not folder.is_dir():
        raise ValueError(f"--output {output}: the folder for it does not exist")
    if output.is_dir():
        raise ValueError(f"--output {output}: is a folder; name a file in it")
    if not os.access(output if output.exists() else folder, os.W_OK):
        raise ValueError(f"--output {output}: cannot be written by this user; name another file")


def _row(row: "NamedFigure", *, with_fio: bool) -> list[str]:
    figure, disk = row.figure, row.disk
    quartiles = f"{rate(figure.low, row.unit)} to {rate(figure.high, row.unit)}"
    cells = [row.name, rate(figure.value, row.unit), quartiles, str(figure.repeats)]
    if disk is not None:
        cells += [seconds_text(disk.latency_p50_s), seconds_text(disk.latency_p99_s)]
    if disk is not None and with_fio:
        fio, ratio = disk.fio_bytes_per_s, disk.fio_ratio
        cells.append("-" if fio is None else rate(fio.value, row.unit))
        cells.append("-" if ratio is None else f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})")
    return [*cells, _untrusted(figure)]


def _untrusted(*figures: "Figure") -> str:
    return "" if all(figure.is_trusted for figure in figures) else UNTRUSTED


def _directory_title(machine: "Machine", path: str) -> str:
    found = next(each for each in machine.directories if each.path == path)
    device = f", {found.device.name} {found.device.model}".rstrip() if found.device else ""
    direct = "O_DIRECT" if found.direct else "through the page cache"
    free = f"{bytes_text(found.free_bytes)} of {bytes_text(found.capacity_bytes)} free"
    return f"{path}: {found.filesystem}{device}, {free}, {found.engine}, {direct}"


def _options(directories: Iterable[Path], config: Path | None, *, quick: bool, seconds: float) -> "ProbeOptions":
    from tiercel.config import read_config
    from tiercel.tune.probe.options import ProbeOptions

    given = tuple(directories)
    for place in given:
        if not place.is_dir():
            raise ValueError(f"--directory {place}: there is no such folder")
    settings = read_config(config).config
    configured = settings.ssd_cache_dirs if config is not None and settings.enable_ssd else ()
    return ProbeOptions(
        directories=tuple(dict.fromkeys((*given, *configured))),
        engine=settings.ssd_io_engine,
        direct=settings.ssd_direct_io,
        copy_threads=settings.cpu_copy_threads,
        quick=quick,
        seconds=seconds,
    )


def _measured(options: "ProbeOptions") -> "Machine":
    from rich.console import Console

    from tiercel.tune.probe.display import ProbeDisplay
    from tiercel.tune.probe.run import run_probe

    with ProbeDisplay(Console(stderr=True)) as display:
        return run_probe(options, display)
