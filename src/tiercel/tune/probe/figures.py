"""The figures of a machine under names that stay the same from file to file: for tables, and to hold two files side by side."""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from tiercel.tune.machine import TRUSTED_SPREAD, DirectoryFigures, DiskFigure, Figure, GpuFigures, Machine, NodeFigures

BYTES_UNIT = "bytes/s"
SECONDS_UNIT = "s"


@dataclass(frozen=True, kw_only=True)
class NamedFigure:
    """A figure and what it is of.

    Attributes:
        place: the processor, a node, a directory or a GPU.
        name: what was measured there.
        unit: of the figure, "bytes/s", "tokens/s" or "s".
        disk: all that is known of it, if it is a directory's.
    """

    place: str
    name: str
    figure: Figure
    unit: str = BYTES_UNIT
    disk: DiskFigure | None = None


def named_figures(machine: Machine) -> list[NamedFigure]:
    """Return every figure of a machine, in the order in which they were measured."""
    found = list(_host_figures(machine))
    if machine.node is not None:
        found += _node_figures(machine.node)
    for directory in machine.directories:
        found += _disk_figures(directory)
    for ordinal, gpu in enumerate(machine.gpus):
        found += _gpu_figures(f"GPU {ordinal}: {gpu.name}", gpu)
    return found


def with_doubts(machine: Machine) -> Machine:
    """Return the machine with a note on how many of its figures are not to be trusted, if any are not."""
    figures = named_figures(machine)
    doubtful = sum(not each.figure.is_trusted for each in figures)
    if not doubtful:
        return machine
    note = (
        f"{doubtful} of {len(figures)} figures are not to be trusted: the quartiles of their repeats lie more than "
        f"{TRUSTED_SPREAD:.0%} of the median apart. Measure again while the machine does nothing else, or with more --seconds."
    )
    return msgspec.structs.replace(machine, notes=(*machine.notes, note))


def _host_figures(machine: Machine) -> Iterator[NamedFigure]:
    place = "processor"
    if machine.copy_core_bytes_per_s is not None:
        yield NamedFigure(place=place, name="memory copy, one core", figure=machine.copy_core_bytes_per_s)
    yield NamedFigure(place=place, name="memory copy, the cache's threads", figure=machine.copy_bytes_per_s)
    yield NamedFigure(place=place, name="checksum, one core", figure=machine.checksum_bytes_per_s)
    yield NamedFigure(place=place, name="keys, one core", figure=machine.hash_tokens_per_s, unit="tokens/s")


def _node_figures(node: NodeFigures) -> Iterator[NamedFigure]:
    name = f"lookup of {node.num_tokens >> 10}K tokens"
    yield NamedFigure(place="node", name=name, figure=node.lookup_s, unit=SECONDS_UNIT)
    yield NamedFigure(place="node", name="bare exchange", figure=node.exchange_s, unit=SECONDS_UNIT)


def _disk_figures(directory: DirectoryFigures) -> Iterator[NamedFigure]:
    for disk in directory.figures:
        name = f"{disk.operation} {disk.block_bytes >> 10} KiB, depth {disk.depth}"
        yield NamedFigure(place=directory.path, name=name, figure=disk.bytes_per_s, disk=disk)


def _gpu_figures(place: str, gpu: GpuFigures) -> Iterator[NamedFigure]:
    yield NamedFigure(place=place, name="host to GPU, contiguous", figure=gpu.h2d_bytes_per_s)
    yield NamedFigure(place=place, name="GPU to host, contiguous", figure=gpu.d2h_bytes_per_s)
    yield NamedFigure(place=place, name="both at once, contiguous", figure=gpu.both_bytes_per_s)
    for copy in gpu.copies:
        way = f"{copy.ctas} CTAs" if copy.ctas else "copy engine"
        name = f"{copy.direction} {copy.piece_bytes >> 10} KiB pieces, {way}"
        yield NamedFigure(place=place, name=name, figure=copy.bytes_per_s)
