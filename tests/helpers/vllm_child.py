"""What runs in an engine's process; `vllm_engine` is the side of the test. vLLM is imported when an engine is made."""

# pyright: reportMissingImports=false
import itertools
import multiprocessing.connection
import os
import pickle
import signal
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.helpers.running_node import node_clients
from tests.helpers.simulated_disk import DiskFaults, SimulatedDisk
from tests.helpers.vllm_requests import Answer, KvEvent, Request, alone
from tiercel.telemetry.status import read_status

if TYPE_CHECKING:
    from tests.helpers.vllm_engine import EngineSpec

PRELOADED = ("vllm.v1.engine.llm_engine", "vllm.v1.worker.cpu_worker", "vllm.model_executor.models.llama")
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",  # compiling what ranks log-probabilities takes longer than all requests of a test
}
CONNECTOR: dict[str, Any] = {
    "kv_connector": "TiercelConnector",
    "kv_connector_module_path": "tiercel.connectors.vllm",
    "kv_role": "kv_both",
}
_STEPS_MAX = 3_000
_SETTLE_S = 30.0


def serve(connection: multiprocessing.connection.Connection, spec: "EngineSpec") -> None:
    """Make an engine and do what the test says until it closes the engine or goes away."""
    os.environ.update(ENVIRONMENT)
    try:
        session = Session(spec)
    except BaseException:  # noqa: BLE001 - the test is told, and this process ends
        connection.send((True, traceback.format_exc()))
        return
    connection.send((False, None))
    while True:
        try:
            name, arguments = connection.recv()
        except EOFError:
            return
        if name == "close":
            session.close()
            return
        try:
            connection.send((False, getattr(session, name)(*arguments)))
        except Exception:  # noqa: BLE001 - the test is told
            connection.send((True, traceback.format_exc()))


class Session:
    """The engine and what a test can ask of it."""

    def __init__(self, spec: "EngineSpec") -> None:
        from vllm import EngineArgs
        from vllm.config import KVEventsConfig, KVTransferConfig
        from vllm.v1.engine.llm_engine import LLMEngine

        self._disk = None if spec.simulated is None else simulated_disk(spec)
        for name in [name for name in os.environ if name.startswith("TIERCEL_")]:
            del os.environ[name]  # the tests' own; the connector refuses variables that it does not know
        transfer = (
            None if spec.extra is None else KVTransferConfig(**CONNECTOR, kv_connector_extra_config=dict(spec.extra))
        )
        self._has_connector = transfer is not None
        self._endpoint: str | None = (spec.extra or {}).get("server_recv_port")
        arguments: dict[str, Any] = {"enforce_eager": True, "skip_tokenizer_init": True, "disable_log_stats": False}
        if spec.publishes_events:
            arguments["kv_events_config"] = KVEventsConfig(enable_kv_cache_events=True, publisher="null")
        self._engine: Any = LLMEngine.from_engine_args(
            EngineArgs(**(arguments | spec.arguments()), kv_transfer_config=transfer)
        )
        self._events: list[KvEvent] = []
        if spec.publishes_events:
            self._scheduler.kv_event_publisher.publish = lambda batch: self._events.extend(map(event_of, batch.events))
        self._num_runs = 0

    def take_events(self) -> list[KvEvent]:
        """What vLLM has published since the last call."""
        events, self._events = self._events, []
        return events

    def run(self, requests: list[Request]) -> dict[str, Answer]:
        """Step the engine until every request has ended or was aborted."""
        self._num_runs += 1
        internal = {f"{request.name}.{self._num_runs}": request for request in requests}
        waiting = sorted(internal, key=lambda name: internal[name].arrives_at, reverse=True)
        aborts: dict[str, int] = {}
        answers = {request.name: Answer() for request in requests}
        started = time.monotonic()
        for step in itertools.count():
            if (
                step >= _STEPS_MAX and time.monotonic() > started + _SETTLE_S
            ):  # steps of requests that wait take no time
                break
            while waiting and internal[waiting[-1]].arrives_at <= step:
                name = waiting.pop()
                self._add(name, internal[name])
                after = internal[name].aborts_after
                if after is not None:
                    aborts[name] = step + after
            leaving = [
                name for name, when in aborts.items() if when <= step and not answers[internal[name].name].is_finished
            ]
            if leaving:
                self._engine.abort_request(leaving)
            aborts = {name: when for name, when in aborts.items() if when > step}
            if not waiting and not self._engine.has_unfinished_requests():
                return answers
            for output in self._engine.step():
                name = internal[output.request_id].name
                answers[name] = answer_of(output, was_preempted=answers[name].was_preempted)
            for name in self._preempted():
                answers[internal[name].name] = replace(answers[internal[name].name], was_preempted=True)
        raise AssertionError(f"{_STEPS_MAX} steps, and requests that did not end: {self._unfinished()}")

    def _preempted(self) -> list[str]:
        """The requests that had to give their blocks to others; vLLM adds a suffix to their names."""
        return [name.partition("-")[0] for name, request in self._scheduler.requests.items() if request.num_preemptions]

    def _unfinished(self) -> list[str]:
        return [
            f"{name}: {request.status.name}, {request.num_computed_tokens} of {request.num_tokens} tokens computed"
            for name, request in self._scheduler.requests.items()
        ]

    def _add(self, name: str, request: Request) -> None:
        from vllm import SamplingParams

        prompt: dict[str, Any] = {"prompt_token_ids": list(request.tokens)}
        if request.salt is not None:
            prompt["cache_salt"] = request.salt
        sampling = SamplingParams(
            temperature=0, max_tokens=request.max_tokens, ignore_eos=True, logprobs=0, detokenize=False
        )
        self._engine.add_request(name, prompt, sampling)

    def run_alone(self, requests: list[Request]) -> dict[str, Answer]:
        answers: dict[str, Answer] = {}
        for request in requests:
            self.forget()
            answers |= self.run([alone(request)])
            self.settle()
        return answers

    def forget(self) -> None:
        """Empty the engine's own prefix cache."""
        deadline = time.monotonic() + _SETTLE_S
        while not self._engine.reset_prefix_cache():
            assert time.monotonic() < deadline, "blocks of requests that have ended are still held"
            self._engine.step()

    def settle(self) -> None:
        """Step until the connector's transfers have ended, what they held was given back and vLLM has nothing left to do."""
        if not self._has_connector:
            return
        deadline = time.monotonic() + _SETTLE_S
        num_idle = 0
        while num_idle < 3:  # what the last request left is stored by the step behind its end, and reported by the next
            assert time.monotonic() < deadline, f"transfers are still running after {_SETTLE_S} s"
            self._engine.step()
            num_idle = 0 if self._num_tickets() or self._scheduler.has_requests() else num_idle + 1

    def _num_tickets(self) -> int:
        if self._endpoint is None:
            return read_status(os.getpid()).tickets["running"]
        return sum(client.tickets for client in node_clients(self._endpoint) if client.process == os.getpid())

    @property
    def _scheduler(self) -> Any:
        return self._engine.engine_core.engine_core.scheduler

    def free_blocks(self) -> int:
        """Blocks of the engine that nobody holds."""
        return int(self._scheduler.kv_cache_manager.block_pool.get_num_free_blocks())

    def spoil_memory(self) -> None:
        """Change the engine's whole KV memory by a little, as a cache does that gives back wrong bytes."""
        runner = self._engine.engine_core.engine_core.model_executor.driver_worker.worker.model_runner
        for memory in runner.kv_caches:
            memory.mul_(1.001)

    def set_faults(self, faults: DiskFaults, stall_us: int) -> None:
        assert self._disk is not None, "this engine runs on no simulated disk"
        self._disk.set_faults(faults, stall_us=stall_us)

    def close(self) -> None:
        self._engine.engine_core.shutdown()


def simulated_disk(spec: "EngineSpec") -> SimulatedDisk:
    """Put the engine's directory on the simulated disk, before any file there is opened."""
    assert spec.simulated is not None
    stash = spec.simulated.parent / f"{spec.simulated.name}-stash-{os.getpid()}"
    stash.mkdir()
    return SimulatedDisk(spec.simulated, stash, seed=1)


def event_of(event: Any) -> KvEvent:
    """One of vLLM's KV events as the test reads it."""
    return KvEvent(
        kind=type(event).__name__,
        medium=getattr(event, "medium", None),
        hashes=tuple(getattr(event, "block_hashes", ())),
        parent=getattr(event, "parent_block_hash", None),
        tokens=tuple(getattr(event, "token_ids", ())),
    )


def answer_of(output: Any, *, was_preempted: bool) -> Answer:
    """One of vLLM's outputs as the test reads it."""
    (completion,) = output.outputs
    logprobs = tuple(next(iter(token.values())).logprob for token in completion.logprobs or ())
    return Answer(
        tokens=tuple(completion.token_ids),
        logprobs=logprobs,
        cached_tokens=output.num_cached_tokens or 0,
        is_finished=output.finished and completion.finish_reason != "abort",
        was_preempted=was_preempted,
    )


def main() -> None:
    """Serve what the file named on the command line asks for until a signal ends this."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # even where it was ignored
    spec, requests = pickle.loads(Path(sys.argv[1]).read_bytes())
    session = Session(spec)
    session.run_alone(requests)
    sys.stdout.write("running\n")
    sys.stdout.flush()
    while True:
        session.forget()
        session.run(requests)


if __name__ == "__main__":
    main()
