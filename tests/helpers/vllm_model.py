"""A Llama small enough for tests whose every output depends on the KV behind it. Needs torch and safetensors.

vLLM's own dummy weights are so small that any KV gives the same tokens, and they cannot be scaled afterwards, because the
CPU's kernels keep them in a form of their own. So the weights are written to a file, at a size at which attention decides.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SMALL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""As Hugging Face's `config.json` has it."""

SPECIAL_TOKENS = 3
"""Prompts take their tokens from here on."""

_ATTENTION_SCALE = 2.0
_LOGITS_SCALE = 3.0


def write_model(folder: Path, config: Mapping[str, Any] = SMALL, *, seed: int = 1) -> Path:
    """Write a model with seeded random weights into a folder, and return it."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    dtype = getattr(torch, config["torch_dtype"])

    def matrix(rows: int, columns: int, scale: float = 1.0) -> Any:
        return (torch.randn(rows, columns, generator=generator) * scale * columns**-0.5).to(dtype)

    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    query = config["num_attention_heads"] * config["head_dim"]
    key = config["num_key_value_heads"] * config["head_dim"]
    weights = {
        "model.embed_tokens.weight": matrix(vocabulary, hidden, hidden**0.5),
        "model.norm.weight": torch.ones(hidden, dtype=dtype),
        "lm_head.weight": matrix(vocabulary, hidden, _LOGITS_SCALE),
    }
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        weights |= {
            f"{prefix}self_attn.q_proj.weight": matrix(query, hidden, _ATTENTION_SCALE),
            f"{prefix}self_attn.k_proj.weight": matrix(key, hidden, _ATTENTION_SCALE),
            f"{prefix}self_attn.v_proj.weight": matrix(key, hidden, _ATTENTION_SCALE),
            f"{prefix}self_attn.o_proj.weight": matrix(hidden, query, _ATTENTION_SCALE),
            f"{prefix}mlp.gate_proj.weight": matrix(inner, hidden),
            f"{prefix}mlp.up_proj.weight": matrix(inner, hidden),
            f"{prefix}mlp.down_proj.weight": matrix(hidden, inner),
            f"{prefix}input_layernorm.weight": torch.ones(hidden, dtype=dtype),
            f"{prefix}post_attention_layernorm.weight": torch.ones(hidden, dtype=dtype),
        }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(dict(config)))
    return folder
