"""Facts of a KV cache from a Hugging Face config.json: read, never guessed.

A fact that the file leaves to its model class is taken from `_CLASS_FACTS` where published files leave it out; any
other missing fact is an error that names the key. Only JSON is read: no network, no transformers, no code of the
model.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from tiercel.config.cacheless import require_kv_cache
from tiercel.config.dtypes import dtype_name
from tiercel.config.layers import LayerGroup, read_groups
from tiercel.config.messages import problem
from tiercel.errors import ConfigError

Source = str | os.PathLike[str] | Mapping[str, object]

LAYERS_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HEADS_KEYS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
HIDDEN_KEYS = ("hidden_size", "n_embd", "d_model", "n_embed")
_HEAD_SIZE = ("attention_head_dim", "head_dim", "kv_channels")
_NESTED = ("text_config", "llm_config", "language_config", "thinker_config")

_CLASS_FACTS: Mapping[str, Mapping[str, object]] = {
    "falcon": {"multi_query": True},
    "gpt_bigcode": {"multi_query": True},
    "gemma2": {"head_dim": 256, "sliding_window_pattern": 2},
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window_pattern": 6,
    },
    "cohere2": {"sliding_window_pattern": 4},
    "recurrent_gemma": {"attention_window_size": 2048, "block_types": ["recurrent", "recurrent", "attention"]},
}
COUNT_MAX = 2**20
"""Most layers, heads or elements that are believed: lists are made of them."""

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


class ModelFacts(TypedDict):
    """The arguments of ModelConfig that a config.json decides."""

    num_layers: int
    num_kv_heads: int
    head_size: int
    dtype: str
    use_mla: bool
    layer_groups: tuple[LayerGroup, ...]


def read_model(source: Source, *, dtype: object = None) -> tuple[ModelFacts, str]:
    """Return the facts of a model's KV cache and a name for its weights ("" where the source has none).

    Raises:
        ConfigError: the file cannot be read or lacks a fact.
    """
    if isinstance(source, Mapping):
        return _facts(source, dtype), str(source.get("_name_or_path") or "")
    path, content, outer = read_content(source)
    return _facts(outer, dtype), _weights_name(path, content)


def read_content(source: str | os.PathLike[str]) -> tuple[Path, bytes, dict[str, object]]:
    """Return the path of a model's config.json, its bytes and what they say. source: the file, or its folder.

    Raises:
        ConfigError: it cannot be read, or holds no JSON object.
    """
    path = Path(source)
    path = path / "config.json" if path.is_dir() else path
    try:
        content = path.read_bytes()
        outer = json.loads(content)
    except OSError as error:
        raise ConfigError(
            f"model config {str(path)!r}: {error.strerror}; name the folder that holds config.json"
        ) from error
    except ValueError as error:
        raise ConfigError(f"model config {str(path)!r}: not JSON ({error}); name a Hugging Face config.json") from error
    if not isinstance(outer, dict):
        raise ConfigError(f"model config {str(path)!r}: must hold one JSON object; name a Hugging Face config.json")
    return path, content, outer


def _weights_name(path: Path, content: bytes) -> str:
    """Name weights by their folder and a digest that changes whenever a weights file is replaced."""
    digest = hashlib.sha256(content)
    for entry in sorted(path.parent.iterdir()):
        if entry.suffix in _WEIGHTS:
            found = entry.stat()
            digest.update(f"\n{entry.name} {found.st_size} {found.st_mtime_ns}".encode())
    return f"{path.parent.resolve().name}@{digest.hexdigest()[:16]}"


def _facts(outer: Mapping[str, object], dtype: object) -> ModelFacts:
    text = text_facts(outer)
    if text.get("is_encoder_decoder"):
        raise problem("is_encoder_decoder", True, "must be false", "Tiercel stores the KV of decoder-only models")
    require_kv_cache(text)
    if isinstance(text.get("block_configs"), list):
        raise ConfigError("block_configs: layers of different KV shapes are for a later version; run without Tiercel")
    num_layers = count_of(text, LAYERS_KEYS)
    use_mla = text.get("kv_lora_rank") is not None
    return ModelFacts(
        num_layers=num_layers,
        num_kv_heads=1 if use_mla else kv_heads_of(text),
        head_size=_latent_size(text) if use_mla else head_size_of(text),
        dtype=_dtype(outer, text, dtype),
        use_mla=use_mla,
        layer_groups=read_groups(text, num_layers),
    )


def text_facts(outer: Mapping[str, object]) -> dict[str, object]:
    """The facts of the language model, found in multimodal models and completed by its class."""
    for key in _NESTED:
        nested = outer.get(key)
        if isinstance(nested, Mapping):
            return text_facts(nested)
    attention = outer.get("attn_config")  # MPT, DBRX
    kv_heads = attention.get("kv_n_heads") if isinstance(attention, Mapping) else None
    given = {key: value for key, value in outer.items() if value is not None}
    extra = {} if kv_heads is None else {"num_key_value_heads": kv_heads}
    return {**_CLASS_FACTS.get(str(outer.get("model_type")), {}), **extra, **given}


def kv_heads_of(text: Mapping[str, object]) -> int:
    """Return the KV heads of one layer."""
    heads = count_of(text, HEADS_KEYS)
    if "multi_query_attention" in text or "multi_query_group_num" in text:  # ChatGLM
        return count_of(text, ("multi_query_group_num",)) if text.get("multi_query_attention") else heads
    if text.get("multi_query") and not text.get("new_decoder_architecture"):  # Falcon 7B, GPT-BigCode
        return 1
    return count_of(text, _KV_HEADS) if any(key in text for key in _KV_HEADS) else heads


def head_size_of(text: Mapping[str, object]) -> int:
    """Return the elements of one head."""
    if any(key in text for key in _HEAD_SIZE):
        size = count_of(text, _HEAD_SIZE)
    else:
        hidden, heads = count_of(text, HIDDEN_KEYS), count_of(text, HEADS_KEYS)
        if hidden % heads:
            raise problem("head_dim", None, f"is missing, and hidden size {hidden} is no multiple of {heads} heads",
                          "add head_dim to the config.json")  # fmt: skip
        size = hidden // heads
    value_size = text.get("v_head_dim", size)
    if value_size != size:
        raise problem("v_head_dim", value_size, f"must equal the key's head size, {size}",
                      "keys and values of different sizes are for a later version")  # fmt: skip
    return size


def _latent_size(text: Mapping[str, object]) -> int:
    return count_of(text, ("kv_lora_rank",)) + count_of(text, ("qk_rope_head_dim",))


def _dtype(outer: Mapping[str, object], text: Mapping[str, object], chosen: object) -> str:
    if chosen is not None:
        return dtype_name("dtype", chosen)
    for facts in (text, outer):
        for key in ("dtype", "torch_dtype"):
            if facts.get(key) is not None:
                return dtype_name(key, facts[key])
    raise ConfigError(
        'dtype: the config.json has neither dtype nor torch_dtype; pass dtype="bfloat16" or what the engine uses'
    )


def count_of(text: Mapping[str, object], names: tuple[str, ...]) -> int:
    """Return the first of these keys that the facts hold, a positive integer."""
    for key in names:
        value = text.get(key)
        if value is None:
            continue
        if isinstance(value, list):
            raise problem(
                key, value, "differs by layer, which is for a later version", "run this model without Tiercel"
            )
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= COUNT_MAX:
            raise problem(key, value, f"must be an integer, 1 to {COUNT_MAX}", "correct the config.json")
        return value
    raise ConfigError(
        f"{names[0]}: missing from the config.json (also looked for {', '.join(names[1:]) or 'nothing else'}); "
        "add it, or pass what transformers' AutoConfig makes of it: from_model(config.to_dict(), model_id=...)"
    )
