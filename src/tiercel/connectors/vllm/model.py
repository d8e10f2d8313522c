"""From vLLM's configuration and KV tensors to the `ModelConfig` that a cache is opened for."""

from collections.abc import Sequence
from typing import Any

import torch

from tiercel import ModelConfig
from tiercel.connectors.vllm.facts import whole_group
from tiercel.connectors.vllm.identity import engine_identity
from tiercel.connectors.vllm.pages import page_layout, page_shape
from tiercel.connectors.vllm.settings import ConnectorSettings


def describe_model(
    vllm_config: Any,
    kv_cache_config: Any,
    layers: Sequence[tuple[str, torch.Tensor]],
    settings: ConnectorSettings,
    version: str,
) -> ModelConfig:
    """Return the model as a cache sees it: heads and sizes as vLLM tells them, as far as a page's bytes bear them out.

    Args:
        layers: those with a KV cache of their own, by name.
        version: vLLM's.

    Raises:
        ConfigError: the model or its memory cannot be kept.
    """
    spec = whole_group(kv_cache_config).kv_cache_spec
    name, tensor = layers[0]
    layout = page_layout(name, tensor, kv_cache_config.num_blocks)
    kv_parts, heads, head_size = page_shape(
        layout,
        tokens_per_block=settings.cache.tokens_per_block,
        num_heads=int(getattr(spec, "num_kv_heads", 1)),
        is_latent="MLA" in type(spec).__name__,
    )
    identity = engine_identity(
        vllm_config, version=version, layer_name=name, layout=layout.name, named=settings.model_id
    )
    return ModelConfig(
        model_id=identity,
        weights_epoch=settings.weights_epoch,
        num_layers=len(layers),
        num_kv_heads=heads,
        head_size=head_size,
        dtype=str(tensor.dtype),
        use_mla=kv_parts == 1,
    )
