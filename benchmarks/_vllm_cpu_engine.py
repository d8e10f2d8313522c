"""One real vLLM engine on the CPU in a process of its own, for `vllm_cpu.py`: asked for one request at a time, timed inside.

The engine's core runs in that process too, so its CPU seconds are everything that serving a request costs, transfers
included: a request's count until nothing of it is moved any more.
"""

# pyright: reportMissingImports=false
import json
import multiprocessing
import multiprocessing.connection
import os
import time
from collections.abc import Mapping
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
    """One request: seconds to its first token, CPU seconds to there, and to where nothing of it moves any more."""

    ttft_s: float
    cpu_s: float
    settled_s: float
    cached_tokens: int


class EngineProcess:
    """An engine, with a connector if `extra` names its settings. Use as a context manager."""

    def __init__(self, folder: Path, max_tokens: int, extra: Mapping[str, Any] | None) -> None:
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


def _serve(
    connection: multiprocessing.connection.Connection, folder: Path, max_tokens: int, extra: Mapping[str, Any] | None
) -> None:
    os.environ.update(_ENVIRONMENT)
    from vllm import EngineArgs, SamplingParams
    from vllm.config import KVTransferConfig
    from vllm.v1.engine.llm_engine import LLMEngine

    transfer = None
    if extra is not None:
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
        connection.send(_run(engine, str(number), prompt, sampling, settles=transfer is not None))
    engine.engine_core.shutdown()


def _run(engine: Any, name: str, prompt: list[int], sampling: Any, *, settles: bool) -> Sample:
    cpu_start, start = time.process_time(), time.perf_counter()
    engine.add_request(name, {"prompt_token_ids": prompt}, sampling)
    outputs: list[Any] = []
    while not outputs:
        outputs = engine.step()
    stop, cpu_stop = time.perf_counter(), time.process_time()
    deadline = stop + _SETTLE_S
    while settles and read_status(os.getpid()).tickets["running"]:
        assert time.perf_counter() < deadline, "transfers do not end"
        time.sleep(0.005)
    settled = time.process_time()
    if settles:
        engine.step()
    return Sample(
        ttft_s=stop - start,
        cpu_s=cpu_stop - cpu_start,
        settled_s=settled - cpu_start,
        cached_tokens=outputs[0].num_cached_tokens or 0,
    )
