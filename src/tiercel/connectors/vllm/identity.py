"""What makes an engine's KV blocks its own: the name that enters the fingerprint of every key.

Blocks are kept as the engine's attention backend laid them out, so beside the weights everything counts that decides those
bytes: configuration with its overrides, types, backend, layout, ranks, vLLM's minor version and, on CPUs, the instruction set.
Whoever names the weights with `model_id` vouches for these alone; the rest is still told apart.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_IGNORED = ("transformers_version", "_name_or_path")
"""Entries of a configuration that say nothing of the weights."""
_ROPE = ("rope_scaling", "rope_parameters")
_ROPE_BY_LENGTH = ("dynamic", "longrope", "'su'")


def engine_identity(vllm_config: Any, *, version: str, layer_name: str, layout: str, named: str | None) -> str:
    """Return the model's name and a digest of what decides its blocks' bytes.

    Args:
        version: vLLM's.
        layer_name: any of the layers that are kept; its attention backend is asked for.
        layout: how a block lies in the engine's memory.
        named: the user's name of the weights, instead of what is found out about them.
    """
    model = vllm_config.model_config
    parallel = vllm_config.parallel_config
    facts = _config_facts(model.hf_config)
    parts = {
        "config": facts,
        "dtype": str(model.dtype),
        "quantization": str(model.quantization),
        "kv_cache_dtype": str(vllm_config.cache_config.cache_dtype),
        "max_model_len": model.max_model_len if _rope_follows_length(facts) else None,
        "weights": named or _weights(vllm_config),
        "draft": _draft(vllm_config),
        "backend": _backend(vllm_config, layer_name),
        "layout": layout,
        "tensor_parallel_size": parallel.tensor_parallel_size,
        "vllm": ".".join(version.split(".")[:2]),
        "processor": _processor(vllm_config),
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
    name = named or Path(str(model.model)).name or str(model.model)
    return f"{name}@{digest[:16]}"


def _config_facts(config: Any) -> Mapping[str, object]:
    found = config.to_dict() if hasattr(config, "to_dict") else dict(vars(config))
    return {key: value for key, value in found.items() if key not in _IGNORED}


def _rope_follows_length(facts: object) -> bool:
    """Whether positions are scaled by the engine's longest sequence: vLLM takes the long or the short factors of longrope for
    all requests alike, by `max_model_len`. Multimodal models keep their text model's rope one level deeper."""
    if not isinstance(facts, Mapping):
        return False
    for key, value in facts.items():
        if key in _ROPE and any(kind in str(value) for kind in _ROPE_BY_LENGTH):
            return True
        if _rope_follows_length(value):
            return True
    return False


def _weights(vllm_config: Any) -> Mapping[str, object]:
    """Which weights these are: files by name, size and time, or a hub's name and commit, or an object store's address."""
    model, load = vllm_config.model_config, vllm_config.load_config
    load_format = str(getattr(load.load_format, "value", load.load_format))
    facts: dict[str, object] = {
        "model": str(model.model),
        "revision": getattr(model.hf_config, "_commit_hash", None) or model.revision,
        "code_revision": model.code_revision,
        "load_format": load_format,
        "extra": str(load.model_loader_extra_config),
    }
    if getattr(model, "model_weights", ""):
        facts["streamed"] = str(model.model_weights)
    if load_format == "dummy":
        return {**facts, "model": Path(str(model.model)).name, "seed": model.seed}
    place = Path(str(model.model))
    if place.exists():
        files = sorted(entry for entry in place.iterdir() if entry.suffix in _WEIGHTS) if place.is_dir() else [place]
        facts["model"] = place.resolve().name
        facts["files"] = [(entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in files]
    return facts


def _draft(vllm_config: Any) -> str | None:
    speculative = vllm_config.speculative_config
    if speculative is None:
        return None
    return f"{getattr(speculative, 'method', None)} {getattr(speculative, 'model', None)}"


def _backend(vllm_config: Any, layer_name: str) -> str:
    layer = vllm_config.compilation_config.static_forward_context.get(layer_name)
    get_backend = getattr(layer, "get_attn_backend", None)
    if get_backend is None:
        return type(layer).__name__
    backend = get_backend()
    return f"{backend.__module__}.{backend.__qualname__}"


def _processor(vllm_config: Any) -> str | None:
    """On CPUs backends order a block's elements by what the instruction set likes."""
    if str(vllm_config.device_config.device_type) != "cpu":
        return None
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return f"{torch.backends.cpu.get_cpu_capability()} amx={has_tiles}"
