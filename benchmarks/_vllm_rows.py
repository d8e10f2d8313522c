"""From the arms' records to rows with bounds: each arm's own measures, and Tiercel's against the other arms of the same run.

Bounds are those of DESIGN section 11 for an H100, and vLLM's own offloading, behind which no row may fall.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from _harness import Row
from _vllm_arms import ARMS
from _vllm_scale import Scale

HOST_HIT_BOUNDS_MS = {"4K": 36.0, "16K": 75.0, "32K": 125.0}
LOAD_BOUND_GB_PER_S = 50.0
GAP_BOUND_MS = 25.0
OVERHEAD_BOUND = 1.02
DISK_BOUND = 1.2

Records = Mapping[str, Mapping[str, Any]]
"""By arm: what `Record.write` wrote."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A quotient of two medians of one run: measures whose name starts so, of Tiercel's arm over another's."""

    prefix: str
    others: tuple[str, ...]
    bound: float


COMPARISONS = (
    Comparison(prefix="cold ", others=("none",), bound=OVERHEAD_BOUND),
    Comparison(prefix="ITL, ", others=("none",), bound=OVERHEAD_BOUND),
    Comparison(prefix="cold ", others=("off",), bound=1.0),
    Comparison(prefix="ITL, ", others=("off",), bound=1.0),
    Comparison(prefix="cold ", others=("bare",), bound=OVERHEAD_BOUND),
    Comparison(prefix="GPU hit ", others=("none", "off", "bare"), bound=1.0),
    Comparison(prefix="host hit ", others=("off",), bound=1.0),
    Comparison(prefix="disk hit ", others=("off_fs",), bound=1.0),
    Comparison(prefix="8 streams, a ", others=("off", "off_fs"), bound=1.0),
    Comparison(prefix="multi-turn, ", others=("off",), bound=1.0),
)


def make_rows(records: Records, scale: Scale, disk_bytes_per_s: Sequence[float]) -> list[Row]:
    """Every row of a run, arm by arm, then the quotients.

    Args:
        disk_bytes_per_s: The disk's own rate, measured in the same run; empty if no arm used it.
    """
    rows: list[Row] = []
    if disk_bytes_per_s:
        rates = [rate / 1e9 for rate in disk_bytes_per_s]
        rows.append(_row("the disk alone, reads of one block", rates, "GB/s"))
    for arm, record in records.items():
        for name, measure in record["measures"].items():
            bound = _bound(arm, name, scale, disk_bytes_per_s) if scale.bounds else None
            if measure["values"]:
                rows.append(_row(f"{arm}: {name}", measure["values"], measure["unit"], bound))
        if record["measures"]:
            rows += _rate_rows(record, arm, scale)
            rows.append(_invalid_row(arm, record))
    for arm in (arm for arm in records if arm.startswith("tiercel")):
        rows += _quotients(arm, records, with_bounds=scale.bounds)
    return rows


def _bound(arm: str, name: str, scale: Scale, disk_bytes_per_s: Sequence[float]) -> float | None:
    if not arm.startswith("tiercel"):
        return None
    kind, _, length = name.rpartition(" ")
    if kind == "host hit":
        return HOST_HIT_BOUNDS_MS.get(length)
    if kind == "disk hit" and disk_bytes_per_s:
        tokens = next(scale.full_tokens(one) for one in scale.lengths if one.name == length)
        return DISK_BOUND * tokens * scale.shape.token_bytes / statistics.median(disk_bytes_per_s) * 1e3
    if name.startswith("load ") and not ARMS[arm].on_disk:
        return LOAD_BOUND_GB_PER_S
    if "hit" in name and name.endswith("longest gap"):
        return GAP_BOUND_MS
    return None


def _rate_rows(record: Mapping[str, Any], arm: str, scale: Scale) -> Iterator[Row]:
    """What a hit's bytes take beyond a GPU hit of the same prompt: the same for every arm, control included."""
    for length in scale.lengths:
        hits = record["measures"].get(f"{ARMS[arm].hit} {length.name}", {"values": []})["values"]
        warm = record["measures"].get(f"GPU hit {length.name}", {"values": []})["values"]
        if not hits or not warm:
            continue
        beyond_ms = statistics.median(hits) - statistics.median(warm)
        if beyond_ms > 0:
            rate = scale.full_tokens(length) * scale.shape.token_bytes / beyond_ms / 1e6
            yield Row(
                name=f"{arm}: load {length.name}, bytes / (hit - GPU hit)",
                value=rate,
                unit="GB/s",
                higher_is_better=True,
            )


def _quotients(arm: str, records: Records, *, with_bounds: bool) -> Iterator[Row]:
    for comparison in COMPARISONS:
        for other in comparison.others:
            if other not in records or ARMS[arm].on_disk != ARMS[other].on_disk:
                continue
            for name, measure in records[arm]["measures"].items():
                theirs = records[other]["measures"].get(name, {"values": []})["values"]
                if not name.startswith(comparison.prefix) or not measure["values"] or not theirs:
                    continue
                quotient = statistics.median(measure["values"]) / statistics.median(theirs)
                bound = comparison.bound if with_bounds else None
                rows_name = f"{name}: {arm} / {other}"
                yield Row(
                    name=rows_name, value=quotient, unit="", bound=bound, count=min(len(measure["values"]), len(theirs))
                )


def _invalid_row(arm: str, record: Mapping[str, Any]) -> Row:
    invalid = sum(len(measure["invalid"]) for measure in record["measures"].values())
    equal = sum(count for name, count in record["facts"].items() if name.startswith("equal outputs"))
    count = invalid + sum(len(measure["values"]) for measure in record["measures"].values())
    failed = invalid + equal + len(record["errors"])
    return Row(name=f"{arm}: samples and phases that failed", value=failed, unit="", bound=0, count=count)


def _row(name: str, values: Sequence[float], unit: str, bound: float | None = None) -> Row:
    return Row(
        name=name,
        value=statistics.median(values),
        unit=unit,
        bound=bound,
        higher_is_better=unit == "GB/s",
        spread=(min(values), max(values)),
        count=len(values),
    )
