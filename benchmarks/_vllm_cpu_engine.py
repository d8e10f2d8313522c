"""One real vLLM engine on the CPU in a process of its own, for `vllm_cpu.py`: asked for one request at a time, timed inside.

The engine's core runs in that process too, so its CPU seconds are everything that serving a request costs, transfers
included: a request's count until nothing of it is moved any more.
"""

# pyright: reportMissingImports=false
import functools
import inspect
import json
import multiprocessing
import multiprocessing.connection
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiercel.telemetry.snapshot import StatusSnapshot
from tiercel.telemetry.status import read_status

BLOCK_TOKENS = 32
"""The smallest block that vLLM's attention takes on a CPU."""
START_S = 600.0
REQUEST_S = 600.0
_SETTLE_S = 60.0
_TASKS = Path("/proc/self/task")
BARE: Mapping[str, Any] = {}
Extra = Mapping[str, Any] | None
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}
_LAYERS, _HIDDEN, _KV_HEADS, _HEAD_SIZE = 16, 1024, 4, 64
KV_BYTES_A_TOKEN = 2 * _LAYERS * _KV_HEADS * _HEAD_SIZE * 4
MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": _HIDDEN,
    "intermediate_size": 2816,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HIDDEN // _HEAD_SIZE,
    "num_key_value_heads": _KV_HEADS,
    "head_dim": _HEAD_SIZE,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One request: seconds to its first token, CPU seconds to there, and to where nothing of it moves any more; `own_s` of these
    were Tiercel's."""

    ttft_s: float
    cpu_s: float
    settled_s: float
    own_s: float
    cached_tokens: int


class OwnTime:
    """CPU seconds of this process that are Tiercel's: what its threads took, those that have ended (the engine's go on, a copy's
    helpers do not), and the connector's calls on the engine's thread."""

    def __init__(self) -> None:
        self._calls_s = 0.0
        self._inside = False

    def watch(self, connector: type) -> None:
        """Count the calls of a connector's public methods from now on."""
        for name in dir(connector):
            method = getattr(connector, name)
            if not name.startswith("_") and inspect.isfunction(method):
                setattr(connector, name, self._timed(method))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def timed(*arguments: Any, **named: Any) -> Any:
            if self._inside or threading.current_thread() is not threading.main_thread():
                return method(*arguments, **named)
            self._inside, started = True, time.thread_time()
            try:
                return method(*arguments, **named)
            finally:
                self._inside = False
                self._calls_s += time.thread_time() - started

        return timed

    def seconds(self) -> float:
        """What it comes to so far."""
        took = {int(path.parent.name): int(path.read_text().split()[0]) for path in _TASKS.glob("*/schedstat")}
        ended_s = time.process_time() - sum(took.values()) / 1e9
        own = [thread.native_id for thread in threading.enumerate() if thread.name.startswith("tiercel")]
        return ended_s + sum(took.get(number or 0, 0) for number in own) / 1e9 + self._calls_s


class EngineProcess:
    """An engine, with Tiercel's connector if `extra` names its settings, or with one that keeps nothing if it is `BARE`. Use as
    a context manager."""

    def __init__(self, folder: Path, max_tokens: int, extra: Extra) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, folder, max_tokens, extra), daemon=True)
        self._process.start()
        theirs.close()
        self._receive(START_S)

    def __enter__(self) -> "EngineProcess":
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.join()

    def _receive(self, timeout_s: float) -> Any:
        if not self._connection.poll(timeout_s):
            raise TimeoutError(f"the engine did not answer within {timeout_s} s")
        return self._connection.recv()

    def run(self, prompt: list[int], *, keep: bool = False) -> Sample:
        """Run a prompt for one token. `keep`: with what the engine's own prefix cache holds."""
        self._connection.send((prompt, keep))
        sample: Sample = self._receive(REQUEST_S)
        return sample

    def status(self) -> StatusSnapshot:
        assert self._process.pid is not None
        return read_status(self._process.pid)

    def close(self) -> None:
        """Shut the engine down and wait for its process."""
        self._connection.send(None)
        self._process.join(_SETTLE_S)


def write_model(folder: Path) -> None:
    """Write the model's configuration; its weights are vLLM's dummies."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(MODEL))


def _serve(connection: multiprocessing.connection.Connection, folder: Path, max_tokens: int, extra: Extra) -> None:
    os.environ.update(_ENVIRONMENT)
    from vllm import EngineArgs, SamplingParams
    from vllm.config import KVTransferConfig
    from vllm.v1.engine.llm_engine import LLMEngine

    transfer, own = None, OwnTime()
    if extra == BARE:
        transfer = KVTransferConfig(
            kv_connector="BareConnector", kv_connector_module_path="_vllm_bare", kv_role="kv_both"
        )
    elif extra is not None:
        from tiercel.connectors.vllm import TiercelConnector

        own.watch(TiercelConnector)
        transfer = KVTransferConfig(
            kv_connector="TiercelConnector",
            kv_connector_module_path="tiercel.connectors.vllm",
            kv_role="kv_both",
            kv_connector_extra_config=dict(extra),
        )
    engine: Any = LLMEngine.from_engine_args(
        EngineArgs(
            model=str(folder),
            load_format="dummy",
            skip_tokenizer_init=True,
            enforce_eager=True,
            dtype="float32",
            block_size=BLOCK_TOKENS,
            max_model_len=max_tokens,
            max_num_batched_tokens=1024,
            max_num_seqs=4,
            num_gpu_blocks_override=2 * (max_tokens // BLOCK_TOKENS) + 8,
            seed=0,
            kv_transfer_config=transfer,
        )
    )
    connection.send(None)
    number = 0
    while (asked := connection.recv()) is not None:
        prompt, keep = asked
        if not keep:
            engine.reset_prefix_cache()
        number += 1
        sampling = SamplingParams(temperature=0, max_tokens=1, ignore_eos=True, detokenize=False)
        connection.send(_run(engine, str(number), prompt, sampling, own if extra else None))
    engine.engine_core.shutdown()


def _run(engine: Any, name: str, prompt: list[int], sampling: Any, own: OwnTime | None) -> Sample:
    own_start = own.seconds() if own is not None else 0.0
    cpu_start, start = time.process_time(), time.perf_counter()
    engine.add_request(name, {"prompt_token_ids": prompt}, sampling)
    outputs: list[Any] = []
    while not outputs:
        outputs = engine.step()
    stop, cpu_stop = time.perf_counter(), time.process_time()
    deadline = stop + _SETTLE_S
    while own is not None and read_status(os.getpid()).tickets["running"]:
        assert time.perf_counter() < deadline, "transfers do not end"
        time.sleep(0.005)
    settled = time.process_time()
    own_s = 0.0
    if own is not None:
        own_s = own.seconds() - own_start
        engine.step()
    return Sample(
        ttft_s=stop - start,
        cpu_s=cpu_stop - cpu_start,
        settled_s=settled - cpu_start,
        own_s=own_s,
        cached_tokens=outputs[0].num_cached_tokens or 0,
    )
