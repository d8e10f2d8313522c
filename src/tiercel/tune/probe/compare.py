"""What differs between two files of `tiercel probe`: beyond the spread of either, and what only one of them has. Pure."""

from dataclasses import dataclass

from tiercel.tune.machine import Figure, Machine
from tiercel.tune.probe.figures import NamedFigure, named_figures


@dataclass(frozen=True, kw_only=True)
class FigureChange:
    """A figure that both files have."""

    place: str
    name: str
    unit: str
    old: Figure
    new: Figure

    @property
    def ratio(self) -> float:
        """New over old."""
        return self.new.value / self.old.value

    @property
    def is_beyond_spread(self) -> bool:
        """Whether the two ranges between the quartiles do not touch."""
        return self.new.low > self.old.high or self.new.high < self.old.low


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two machines side by side.

    Attributes:
        figures: those that both have, in the new one's order.
        facts: what else differs, a sentence each: the kernel, a directory's engine.
        only_old, only_new: names of figures that the other one lacks.
    """

    figures: tuple[FigureChange, ...]
    facts: tuple[str, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]

    @property
    def changed(self) -> tuple[FigureChange, ...]:
        """The figures that changed beyond the spread."""
        return tuple(change for change in self.figures if change.is_beyond_spread)


def compare(old: Machine, new: Machine) -> Comparison:
    """Hold two machines side by side. Directories are the same by their path, GPUs by their number and name."""
    before, after = _by_key(old), _by_key(new)
    return Comparison(
        figures=tuple(
            FigureChange(place=each.place, name=each.name, unit=each.unit, old=before[key].figure, new=each.figure)
            for key, each in after.items()
            if key in before
        ),
        facts=tuple(_facts(old, new)),
        only_old=tuple(f"{place}: {name}" for place, name in before if (place, name) not in after),
        only_new=tuple(f"{place}: {name}" for place, name in after if (place, name) not in before),
    )


def _by_key(machine: Machine) -> dict[tuple[str, str], NamedFigure]:
    return {(each.place, each.name): each for each in named_figures(machine)}


def _facts(old: Machine, new: Machine) -> list[str]:
    names = ("tiercel", "cpu", "num_cores", "numa_nodes", "memory_bytes", "hugepages", "kernel", "copy_threads")
    pairs = {name: (getattr(old, name), getattr(new, name)) for name in names}
    known = {directory.path: directory for directory in old.directories}
    for directory in new.directories:
        before = known.get(directory.path)
        if before is not None:
            for name in ("filesystem", "engine", "direct", "device"):
                pairs[f"{directory.path}: {name}"] = (getattr(before, name), getattr(directory, name))
    return [f"{name} was {was}, is {now}" for name, (was, now) in pairs.items() if was != now]
