"""The engine's KV memory: whole-sequence buffers that the model writes and reads in place.

A buffer holds the keys and values of one sequence, preallocated, [layers, heads, tokens, head_dim]. `transformers`
sees it as a `Cache`: each layer's update lands in the buffer and attention reads views of it, so what Tiercel loads
into the buffer is what attention reads, without another copy.

On a CUDA device Tiercel reaches a pinned host mirror of the buffer, and `fetch` and `publish` copy between the two.
That is simple rather than fast: it is how an engine without device transfers works.
"""

# torch and transformers are an extra; types are checked with and without them.
# pyright: reportMissingImports=false

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache as ModelCache
from transformers.cache_utils import CacheLayerMixin

from tiercel import BlockGeometry, EngineBlocks, EngineMemory


@dataclass(frozen=True, kw_only=True)
class BufferShape:
    """What a buffer holds. num_tokens is a multiple of the engine's chunk."""

    num_layers: int
    num_heads: int
    num_tokens: int
    head_dim: int
    dtype: torch.dtype


class _Cursor:
    """Where the next tokens of a buffer are written; shared by the layers of one buffer."""

    position = 0


class _BufferLayer(CacheLayerMixin):
    """One layer of a buffer, as `transformers` wants it."""

    is_sliding = False

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, cursor: _Cursor) -> None:
        super().__init__()
        self._keys, self._values, self._cursor = keys, values, cursor

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing is lazy here."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        start = self._cursor.position
        stop = start + key_states.shape[-2]
        self._keys[:, :, start:stop] = key_states
        self._values[:, :, start:stop] = value_states
        return self._keys[:, :, :stop], self._values[:, :, :stop]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._cursor.position + query_length, 0

    def get_seq_length(self) -> int:
        return self._cursor.position

    def get_max_length(self) -> int:
        return int(self._keys.shape[-2])


class SequenceBuffer:
    """Keys and values of one sequence, in one allocation each.

    Attributes:
        keys, values: [layers, heads, tokens, head_dim] on the engine's device.
        model_cache: the same memory as `transformers` takes it (`past_key_values`).
    """

    def __init__(self, shape: BufferShape, device: torch.device) -> None:
        sizes = (shape.num_layers, shape.num_heads, shape.num_tokens, shape.head_dim)
        self.keys = torch.zeros(sizes, dtype=shape.dtype, device=device)
        self.values = torch.zeros(sizes, dtype=shape.dtype, device=device)
        self._cursor = _Cursor()
        self.model_cache = ModelCache(
            layers=[_BufferLayer(k[None], v[None], self._cursor) for k, v in zip(self.keys, self.values, strict=True)]
        )
        staged = device.type != "cpu"
        self._host_keys = torch.zeros(sizes, dtype=shape.dtype, pin_memory=True) if staged else self.keys
        self._host_values = torch.zeros(sizes, dtype=shape.dtype, pin_memory=True) if staged else self.values
        self._staged = staged
        self._memory: EngineMemory | None = None

    @property
    def num_tokens(self) -> int:
        """Capacity in tokens."""
        return int(self.keys.shape[2])

    def seek(self, position: int) -> None:
        """Let the model's next tokens be written from `position` on, seeing only the tokens before it."""
        self._cursor.position = position

    def blocks(self, geometry: BlockGeometry, start: int, stop: int) -> EngineBlocks:
        """Blocks [start, stop) as Tiercel's source or target; block j is tokens [j, j + 1) * tokens_per_block."""
        if self._memory is None:
            keys, values = list(self._host_keys), list(self._host_values)
            self._memory = EngineMemory.from_arrays(geometry, keys=keys, values=values, axes="head token dim")
        return self._memory.blocks(range(start, stop))

    def fetch(self, start: int, stop: int) -> None:
        """Bring tokens [start, stop) from the host mirror to the device. Nothing to do on the CPU."""
        if self._staged:
            self.keys[:, :, start:stop].copy_(self._host_keys[:, :, start:stop])
            self.values[:, :, start:stop].copy_(self._host_values[:, :, start:stop])

    def publish(self, start: int, stop: int) -> None:
        """Bring tokens [start, stop) from the device to the host mirror. Nothing to do on the CPU."""
        if self._staged:
            self._host_keys[:, :, start:stop].copy_(self.keys[:, :, start:stop])
            self._host_values[:, :, start:stop].copy_(self.values[:, :, start:stop])

    def copy_from(self, other: "SequenceBuffer", num_tokens: int) -> None:
        """Take over the first tokens of another buffer."""
        self.keys[:, :, :num_tokens] = other.keys[:, :, :num_tokens]
        self.values[:, :, :num_tokens] = other.values[:, :, :num_tokens]

    def block_bytes(self, start: int, stop: int) -> bytes:
        """Bytes of the KV of tokens [start, stop): keys of every layer, then values. For checks, not for transfers."""
        parts = [t[:, :, start:stop].contiguous().cpu().view(torch.uint8).numpy() for t in (self.keys, self.values)]
        return b"".join(part.tobytes() for part in parts)
