"""A real vLLM engine with random weights, driven request by request and watched from its front end.

Weights are random but of a size at which every output token depends on the KV before it, so that wrong KV shows as wrong tokens.
Time to first token is the wall clock of the front end's process from `add_request` to the step that brings the token: no HTTP,
no tokenizer. vllm and torch are imported only here, and only when an `Engine` is made.
"""

import itertools
import json
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.request import urlopen

from _vllm_scale import Scale
from prometheus_client import REGISTRY

_RESET_TRIES = 50
_POLL_S = 0.0002
_SETTLE_S = 0.03  # longer than a step of a request's end, which begins its last store
_SHORT_PROMPT = [10, 11, 12, 13]  # no whole block: nothing is cached of it
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "VLLM_WORKER_MULTIPROC_METHOD": "fork",  # the engine's process inherits the loader registered below
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A request: prompt tokens and how many to generate."""

    prompt: list[int]
    max_tokens: int = 1


@dataclass(kw_only=True)
class Sample:
    """What one request showed. Times in seconds of one clock; cached tokens as vLLM's own statistics report them."""

    num_prompt_tokens: int
    started_s: float
    token_times_s: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    num_local: int | None = None
    num_external: int | None = None
    late_s: float = 0.0

    @property
    def ttft_s(self) -> float:
        return self.token_times_s[0] - self.started_s

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """The stretches between one token and the next."""
        return list(itertools.pairwise(self.token_times_s))


class Engine:
    """One engine in a process of its own. Not for threads; `close` ends it."""

    def __init__(
        self, scale: Scale, transfer_config: dict[str, Any] | None, folder: Path, *, load_format: str = "seeded"
    ) -> None:
        os.environ.update(_ENVIRONMENT | scale.environment)
        settings = (transfer_config or {}).get("kv_connector_extra_config", {})
        self._metrics_port: int | None = settings.get("metrics_port")
        from vllm import LLM  # pyright: ignore[reportMissingImports]
        from vllm.model_executor.model_loader import register_model_loader  # pyright: ignore[reportMissingImports]

        register_model_loader("seeded")(_seeded_loader())
        write_model(scale, folder)
        started = time.perf_counter()
        options: dict[str, Any] = {"kv_transfer_config": transfer_config} if transfer_config else {}
        self._llm = LLM(
            model=str(folder),
            load_format=load_format,
            skip_tokenizer_init=True,
            dtype="bfloat16",
            max_model_len=scale.max_model_tokens,
            max_num_batched_tokens=scale.max_batched_tokens,
            max_num_seqs=64,
            num_gpu_blocks_override=scale.num_gpu_blocks,
            block_size=scale.block_tokens,
            enable_prefix_caching=True,
            disable_log_stats=False,
            seed=0,
            **(scale.engine_options | options),
        )
        self.start_s = time.perf_counter() - started
        self._engine = self._llm.llm_engine
        self._ids = itertools.count()
        self._cached: dict[str, tuple[int, int]] = {}
        self._watch_prefills()

    def describe(self) -> dict[str, Any]:
        """vLLM's version and what it chose."""
        import torch
        import vllm  # pyright: ignore[reportMissingImports]

        config = self._engine.vllm_config
        return {
            "vllm": vllm.__version__,
            "torch": torch.__version__,
            "model_runner_v2": bool(getattr(config, "use_v2_model_runner", False)),
            "async_scheduling": bool(config.scheduler_config.async_scheduling),
            "compilation_mode": str(config.compilation_config.mode),
            "num_gpu_blocks": config.cache_config.num_gpu_blocks,
            "start_s": round(self.start_s, 1),
        }

    def one(self, prompt: list[int], max_tokens: int = 1) -> Sample:
        """Run one request alone."""
        return self.run([Job(prompt=prompt, max_tokens=max_tokens)])[0]

    def run(self, jobs: Sequence[Job], arrival: tuple[int, Job] | None = None) -> list[Sample]:
        """Run requests together until all are done.

        Args:
            arrival: A further request, added as soon as every other one has generated that many tokens; its sample comes last.
        """
        samples = [self._add(job) for job in jobs]
        running = dict(samples)
        while self._engine.has_unfinished_requests():
            self._step(running)
            if arrival is not None and all(len(sample.tokens) >= arrival[0] for _, sample in samples):
                late = self._add(arrival[1])
                running[late[0]] = late[1]
                arrival = None
        for name, sample in running.items():
            sample.num_local, sample.num_external = self._cached.pop(name, (None, None))
        return list(running.values())

    def run_timed(self, jobs: Sequence[tuple[float, Job]], *, time_limit_s: float) -> list[Sample]:
        """Add each request when it is due and run until all are done.

        Args:
            jobs: (seconds from now, request), ascending.
            time_limit_s: Requests that are due later are left out.

        Returns:
            A sample of each request that was added, in their order. `started_s` is when it was due.
        """
        due = deque(job for job in jobs if job[0] <= time_limit_s)
        began_s = time.perf_counter()
        running: dict[str, Sample] = {}
        while due or self._engine.has_unfinished_requests():
            while due and time.perf_counter() - began_s >= due[0][0]:
                due_s, job = due.popleft()
                name, sample = self._add(job)
                sample.late_s = sample.started_s - began_s - due_s
                sample.started_s = began_s + due_s
                running[name] = sample
            if not self._has_output():
                time.sleep(_POLL_S)
                continue
            self._step(running)
        for name, sample in running.items():
            sample.num_local, sample.num_external = self._cached.pop(name, (None, None))
        return list(running.values())

    def _has_output(self) -> bool:
        """Whether a step brings something at once. An engine in this very process has no queue: a step computes."""
        queue = getattr(self._engine.engine_core, "outputs_queue", None)
        return self._engine.has_unfinished_requests() if queue is None else not queue.empty()

    def _step(self, running: dict[str, Sample]) -> None:
        outputs = cast("Sequence[Any]", self._engine.step())
        now = time.perf_counter()
        for output in outputs:
            tokens = output.outputs[0].token_ids
            sample = running[output.request_id]
            sample.tokens.extend(tokens)
            sample.token_times_s.extend([now] * len(tokens))

    def settle(self, timeout_s: float = 5.0) -> bool:
        """Wait until Tiercel moves nothing any more. Returns whether that was so before the timeout."""
        if getattr(self._engine.engine_core, "outputs_queue", None) is None:
            self.one(_SHORT_PROMPT)  # what a finished request leaves to do is begun by the next step
        deadline_s = time.perf_counter() + timeout_s
        while time.perf_counter() < deadline_s:
            time.sleep(_SETTLE_S)
            if not any(value for name, value in self.counters().items() if name.startswith("tiercel_tickets{")):
                return True
        return False

    def evict_gpu(self, *, and_connector: bool = False) -> None:
        """Drop what the engine itself caches, and nothing else. Waits for stores that still hold blocks.

        Args:
            and_connector: Let the connector forget everything, too.

        Raises:
            RuntimeError: Blocks stayed in use.
        """
        for _ in range(_RESET_TRIES):
            if self._llm.reset_prefix_cache(reset_connector=and_connector):
                return
            self.one(_SHORT_PROMPT)  # an engine in this very process moves only while it has a request
            time.sleep(0.05)
        raise RuntimeError(f"blocks of the engine were still in use after {_RESET_TRIES * 0.05:.1f} s")

    def counters(self) -> dict[str, float]:
        """What is counted of the connector now: vLLM's counters by name, summed over labels, and Tiercel's with their labels."""
        found: dict[str, float] = {}
        for metric in REGISTRY.collect():  # vLLM's own snapshot cuts counters to whole numbers, seconds too
            for sample in metric.samples:
                if "offload" in sample.name and sample.name.endswith(("_total", "_sum")):
                    found[sample.name] = found.get(sample.name, 0.0) + sample.value
        if self._metrics_port is not None:
            with urlopen(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=5) as page:
                lines = page.read().decode().splitlines()
            samples = (line.rpartition(" ") for line in lines if line.startswith("tiercel_") and "_bucket{" not in line)
            found |= {name: float(value) for name, _, value in samples}
        return found

    def _add(self, job: Job) -> tuple[str, Sample]:
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]
        from vllm.inputs import tokens_input  # pyright: ignore[reportMissingImports]
        from vllm.sampling_params import RequestOutputKind  # pyright: ignore[reportMissingImports]

        name = f"r{next(self._ids)}"
        parameters = SamplingParams(
            max_tokens=job.max_tokens,
            temperature=0,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        inputs = tokens_input(job.prompt)
        sample = Sample(num_prompt_tokens=len(job.prompt), started_s=time.perf_counter())
        self._engine.add_request(name, inputs, parameters)
        return name, sample

    def _watch_prefills(self) -> None:
        """Note each request's cached tokens as the engine reports them: the outputs that users get have only their sum."""
        processor: Any = self._engine.output_processor
        process: Callable[..., Any] = processor.process_outputs

        def process_and_note(outputs: Sequence[Any], *arguments: Any, **keywords: Any) -> Any:
            for output in outputs:
                if output.prefill_stats is not None:
                    stats = output.prefill_stats
                    cached = stats.num_local_cached_tokens, stats.num_external_cached_tokens
                    self._cached[output.request_id.partition("-")[0]] = cached  # vLLM appends "-" and a random part
            return process(outputs, *arguments, **keywords)

        processor.process_outputs = process_and_note


def write_model(scale: Scale, folder: Path) -> None:
    """Write the `config.json` of a Llama of the scale's shape."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = scale.shape
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **asdict(shape),
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }
    (folder / "config.json").write_text(json.dumps(config))


def _seeded_loader() -> type:
    """A model loader of vLLM's that makes up weights: norms 1, all else uniform with a spread of 2.24 over sqrt(width)."""
    import torch
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader  # pyright: ignore[reportMissingImports]

    class SeededLoader(BaseModelLoader):
        def download_model(self, model_config: Any) -> None:
            pass

        def load_weights(self, model: Any, model_config: Any) -> None:
            limit = 2.24 / model_config.get_hidden_size() ** 0.5
            for number, (name, weight) in enumerate(model.named_parameters()):
                generator = torch.Generator(device=weight.device).manual_seed(1234 + number)
                with torch.no_grad():
                    if "norm" in name:
                        weight.fill_(1.0)
                    else:
                        weight.uniform_(-limit, limit, generator=generator)

    return SeededLoader
