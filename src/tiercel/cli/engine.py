"""What `simulate`, `replay` and `prove` are told of a model and of its engine: the same options, read in the same way."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter

from tiercel.errors import ConfigError

if TYPE_CHECKING:
    from tiercel.config import ModelConfig
    from tiercel.tune.simulate import EngineFacts, PrefillSource

_PREFILLS = ("prefill", "prefill_from", "gpu_rate")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """The model, and the engine that runs it.

    Attributes:
        model: the model's config.json, or its folder: blocks have its size.
        dtype: element type of the KV cache, where it is not that of the weights.
        prefill: a JSON file of measured prefills, {"points": [[cached tokens, computed tokens, seconds], ...]}, or of a
            curve, {"fixed_s": ..., "token_s": ..., "token_pair_s": ...}.
        prefill_from: a running cache whose learnt curve is taken: process id, socket or cache directory.
        gpu_rate: operations a second of one GPU in the weights' type, 989e12 for example: prefill by arithmetic.
        efficiency: share of that rate which prefill reaches; 0.5 by default.
        gpu_kv: GPU memory of the engine's own KV cache over all its GPUs, "40GiB" for example.
        decode_ms: milliseconds between two tokens that a request generates.
        step_tokens: tokens that one step of the engine computes at most, of all its requests together: vLLM's
            max_num_batched_tokens, for example. Without it prompts are computed one after the other.
        replicas: engines that share the cache.
        store_output: whether blocks that are generated are stored, too.
        speedup: requests arrive this many times faster than in the trace.
    """

    model: Path
    dtype: str | None = None
    prefill: Path | None = None
    prefill_from: str | None = None
    gpu_rate: float | None = None
    efficiency: float | None = None
    gpu_kv: str | None = None
    decode_ms: float | None = None
    step_tokens: int | None = None
    replicas: int = 1
    store_output: bool = True
    speedup: float = 1.0

    def read_model(self, *, tp_size: int = 1) -> "ModelConfig":
        """Read the model's facts. Raises ConfigError."""
        from tiercel.config import ModelConfig

        return ModelConfig.from_model(self.model, dtype=self.dtype, tp_size=tp_size)

    def facts(self, model: "ModelConfig") -> "EngineFacts":
        """Return what is known of the engine.

        Raises:
            ConfigError: not exactly one source of prefill times is given, or a value is out of range.
            StatusError: the cache of `prefill_from` does not answer.
            OSError: a file cannot be read.
        """
        from tiercel.tune.simulate import EngineFacts

        if self.decode_ms is not None and not 0 <= self.decode_ms < float("inf"):
            raise ConfigError(f"decode-ms = {self.decode_ms:g}: must be 0 or more milliseconds")
        if self.step_tokens is not None and self.step_tokens < 1:
            raise ConfigError(f"step-tokens = {self.step_tokens}: must be at least 1; leave it out for no steps")
        return EngineFacts(
            prefill=self._prefill_source(model),
            decode_token_s=None if self.decode_ms is None else self.decode_ms / 1e3,
            kv_bytes=self.gpu_kv,
            replicas=self.replicas,
            stores_output=self.store_output,
            step_tokens=self.step_tokens or 0,
        )

    def _prefill_source(self, model: "ModelConfig") -> "PrefillSource":
        from tiercel.tune.simulate import prefill_of_cache, prefill_of_file, prefill_of_model

        given = [name.replace("_", "-") for name in _PREFILLS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ConfigError(
                f"prefill, prefill-from, gpu-rate: {' and '.join(given) or 'none'} given; give one: a file of measured "
                f"prefills, a running cache that has learnt them, or a GPU's operations a second"
            )
        if self.efficiency is not None and self.gpu_rate is None:
            raise ConfigError(
                f"efficiency = {self.efficiency:g}: is a share of gpu-rate, and {given[0]} was given; leave it out"
            )
        if self.prefill is not None:
            return prefill_of_file(self.prefill)
        if self.prefill_from is not None:
            target = self.prefill_from
            return prefill_of_cache(int(target) if target.isdecimal() else Path(target))
        assert self.gpu_rate is not None, "one of the three was given"
        if self.efficiency is None:
            return prefill_of_model(self.model, model, gpu_flops=self.gpu_rate)
        return prefill_of_model(self.model, model, gpu_flops=self.gpu_rate, efficiency=self.efficiency)
