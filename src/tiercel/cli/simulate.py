"""`tiercel simulate`: a trace through a cache that is not there, on a machine that was measured."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tiercel.cli.engine import EngineOptions
from tiercel.cli.render import counts_text, print_json, print_line, print_table
from tiercel.cli.trace import TraceOptions
from tiercel.errors import ConfigError

if TYPE_CHECKING:
    from tiercel.config import CacheConfig
    from tiercel.tune.machine import Machine
    from tiercel.tune.simulate import Summary

_Flag = Annotated[bool, Parameter(negative="")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SimulateOptions:
    """What is simulated, and how it is told.

    Attributes:
        config: settings of the cache, YAML, JSON or TOML; without one, the environment alone.
        machine: what `tiercel probe` wrote.
        tp_size: GPUs of one engine.
        endurance: what the disk tier's drives may be written: 1400TBW, 3.5PBW, or 1DWPD.
        json: print JSON.
        csv: print CSV.
        report: write a report, one HTML page, to this file.
        requests_csv: write what became of each request to this file, as CSV.
    """

    config: Path | None = None
    machine: Path = Path("machine.json")
    tp_size: int = 1
    endurance: str | None = None
    json: _Flag = False
    csv: _Flag = False
    report: Path | None = None
    requests_csv: Path | None = None


_OPTIONS = SimulateOptions()
_SOURCE = TraceOptions()


def simulate(
    trace: Path,
    /,
    *,
    engine: EngineOptions,
    options: SimulateOptions = _OPTIONS,
    source: TraceOptions = _SOURCE,
) -> None:
    """Replay a trace through the cache's real decisions over modelled tiers, and tell what it would bring.

    Args:
        trace: requests, in any format that `tiercel trace` reads.
    """
    from tiercel.config import read_config
    from tiercel.tune.files import write_whole
    from tiercel.tune.machine import read_machine
    from tiercel.tune.simulate import make_setup, requests_csv, summarize, summary_csv, write_report
    from tiercel.tune.simulate import simulate as run

    if options.json and options.csv:
        raise ConfigError("json, csv: both were asked for; ask for one of them")
    for key, file in (("report", options.report), ("requests-csv", options.requests_csv)):
        if file is not None:
            _check_output(key, file)
    model = engine.read_model(tp_size=options.tp_size)
    machine = read_machine(options.machine)
    config = read_config(options.config).config
    endurance_bytes = _endurance(options.endurance, machine, config)
    setup = make_setup(config, model, machine, engine.facts(model), speedup=engine.speedup)
    requests = source.read(trace)
    with _progress() as progress:
        result = run(requests, setup, seed=source.seed, progress=progress)
    summary = summarize(result, endurance_bytes=endurance_bytes, gpus_per_engine=options.tp_size)
    if options.report is not None:
        write_report(options.report, result, summary)
    if options.requests_csv is not None:
        write_whole(options.requests_csv, requests_csv(result))
    if options.json:
        print_json(summary)
    elif options.csv:
        sys.stdout.write(summary_csv(summary))
    else:
        print_summary(summary)


def _check_output(key: str, file: Path) -> None:
    """Find out now, not when all is simulated, whether a file can be written there."""
    if not file.parent.is_dir():
        raise ConfigError(f"{key} = {str(file)!r}: there is no folder {file.parent}; make it, or name another file")
    if file.is_dir():
        raise ConfigError(f"{key} = {str(file)!r}: is a folder; name a file in it")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ConfigError(f"{key} = {str(file)!r}: cannot be written by this user; name another file")


def _endurance(text: str | None, machine: "Machine", config: "CacheConfig") -> float | None:
    from tiercel.tune.simulate import bytes_of_drives, parse_endurance

    if text is None:
        return None
    return parse_endurance(text, bytes_of_drives(machine, map(str, config.ssd_cache_dirs)))


@contextmanager
def _progress() -> "Iterator[Callable[[int, int], None] | None]":
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("requests", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_summary(summary: "Summary") -> None:
    """Print a run as tables."""
    from tiercel.tune.simulate.words import hit_rows, quantity, seconds, tier_rows, time_rows, wear_text

    print_line(
        f"{summary.trace}: {summary.num_requests:,} requests, {summary.input_tokens:,} prompt tokens, "
        f"{seconds(summary.span_s)}; blocks of {summary.tokens_per_block} tokens, {summary.block_bytes / 2**20:.4g} MiB"
    )
    print_table("", ("hit rate", "all", *summary.hits.blocks_by_tier), hit_rows(summary))
    print_table("", ("time", "mean", "p50", "p90", "p95", "p99", "max"), time_rows(summary))
    print_table("", ("tier", "read", "written", "evicted blocks", "links busy", "waited"), tier_rows(summary))
    print_line(f"prefill: {quantity(summary.prefill_busy_s)} s of engines' time; "
               f"{quantity(summary.gpu_seconds_saved)} GPU-seconds saved")  # fmt: skip
    told = wear_text(summary)
    if told is not None:
        print_line(told)
    if summary.refused:
        print_line(f"refused or given up: {counts_text(summary.refused)}")
    for note in summary.notes:
        print_line(f"assumed: {note}")
