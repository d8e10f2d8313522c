"""Load or build the embedded engine's model, and make it compute the same bits every time.

A folder with weights is loaded; one with only a `config.json` is built with seeded random weights, which is enough to
show a KV cache: its cost and its bytes do not depend on what the weights have learnt.
"""

# torch and transformers are an extra; types are checked with and without them.
# pyright: reportMissingImports=false

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from tiercel.connectors.transformers.buffers import BufferShape
from tiercel.connectors.transformers.tokenizer import ByteTokenizer, Tokenizer

_WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model ready to run.

    Attributes:
        description: architecture and size in words, for people.
        max_tokens: longest sequence that its positions allow.
    """

    model: PreTrainedModel
    tokenizer: Tokenizer
    description: str
    max_tokens: int

    @property
    def device(self) -> torch.device:
        return self.model.device

    def buffer_shape(self, num_tokens: int) -> BufferShape:
        """Shape of a KV buffer for this model with room for num_tokens."""
        config = self.model.config
        heads = config.num_attention_heads
        return BufferShape(
            num_layers=config.num_hidden_layers,
            num_heads=getattr(config, "num_key_value_heads", None) or heads,
            num_tokens=num_tokens,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            dtype=self.model.dtype,
        )


def load_model(directory: Path, *, device: str = "cpu", seed: int = 0, num_threads: int | None = None) -> LoadedModel:
    """Load a local model folder, or build its architecture with random weights when it has none.

    Sets process-wide torch state: threads, deterministic algorithms, no gradients. Never reaches a network.

    Args:
        directory: folder with a `config.json`; weights and a tokenizer are used when they are there.
        device: a torch device; on CUDA start the process with CUBLAS_WORKSPACE_CONFIG=:4096:8, which torch asks for.
        seed: of the random weights.
        num_threads: threads of one operator on the CPU; None: what torch finds.

    Raises:
        ValueError: the folder has no config, or its model keeps other KV than full keys and values in every layer.
    """
    _be_deterministic(num_threads)
    if not (directory / "config.json").is_file():
        raise ValueError(f"{directory} has no config.json; give a folder in the Hugging Face format")
    config = AutoConfig.from_pretrained(directory, local_files_only=True)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or getattr(config, "kv_lora_rank", None):
        raise ValueError(f"{directory}: the embedded engine runs models whose layers all keep full keys and values")
    model: Any  # transformers' own types of `to` and `from_config` do not hold
    if any(next(directory.glob(pattern), None) for pattern in _WEIGHT_FILES):
        model = AutoModelForCausalLM.from_pretrained(
            directory, local_files_only=True, dtype="auto", attn_implementation="sdpa"
        )
        weights = "weights of the folder"
    else:
        torch.manual_seed(seed)
        dtype = getattr(config, "dtype", None) or torch.float32
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
        weights = f"random weights of seed {seed}"
    model = model.eval().to(device)
    return LoadedModel(
        model=model,
        tokenizer=_load_tokenizer(directory),
        description=f"{type(model).__name__}, {_size(model)}, {str(model.dtype).removeprefix('torch.')}, {weights}",
        max_tokens=int(config.max_position_embeddings),
    )


def _be_deterministic(num_threads: int | None) -> None:
    # A fixed number of threads also stops MKL from choosing another one under load: its sums would be split otherwise.
    torch.set_num_threads(num_threads or torch.get_num_threads())
    torch.use_deterministic_algorithms(True)
    torch.set_grad_enabled(False)


def _size(model: PreTrainedModel) -> str:
    num_parameters = sum(p.numel() for p in model.parameters())
    return f"{model.config.num_hidden_layers} layers, {num_parameters / 1e6:.1f} M parameters"


class _FolderTokenizer:
    """The tokenizer of a model folder; marks are plain text to it."""

    def __init__(self, directory: Path) -> None:
        self._inner = AutoTokenizer.from_pretrained(directory, local_files_only=True)

    def encode(self, mark: str, text: str) -> NDArray[np.int32]:
        return np.asarray(self._inner.encode(mark + text, add_special_tokens=False), dtype=np.int32)


def _load_tokenizer(directory: Path) -> Tokenizer:
    if any((directory / name).is_file() for name in _TOKENIZER_FILES):
        return _FolderTokenizer(directory)
    return ByteTokenizer()
