"""From vLLM's configuration and KV tensors to the `ModelConfig` that a cache is opened for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tiercel import BlockGeometry, ModelConfig
from tiercel.connectors.vllm.facts import whole_group
from tiercel.connectors.vllm.identity import engine_identity
from tiercel.connectors.vllm.pages import page_layout, page_shape
from tiercel.connectors.vllm.settings import ConnectorSettings


@dataclass(frozen=True, kw_only=True)
class ModelBlocks:
    """What a cache is opened for. All ranks of an engine say the same.

    Attributes:
        model: with one "head" for each share, where there are several: the share's whole page.
        geometry: of a block of all shares, each in runs of its own.
    """

    model: ModelConfig
    geometry: BlockGeometry


def num_shares(vllm_config: Any, kv_cache_config: Any) -> int:
    """Return into how many different parts ranks split a block. Ranks beyond that hold what others hold: all of them the one
    latent of MLA, and several the same head where there are fewer heads than ranks."""
    if "MLA" in type(whole_group(kv_cache_config).kv_cache_spec).__name__:
        return 1
    num_ranks = int(vllm_config.parallel_config.tensor_parallel_size)
    return 1 if num_ranks == 1 else min(num_ranks, int(vllm_config.model_config.get_total_num_kv_heads()))


def describe_model(
    vllm_config: Any,
    kv_cache_config: Any,
    layers: Sequence[tuple[str, torch.Tensor]],
    settings: ConnectorSettings,
    version: str,
) -> ModelBlocks:
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
    shares = num_shares(vllm_config, kv_cache_config)
    kv_parts, heads, head_size = page_shape(
        layout,
        tokens_per_block=settings.cache.tokens_per_block,
        num_heads=1 if shares > 1 else int(getattr(spec, "num_kv_heads", 1)),
        is_latent="MLA" in type(spec).__name__,
    )
    identity = engine_identity(
        vllm_config, version=version, layer_name=name, layout=layout.name, named=settings.model_id
    )
    model = ModelConfig(
        model_id=identity,
        weights_epoch=settings.weights_epoch,
        num_layers=len(layers),
        num_kv_heads=shares if shares > 1 else heads,
        head_size=head_size,
        dtype=str(tensor.dtype),
        use_mla=kv_parts == 1,
    )
    geometry = BlockGeometry.from_model(
        model, tokens_per_block=settings.cache.tokens_per_block, order="head_token" if shares > 1 else "token_head"
    )
    return ModelBlocks(model=model, geometry=geometry)
