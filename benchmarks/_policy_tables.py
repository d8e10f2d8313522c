"""The results of benchmarks/policies.py and the tables that docs/policies.md shows of them."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TraceResult:
    """Hit rates in percent of the block references; capacities in blocks."""

    name: str
    num_references: int
    num_blocks: int
    ideal: float
    curve_tokens: list[int]
    curve: list[float]
    capacities: list[int]
    lru: list[float]
    belady: list[float]
    policies: dict[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class TierRun:
    """One replay through host memory and disk. Hit rates in percent of the block references."""

    trace: str
    host_blocks: int
    disk_blocks: int
    disk_policy: str
    admission: str
    host_hits: float
    disk_hits: float
    num_written: int
    num_read_back: int


@dataclass(frozen=True)
class Results:
    """All that was measured."""

    traces: list[TraceResult]
    tiers: list[TierRun]

    def to_dict(self) -> dict[str, Any]:
        return {"traces": [asdict(trace) for trace in self.traces], "tiers": [asdict(run) for run in self.tiers]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Results":
        return cls([TraceResult(**trace) for trace in data["traces"]], [TierRun(**run) for run in data["tiers"]])


def fill_tables(page: str, results: Results) -> str:
    """Replace what stands between `<!-- table: NAME -->` and `<!-- end -->`."""
    tables = {"curve": curve_table(results), "policies": policy_table(results), "tiers": tier_table(results)}

    def fill(found: re.Match[str]) -> str:
        return f"<!-- table: {found[1]} -->\n{tables[found[1]]}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", fill, page, flags=re.DOTALL)


def curve_table(results: Results) -> str:
    header = ["capacity in tokens", *[f"{trace.name}" for trace in results.traces]]
    rows = [
        [f"{tokens:,}", *[f"{trace.curve[number]:.1f}" for trace in results.traces]]
        for number, tokens in enumerate(results.traces[0].curve_tokens)
    ]
    return _table(header, [*rows, ["without end", *[f"{trace.ideal:.1f}" for trace in results.traces]]])


def policy_table(results: Results) -> str:
    """A row a policy; the best policy of each column is set in bold."""
    header = ["policy"]
    for trace in results.traces:
        header += [f"{trace.name} {capacity:,}" for capacity in trace.capacities]
    rows = [["share of the distinct blocks"], ["lru, exact curve"]]
    for trace in results.traces:
        rows[0] += [f"{100 * capacity / trace.num_blocks:.1f} %" for capacity in trace.capacities]
        rows[1] += [f"{rate:.1f}" for rate in trace.lru]
    for policy in results.traces[0].policies:
        row = [f"`{policy}`"]
        for trace in results.traces:
            best = [round(max(rates), 1) for rates in zip(*trace.policies.values(), strict=True)]
            row += [
                f"**{rate:.1f}**" if round(rate, 1) == top else f"{rate:.1f}"
                for rate, top in zip(trace.policies[policy], best, strict=True)
            ]
        rows.append(row)
    rows.append(["the most possible (Belady)"])
    for trace in results.traces:
        rows[-1] += [f"{rate:.1f}" for rate in trace.belady]
    return _table(header, rows)


def tier_table(results: Results) -> str:
    header = ["trace", "host", "disk", "disk's policy", "admission", "host hits", "disk hits", "written", "ever read back",
              "written per block read back"]  # fmt: skip
    rows = []
    for run in results.tiers:
        ratio = run.num_written / run.num_read_back if run.num_read_back else float("inf")
        cells = [
            run.trace,
            f"{run.host_blocks:,}",
            f"{run.disk_blocks:,}",
            f"`{run.disk_policy}`",
            f"`{run.admission}`",
        ]
        cells += [f"{run.host_hits:.1f}", f"{run.disk_hits:.1f}", f"{run.num_written:,}", f"{run.num_read_back:,}"]
        rows.append([*cells, f"{ratio:.1f}"])
    return _table(header, rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
