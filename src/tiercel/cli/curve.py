"""`tiercel curve`: what a cache of any size would hit on a trace."""

import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tiercel.cli.render import print_json, print_line, print_table
from tiercel.cli.trace import TraceOptions

if TYPE_CHECKING:
    from tiercel.tune.curves.survey import Rates, Survey

Flag = Annotated[bool, Parameter(negative="")]
Many = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")]
Numbers = Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative="")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CurveOptions:
    """What to measure.

    Attributes:
        policies: eviction policies; "all" for each there is.
        capacities: room in tokens; by default powers of two up to all that LRU can use.
        sample: share of the blocks to follow; 1 for exact rates, 0.01 for traces too large for that.
        sample_seed: chooses the blocks.
        block_size: tokens of the cache's blocks; the trace's own by default.
    """

    policies: Many = ("lru",)
    capacities: Numbers = ()
    sample: float = 1.0
    sample_seed: int = 0
    block_size: int | None = None


_OPTIONS = CurveOptions()
_TRACE_OPTIONS = TraceOptions()


def curve(
    trace: Path,
    /,
    *,
    options: CurveOptions = _OPTIONS,
    trace_options: TraceOptions = _TRACE_OPTIONS,
    json: Flag = False,
    csv: Flag = False,
) -> None:
    """Show the hit rate of caches of every size on a trace, by policy, and the most that is possible.

    Only full blocks count, those that a cache can hold. LRU's rates at all sizes come from one pass over the trace; other
    policies are run, over all blocks or over a sample.

    Args:
        trace: a trace of any format, or a folder of WEKA's sessions.
        json: print JSON.
        csv: print CSV, a row for each capacity and policy.
    """
    from tiercel.index import EVICTION_POLICIES
    from tiercel.tune.curves.survey import survey_trace
    from tiercel.tune.traces import with_tokens_per_block

    if json and csv:
        raise ValueError("--json and --csv: choose one")
    requests = trace_options.read(trace)
    if options.block_size is not None:
        requests = with_tokens_per_block(requests, options.block_size)
    survey = survey_trace(
        requests.without_partial_blocks(),
        policies=tuple(EVICTION_POLICIES) if options.policies == ("all",) else options.policies,
        capacities_tokens=options.capacities or None,
        sample_rate=options.sample,
        seed=options.sample_seed,
    )
    if json:
        print_json(survey)
    elif csv:
        print_csv(survey)
    else:
        print_survey(survey)


def print_survey(survey: "Survey") -> None:
    """Print a row for each capacity: LRU by all three countings, then blocks hit of each other policy, and the bound."""
    policies = list(survey.rows[0].policies) if survey.rows else []
    others = [policy for policy in policies if policy != "lru"]
    lru = ("lru", "+-", "lru, of tokens", "lru, per request") if "lru" in policies else ()
    rows = []
    for row in survey.rows:
        cells = [str(row.capacity_tokens), str(row.capacity_blocks)]
        if lru:
            cells += _lru_cells(row.policies["lru"])
        rows.append([*cells, *(f"{row.policies[policy].blocks:.1%}" for policy in others), f"{row.bound:.1%}"])
    print_line(
        f"{survey.trace}: {survey.requests} requests, {survey.block_references} references to {survey.distinct_blocks} "
        f"blocks of {survey.tokens_per_block} tokens"
    )
    ideal = survey.ideal
    print_line(
        f"without end: {ideal.blocks:.1%} of blocks, {ideal.tokens:.1%} of tokens, {ideal.requests:.1%} per request"
    )
    if survey.sample_rate < 1:
        print_line(
            f"estimated from {survey.sample_rate:g} of the blocks; +- is one standard error, other policies are run in "
            "miniature and corrected by what the miniature is off for lru"
        )
    columns = ("room in tokens", "blocks", *lru, *others, "possible")
    print_table("hit rates, of blocks where nothing else is said", columns, rows)
    for note in survey.notes:
        print_line(f"note: {note}")


def _lru_cells(rates: "Rates") -> list[str]:
    error = "-" if rates.error is None else f"{rates.error:.1%}"
    return [f"{rates.blocks:.1%}", error, f"{rates.tokens:.1%}", f"{rates.requests:.1%}"]


def print_csv(survey: "Survey") -> None:
    """Print a row for each capacity and policy, the bound as a policy of its own."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("capacity_tokens", "capacity_blocks", "policy", "blocks", "tokens", "requests", "error"))
    for row in survey.rows:
        room = (row.capacity_tokens, row.capacity_blocks)
        for policy, rates in row.policies.items():
            writer.writerow((*room, policy, rates.blocks, rates.tokens, rates.requests, rates.error))
        writer.writerow((*room, "belady", row.bound, None, None, None))
