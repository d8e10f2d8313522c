"""The demo's own model: a small Qwen3 with grouped queries, over bytes, with random weights made from a seed."""

import json
from pathlib import Path
from typing import Any, Final

CONFIG: Final[dict[str, Any]] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 262,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "dtype": "float32",
}
"""A `config.json` in the Hugging Face format. vocab_size is the byte tokenizer's."""


def write_demo_model(directory: Path) -> Path:
    """Write the model's folder, a `config.json` without weights, and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(CONFIG, indent=2))
    return directory
