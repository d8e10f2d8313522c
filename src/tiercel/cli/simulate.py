"""`tiercel simulate`: a trace through a cache that is not there, on a machine that was measured."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tiercel.cli.render import counts_text, print_json, print_line, print_table
from tiercel.errors import ConfigError

if TYPE_CHECKING:
    from tiercel.config import ModelConfig
    from tiercel.tune.machine import Machine
    from tiercel.tune.simulate import PrefillSource, Summary

_Flag = Annotated[bool, Parameter(negative="")]


@dataclass(frozen=True, kw_only=True)
class SimulateOptions:
    """What is simulated, and how it is told.

    Attributes:
        config: settings of the cache, YAML, JSON or TOML; without one, the environment alone.
        model: the model's config.json, or its folder.
        machine: what `tiercel probe` wrote.
        format: the trace's format, where it cannot be told from the file.
        prefill: a JSON file of measured prefills, {"points": [[cached tokens, computed tokens, seconds], ...]}, or of a
            curve, {"fixed_s": ..., "token_s": ..., "token_pair_s": ...}.
        prefill_from: a running cache whose learnt curve is taken: process id, socket or cache directory.
        gpu_rate: operations a second of one GPU in the weights' type, 989e12 for example: prefill by arithmetic.
        efficiency: share of that rate which prefill reaches.
        gpu_kv: GPU memory of the engine's own KV cache over all its GPUs, "40GiB" for example.
        decode_ms: milliseconds between two tokens that a request generates.
        tp_size: GPUs of one engine.
        dtype: element type of the KV cache, where it is not that of the weights.
        replicas: engines that share the cache.
        store_output: whether blocks that are generated are stored, too.
        speedup: requests arrive this many times faster than in the trace.
        seed: of the blocks' keys; runs of one seed are equal.
        endurance: what the disk tier's drives may be written: 1400TBW, 3.5PBW, or 1DWPD.
        json: print JSON.
        csv: print CSV.
        report: write a report, one HTML page, to this file.
        requests: write what became of each request to this file, as CSV.
    """

    config: Path | None = None
    model: Path
    machine: Path = Path("machine.json")
    format: str | None = None
    prefill: Path | None = None
    prefill_from: str | None = None
    gpu_rate: float | None = None
    efficiency: float = 0.5
    gpu_kv: str | None = None
    decode_ms: float | None = None
    tp_size: int = 1
    dtype: str | None = None
    replicas: int = 1
    store_output: bool = True
    speedup: float = 1.0
    seed: int = 0
    endurance: str | None = None
    json: _Flag = False
    csv: _Flag = False
    report: Path | None = None
    requests: Path | None = None


def simulate(trace: Path, /, *, options: Annotated[SimulateOptions, Parameter(name="*")]) -> None:
    """Replay a trace through the cache's real decisions over modelled tiers, and tell what it would bring.

    Args:
        trace: requests, in any format that `tiercel trace` reads.
    """
    from tiercel.config import ModelConfig, read_config
    from tiercel.tune.machine import read_machine
    from tiercel.tune.simulate import (
        EngineFacts,
        make_setup,
        requests_csv,
        summarize,
        summary_csv,
        write_report,
    )
    from tiercel.tune.simulate import simulate as run
    from tiercel.tune.traces import read_trace

    if options.json and options.csv:
        raise ConfigError("json, csv: both were asked for; ask for one of them")
    model = ModelConfig.from_model(options.model, dtype=options.dtype, tp_size=options.tp_size)
    machine = read_machine(options.machine)
    endurance_bytes = _endurance(options.endurance, machine)
    engine = EngineFacts(
        prefill=_prefill(options, model),
        decode_token_s=None if options.decode_ms is None else options.decode_ms / 1e3,
        kv_bytes=options.gpu_kv,
        replicas=options.replicas,
        stores_output=options.store_output,
    )
    setup = make_setup(read_config(options.config).config, model, machine, engine, speedup=options.speedup)
    requests = read_trace(trace, options.format)
    with _progress() as progress:
        result = run(requests, setup, seed=options.seed, progress=progress)
    summary = summarize(result, endurance_bytes=endurance_bytes, gpus_per_engine=options.tp_size)
    if options.report is not None:
        write_report(options.report, result, summary)
    if options.requests is not None:
        options.requests.write_text(requests_csv(result))
    if options.json:
        print_json(summary)
    elif options.csv:
        sys.stdout.write(summary_csv(summary))
    else:
        print_summary(summary)


def _prefill(options: SimulateOptions, model: "ModelConfig") -> "PrefillSource":
    from tiercel.tune.simulate import prefill_of_cache, prefill_of_file, prefill_of_model

    given = [name for name in ("prefill", "prefill_from", "gpu_rate") if getattr(options, name) is not None]
    if len(given) != 1:
        told = " and ".join(given) or "none"
        raise ConfigError(
            f"prefill, prefill-from, gpu-rate: {told} given; give one: a file of measured prefills, a running cache that "
            f"has learnt them, or a GPU's operations a second"
        )
    if options.prefill is not None:
        return prefill_of_file(options.prefill)
    if options.prefill_from is not None:
        target = options.prefill_from
        return prefill_of_cache(int(target) if target.isdecimal() else Path(target))
    assert options.gpu_rate is not None, "one of the three was given"
    return prefill_of_model(options.model, model, gpu_flops=options.gpu_rate, efficiency=options.efficiency)


def _endurance(text: str | None, machine: "Machine") -> float | None:
    from tiercel.tune.simulate import parse_endurance

    if text is None:
        return None
    return parse_endurance(text, sum(directory.capacity_bytes for directory in machine.directories))


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
