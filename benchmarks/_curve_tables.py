"""The results of benchmarks/curves.py and the tables that docs/curves.md shows of them."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TraceCurves:
    """One trace; rates in percent. policies and bound: of blocks, by capacity."""

    name: str
    capacities_tokens: list[int]
    policies: dict[str, list[float]]
    bound: list[float]
    ideal: dict[str, float]
    grid_host_tokens: list[int]
    grid_disk_tokens: list[int]
    grid: list[list[list[float]]]
    sizes: list[int]
    size_capacities_tokens: list[int]
    size_rates: list[list[float]]
    size_ideals: list[float]


@dataclass(frozen=True, kw_only=True)
class SampleError:
    """LRU from samples: points of hit rate over capacities and seeds, and the root mean square of error over stated error."""

    trace: str
    rate: float
    num_followed: int
    mean: float
    largest: float
    in_stated_errors: float


@dataclass(frozen=True, kw_only=True)
class MiniatureError:
    """A policy in miniature against its full run: points of hit rate over capacities and seeds."""

    trace: str
    unit: str
    rate: float
    policy: str
    mean: float
    largest: float
    mean_uncorrected: float


@dataclass(frozen=True)
class Results:
    """All that was measured."""

    curves: list[TraceCurves]
    samples: list[SampleError]
    miniatures: list[MiniatureError]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Results":
        return cls(
            [TraceCurves(**each) for each in data["curves"]],
            [SampleError(**each) for each in data["samples"]],
            [MiniatureError(**each) for each in data["miniatures"]],
        )


def fill_tables(page: str, results: Results) -> str:
    """Replace what stands between `<!-- table: NAME -->` and `<!-- end -->`."""
    tables = {f"curve-{curves.name}": curve_table(curves) for curves in results.curves}
    tables |= {f"grid-{curves.name}": grid_table(curves) for curves in results.curves}
    tables |= {
        "sizes": size_table(results.curves),
        "samples": sample_table(results.samples),
        "miniatures": miniature_table(results.miniatures),
    }

    def fill(found: re.Match[str]) -> str:
        return f"<!-- table: {found[1]} -->\n{tables[found[1]]}\n<!-- end -->"

    return re.sub(r"<!-- table: ([\w-]+) -->\n.*?<!-- end -->", fill, page, flags=re.DOTALL)


def curve_table(curves: TraceCurves) -> str:
    rows = []
    for number, tokens in enumerate(curves.capacities_tokens):
        rates = [f"{of_policy[number]:.1f}" for of_policy in curves.policies.values()]
        rows.append([f"{tokens:,}", *rates, f"{curves.bound[number]:.1f}"])
    return _table(["room in tokens", *(f"`{policy}`" for policy in curves.policies), "possible"], rows)


def grid_table(curves: TraceCurves) -> str:
    rows = []
    for host, line in zip(curves.grid_host_tokens, curves.grid, strict=True):
        rows.append([f"{host:,}", *(f"{first:.1f} + {second:.1f}" for first, second in line)])
    return _table(["host \\ disk", *(f"{tokens:,}" for tokens in curves.grid_disk_tokens)], rows)


def size_table(traces: Sequence[TraceCurves]) -> str:
    header, rows = ["tokens a block"], [[f"{size}"] for size in traces[0].sizes]
    for curves in traces:
        header += [f"{curves.name} {tokens:,}" for tokens in curves.size_capacities_tokens]
        header.append(f"{curves.name} without end")
        for row, rates, ideal in zip(rows, curves.size_rates, curves.size_ideals, strict=True):
            row += [*(f"{rate:.1f}" for rate in rates), f"{ideal:.1f}"]
    return _table(header, rows)


def sample_table(errors: Sequence[SampleError]) -> str:
    header = ["trace", "rate", "blocks followed", "mean error", "largest", "error over stated error, r.m.s."]
    rows = [
        [
            error.trace,
            f"{error.rate:.0%}",
            f"{error.num_followed:,}",
            f"{error.mean:.2f}",
            f"{error.largest:.2f}",
            f"{error.in_stated_errors:.2f}",
        ]
        for error in errors
    ]
    return _table(header, rows)


def miniature_table(errors: Sequence[MiniatureError]) -> str:
    """A row a trace, unit and rate; of each policy mean and largest error, and the mean without the correction."""
    policies = list(dict.fromkeys(error.policy for error in errors))
    rows: dict[tuple[str, str, float], list[str]] = {}
    for error in errors:
        row = rows.setdefault(
            (error.trace, error.unit, error.rate), [error.trace, f"`{error.unit}`", f"{error.rate:.0%}"]
        )
        row.append(f"{error.mean:.2f}, {error.largest:.2f} ({error.mean_uncorrected:.2f})")
    return _table(["trace", "unit", "rate", *(f"`{policy}`" for policy in policies)], list(rows.values()))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rows])
