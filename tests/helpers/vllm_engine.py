"""A real vLLM engine in a process of its own, on the CPU: started, driven step by step, killed.

Importing vLLM takes longer than any test, so a fork server imports it once and each engine is a fork of that. `Engine` is the
side of the test; `vllm_child` is what runs in the fork. Every wait has a bound, after which the engine is killed.

Float32 on the CPU gives each request the same bits whatever else is in its batch, however its prompt was chunked and whether
its KV was computed or cached, so answers are compared exactly, log-probabilities included.
"""

import importlib.util
import multiprocessing
import multiprocessing.connection
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from tests.helpers import vllm_child
from tests.helpers.running_node import node_snapshot
from tests.helpers.simulated_disk import NO_FAULTS, DiskFaults
from tests.helpers.vllm_requests import Answer, KvEvent, Request
from tiercel.telemetry.snapshot import StatusSnapshot
from tiercel.telemetry.status import read_status

ROOT = Path(__file__).parents[2]
TOKENS_PER_BLOCK = 32
"""The smallest block that vLLM's attention takes on a CPU."""
START_S = 300.0
CALL_S = 240.0
CLOSE_S = 60.0


def why_no_vllm() -> str:
    """Why no engine can run here, or ""."""
    missing = [name for name in ("torch", "vllm") if not _is_installed(name)]
    return f"{' and '.join(missing)} not installed" if missing else ""


def _is_installed(name: str) -> bool:
    """Whether there is such a package; a folder of tests that has its name is none."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """How an engine is made. `extra` is the connector's own configuration; None: no connector at all.

    The defaults leave room for little: eight requests at once, 39 blocks among them, prompts in chunks of 96 tokens.
    """

    model: Path
    extra: Mapping[str, Any] | None = None
    num_blocks: int = 40
    max_num_seqs: int = 8
    max_num_batched_tokens: int = 96
    max_model_len: int = 768
    dtype: str = "float32"
    options: Mapping[str, Any] = field(default_factory=dict)
    in_one_process: bool = True
    """Whether scheduler and worker share a process; else they run as with vLLM's "mp" executor."""
    publishes_events: bool = False
    """Whether vLLM is to publish KV events; `Engine.take_events` returns them."""
    simulated: Path | None = None
    """A directory under which the disk is simulated, in an engine server that was started for that."""

    def arguments(self) -> dict[str, Any]:
        """As vLLM's EngineArgs take them, less the connector."""
        names = ("num_blocks", "max_num_seqs", "max_num_batched_tokens", "max_model_len", "dtype")
        values = {name: getattr(self, name) for name in names}
        values["num_gpu_blocks_override"] = values.pop("num_blocks")
        if not self.in_one_process:
            values["distributed_executor_backend"] = "mp"
        return {"model": str(self.model), "block_size": TOKENS_PER_BLOCK, "seed": 0, **values, **self.options}


class EngineFailedError(Exception):
    """The engine's process reported an error or ended; the message is what it said."""


@contextmanager
def engine_server(*, preload: Path | None = None) -> Iterator[None]:
    """Let every engine of this process be forked from one that has imported vLLM already.

    Args:
        preload: a library that the engines' processes load before the C library. Only the first use decides.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([vllm_child.__name__, *vllm_child.PRELOADED])
    changed = {**vllm_child.ENVIRONMENT, "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))}
    if preload is not None:
        changed |= {"LD_PRELOAD": str(preload), "SIMULATED_DISK_LIBRARY": str(preload)}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def start_script(spec: EngineSpec, requests: Sequence[Request], folder: Path) -> "subprocess.Popen[str]":
    """Start a Python process of its own that serves requests again and again, handling signals as Python does.

    Once all blocks of the requests are stored it says "running" on standard output.
    """
    asked = folder / "asked.pickle"
    asked.write_bytes(pickle.dumps((spec, list(requests))))
    environment = {**os.environ, **vllm_child.ENVIRONMENT, "PYTHONPATH": str(ROOT), "LD_PRELOAD": ""}
    command = [sys.executable, "-m", vllm_child.__name__, str(asked)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)


class Engine:
    """One engine's process. Use as a context manager: whatever happens, the process ends."""

    def __init__(self, spec: EngineSpec) -> None:
        """Start it and wait until it serves.

        Raises:
            EngineFailedError: it could not be made, or not within `START_S`.
        """
        context = multiprocessing.get_context("forkserver")
        self._endpoint: str | None = (spec.extra or {}).get("server_recv_port")
        self._connection, theirs = context.Pipe()
        alone = spec.in_one_process  # a daemon has no children
        self.process: ForkServerProcess = context.Process(target=vllm_child.serve, args=(theirs, spec), daemon=alone)
        self.process.start()
        theirs.close()
        try:
            self._answer(START_S)
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        pid = self.process.pid
        assert pid is not None
        return pid

    def _answer(self, timeout_s: float) -> Any:
        if not self._connection.poll(timeout_s):
            self.kill()
            raise EngineFailedError(f"the engine hangs: no answer within {timeout_s} s")
        try:
            failed, value = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(CLOSE_S)
            raise EngineFailedError(f"the engine ended, exit code {self.process.exitcode}") from None
        if failed:
            raise EngineFailedError(value)
        return value

    def call(self, name: str, *arguments: Any, timeout_s: float = CALL_S) -> Any:
        """Run a method of the child's `Session` and return what it returns.

        Raises:
            EngineFailedError: it raised something, took too long, or the process ended.
        """
        self.begin(name, *arguments)
        return self._answer(timeout_s)

    def begin(self, name: str, *arguments: Any) -> None:
        """Start a method of the child's `Session` and do not wait for it."""
        try:
            self._connection.send((name, arguments))
        except BrokenPipeError:
            raise EngineFailedError("the engine's process is gone") from None

    def run(self, requests: Sequence[Request], *, timeout_s: float = CALL_S) -> dict[str, Answer]:
        """Run requests side by side, as their steps say, until the last has ended."""
        answers: dict[str, Answer] = self.call("run", list(requests), timeout_s=timeout_s)
        return answers

    def run_alone(self, requests: Sequence[Request], *, timeout_s: float = CALL_S) -> dict[str, Answer]:
        """Run requests one after the other, each with nothing in the engine's own prefix cache."""
        answers: dict[str, Answer] = self.call("run_alone", list(requests), timeout_s=timeout_s)
        return answers

    def settle(self) -> None:
        """Return when no transfer of the connector is running any more."""
        self.call("settle")

    def set_faults(self, faults: DiskFaults = NO_FAULTS, *, stall_us: int = 0) -> None:
        """Let the simulated disk fail from now on."""
        self.call("set_faults", faults, stall_us)

    def take_events(self) -> list[KvEvent]:
        """The KV events that vLLM has published since the last call."""
        events: list[KvEvent] = self.call("take_events")
        return events

    def status(self) -> StatusSnapshot:
        """What `tiercel stats` shows of this engine's cache, or of its node's."""
        return read_status(self.pid) if self._endpoint is None else node_snapshot(self._endpoint)

    def wait_for_end(self, timeout_s: float = CLOSE_S) -> bool:
        """Whether the process ended by itself within a time."""
        self.process.join(timeout_s)
        return self.process.exitcode is not None

    def close(self) -> None:
        """Shut the engine down as vLLM does and wait for its process."""
        self.begin("close")
        if not self.wait_for_end():
            self.kill()
            raise EngineFailedError(f"the engine did not end within {CLOSE_S} s of being closed")
        assert self.process.exitcode == 0, f"the engine's process ended with {self.process.exitcode}"

    def kill(self) -> None:
        """End the process with SIGKILL, if it still runs."""
        self.process.kill()
        self.process.join(CLOSE_S)
        self._connection.close()
