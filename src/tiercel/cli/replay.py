"""`tiercel replay` and `tiercel prove`: a trace through the real cache of this machine, and what was predicted of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tiercel.cli.engine import EngineOptions
from tiercel.cli.render import bytes_text, counts_text, print_json, print_line, print_table, seconds_text
from tiercel.cli.trace import TraceOptions
from tiercel.tune.replay.setup import Pace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tiercel.tune.replay import Compared, HitsCompared, Proof, ReplayReport, ReplaySetup
    from tiercel.tune.simulate import EngineFacts, SimulationResult
    from tiercel.tune.traces import Trace

_Flag = Annotated[bool, Parameter(negative="")]
_PERCENTILES = (50, 90, 99)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """What is replayed.

    Attributes:
        config: settings of the cache, YAML, JSON or TOML; without one, the environment alone. Its directories are used.
        requests: replay only so many, the first ones.
        json: print JSON.
    """

    config: Path | None = None
    requests: int | None = None
    json: _Flag = False


_OPTIONS = ReplayOptions()
_SOURCE = TraceOptions()


def replay(
    trace: Path,
    /,
    *,
    engine: EngineOptions,
    pace: Pace = Pace.REALTIME,
    options: ReplayOptions = _OPTIONS,
    source: TraceOptions = _SOURCE,
) -> int:
    """Replay a trace through the real cache, with real bytes on this machine's tiers; check every block that comes back.

    Args:
        trace: requests, in any format that `tiercel trace` reads.
        pace: realtime, as requests arrive; or lockstep, one after the other without waiting, for hits alone.

    Returns:
        0 if every byte was right and no tier failed, else 1.
    """
    from tiercel.tune.replay import replay as run

    requests, setup, _ = _given(source.read(trace), engine, options, pace)
    with _running() as progress:
        report = run(requests, setup, progress=partial(progress, "replay"))
    if options.json:
        print_json(_as_data(report))
    else:
        print_report(report)
    return 1 if report.wrong_blocks or report.faults else 0


def prove(
    trace: Path,
    /,
    *,
    engine: EngineOptions,
    machine: Path = Path("machine.json"),
    tolerance: float | None = None,
    bytes_min: str | None = None,
    options: ReplayOptions = _OPTIONS,
    source: TraceOptions = _SOURCE,
) -> int:
    """Simulate a trace, replay it through the real cache, and hold the prediction against what happened.

    Args:
        trace: requests, in any format that `tiercel trace` reads.
        machine: what `tiercel probe` wrote on this machine.
        tolerance: share by which a prediction may be off.
        bytes_min: refuse a proof whose tiers hold less, or whose trace moves less, such as 64MiB, which it is by default; 0B for
            a proof of anything.

    Returns:
        0 if the prediction holds, else 1.
    """
    from tiercel.config import parse_size
    from tiercel.tune.machine import read_machine
    from tiercel.tune.replay import BYTES_MIN, TOLERANCE
    from tiercel.tune.replay import prove as run

    requests, setup, facts = _given(source.read(trace), engine, options, Pace.REALTIME)
    measured = read_machine(machine)
    limit = TOLERANCE if tolerance is None else tolerance
    floor = BYTES_MIN if bytes_min is None else parse_size("bytes-min", bytes_min)
    with _running() as progress:
        proof = run(requests, setup, measured, facts, tolerance=limit, bytes_min=floor, progress=progress)
    if options.json:
        print_json(_proof_data(proof))
    else:
        print_proof(proof)
    return 1 if proof.failures else 0


def _given(
    requests: "Trace", engine: EngineOptions, options: ReplayOptions, pace: Pace
) -> "tuple[Trace, ReplaySetup, EngineFacts]":
    from tiercel.config import read_config
    from tiercel.tune.replay import ReplaySetup, first_requests
    from tiercel.tune.simulate import make_engine

    model = engine.read_model()
    config = read_config(options.config).config
    facts = engine.facts(model)
    modelled = make_engine(facts, model.token_size_in_bytes * config.tokens_per_block)
    setup = ReplaySetup(model=model, config=config, engine=modelled, pace=pace, speedup=engine.speedup)
    return requests if options.requests is None else first_requests(requests, options.requests), setup, facts


@contextmanager
def _running() -> Iterator[Callable[[str, int, int], None]]:
    """Show how far a run is, and let signals end it so that it removes what it made."""
    from rich.console import Console

    from tiercel.tune.replay.display import StageBars
    from tiercel.tune.replay.leaving import leave_on_signals

    with leave_on_signals(), StageBars(Console(stderr=True)) as bars:
        yield bars.show


def print_report(report: "ReplayReport") -> None:
    """Print what a replay came to."""
    result = report.result
    print_line(
        f"{result.trace}: {len(result.input_tokens)} requests, {int(result.full_blocks.sum())} blocks of "
        f"{result.tokens_per_block} tokens and {bytes_text(result.block_bytes)}"
    )
    print_line(
        f"hit rate: {result.block_hit_rate:.1%} of blocks, {result.token_hit_rate:.1%} of tokens, "
        f"{result.request_hit_rate:.1%} mean of requests"
    )
    print_table("", ("tier", "hits", "read", "written", "evicted", "busy"), _tier_rows(result))
    for name, times in (("TTFT", result.ttft_s), ("end to end", result.ended_s - result.arrived_s)):
        print_line(f"{name}: {_times_text(times)}")
    print_line(f"restored blocks: {report.restored_blocks}, each compared; wrong: {report.wrong_blocks}")
    for wrong in report.wrong:
        print_line(f"WRONG: {wrong}")
    if report.failed_blocks:
        print_line(f"not brought by loads, and recomputed: {report.failed_blocks} blocks")
    for tier, count in report.faults.items():
        print_line(
            f"FAILED: {count} blocks that the {tier} tier could not read or write; look at its device and the log"
        )
    if result.refused:
        print_line(f"refused: {counts_text(dict(result.refused))}")
    if report.late_s > 0:
        print_line(f"the engine's steps ran late by {seconds_text(report.late_s)} at most")
    for note in result.notes:
        print_line(f"note: {note}")


def _tier_rows(result: "SimulationResult") -> Iterator[tuple[str, ...]]:
    for tier, traffic in result.tiers.items():
        yield (
            tier.name.lower(),
            f"{result.tier_hit_rate(tier):.1%}",
            bytes_text(traffic.blocks_read * result.block_bytes),
            bytes_text(traffic.blocks_written * result.block_bytes),
            str(traffic.evicted),
            seconds_text(traffic.busy_s),
        )


def _times_text(times: "NDArray[np.float64]") -> str:
    if len(times) == 0:
        return "none"
    import numpy as np

    return ", ".join(f"p{p} {seconds_text(float(np.percentile(times, p)))}" for p in _PERCENTILES)


def print_proof(proof: "Proof") -> None:
    """Print what was predicted beside what was measured, and whether that holds."""
    print_line(f"{proof.trace}: {proof.lockstep.num_requests} requests, replayed with real bytes in two paces")
    print_line(f"in lockstep: {_hits_text(proof.lockstep)}")
    print_line(f"in real time: {_hits_text(proof.realtime)}")
    rows = (
        (figure.name, _value_text(figure, figure.predicted), _value_text(figure, figure.measured),
         f"{figure.deviation:+.1%}", _verdict(figure, proof.tolerance))
        for figure in proof.figures
    )  # fmt: skip
    print_table("in real time", ("figure", "predicted", "measured", "off by", ""), rows)
    restored = sum(report.restored_blocks for report in proof.reports)
    wrong = sum(report.wrong_blocks for report in proof.reports)
    print_line(f"restored blocks: {restored}, each compared; wrong: {wrong}")
    print_line(f"the replayed engine's steps ran late by {seconds_text(proof.reports[1].late_s)} at most")
    for note in proof.notes:
        print_line(f"note: {note}")
    for failure in proof.failures:
        print_line(f"DOES NOT HOLD: {failure}")
    if not proof.failures:
        print_line(f"the prediction holds: hits equal block for block, all else within {proof.tolerance:.0%}")


def _hits_text(hits: "HitsCompared") -> str:
    if hits.num_differing == 0:
        return f"hits of all {hits.num_requests} requests are equal, block for block"
    reasons = {
        "another number of blocks was stored": hits.found_otherwise,
        "they lay in other tiers": hits.placed_otherwise,
        "another number was worth loading": hits.loaded_otherwise,
    }
    told = "; ".join(f"{reason}: {count}" for reason, count in reasons.items() if count)
    return (
        f"hits of {hits.num_differing} of {hits.num_requests} requests differ, first in request {hits.first} ({told})"
    )


def _value_text(figure: "Compared", value: float) -> str:
    if figure.unit == "share":
        return f"{value:.2%}"
    return seconds_text(value) if figure.unit == "s" else f"{value / 1e9:.3f} GB"


def _verdict(figure: "Compared", tolerance: float) -> str:
    if not figure.held:
        return "told only"
    return "holds" if abs(figure.deviation) <= tolerance else "DOES NOT HOLD"


def _as_data(report: "ReplayReport") -> dict[str, object]:
    from tiercel.tune.replay.data import report_data

    return report_data(report)


def _proof_data(proof: "Proof") -> dict[str, object]:
    from tiercel.tune.replay.data import proof_data

    return proof_data(proof)
