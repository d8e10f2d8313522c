"""From vLLM's KV tensors to `EngineMemory`, whatever order an attention backend keeps them in.

What one block is in one layer's memory is that layer's *page*. Backends order a page's elements as their kernels like
(heads before tokens, K beside V, tiles of a matrix unit, scales between elements), and they change it between versions; only
whole blocks are ever moved, so a page is taken as the bytes that it is. All that must be known is where pages begin and that
they have no holes, and both are read from shapes and strides:

| axes of the tensor | pages |
|---|---|
| block first, the rest dense | one run a block |
| K or V first, then block | two runs a block |
| kernel blocks smaller than vLLM's blocks | as many of them as a block has, which must adjoin |
| blocks of all layers together | one run a block and layer; `EngineMemory` joins those that adjoin |

How the elements of a page are ordered enters the identity of the blocks (`PageLayout.name`), not their description.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tiercel import BlockGeometry, ConfigError, EngineMemory

_BLOCKS_MIN = 3
"""Fewer blocks could be taken for the axis of K and V."""


@dataclass(frozen=True, kw_only=True)
class PageLayout:
    """How one layer's tensor keeps its pages. All numbers count elements.

    Attributes:
        num_parts: runs of a page: 1, or 2 where K and V lie apart.
        part_size: elements of a run.
        part_stride: between the runs of a page.
        block_stride: between neighbouring pages.
        name: the order of elements within a page.
    """

    num_parts: int
    part_size: int
    part_stride: int
    block_stride: int
    name: str


def distinct_layers(layer_names: Sequence[str], kv_caches: Mapping[str, Any]) -> list[tuple[str, torch.Tensor]]:
    """Return the layers that have a KV cache of their own, in order; some models let layers share one.

    Raises:
        ConfigError: a layer has none, or another thing than a tensor.
    """
    seen: set[tuple[object, ...]] = set()
    layers: list[tuple[str, torch.Tensor]] = []
    for name in layer_names:
        tensor = kv_caches.get(name)
        if not isinstance(tensor, torch.Tensor):
            raise ConfigError(
                f"layer {name}: its KV cache is {type(tensor).__name__}, no tensor; run without TiercelConnector"
            )
        place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        if place not in seen:
            seen.add(place)
            layers.append((name, tensor))
    return layers


def page_layout(name: str, tensor: torch.Tensor, num_blocks: int) -> PageLayout:
    """Read one layer's layout from its tensor.

    Raises:
        ConfigError: the tensor does not hold num_blocks pages without holes.
    """
    shape, stride = tuple(tensor.shape), tensor.stride()
    at = _block_axis(name, shape, num_blocks)
    ratio = shape[at] // num_blocks
    inner = [(size, step) for axis, (size, step) in enumerate(zip(shape, stride, strict=True)) if axis != at]
    if ratio > 1:
        inner.append((ratio, stride[at]))
    part_size, apart = 1, list[tuple[int, int]]()
    for size, step in sorted(((s, t) for s, t in inner if s > 1), key=lambda axis: axis[1]):
        if step == part_size:
            part_size *= size
        else:
            apart.append((size, step))
    if len(apart) > 1 or math.prod(size for size, _ in apart) > 2:
        raise ConfigError(
            f"layer {name}: a block of its KV cache has holes (shape {shape}, strides {stride}); this layout is not known to "
            f"TiercelConnector, choose another attention backend"
        )
    num_parts, part_stride = apart[0] if apart else (1, 0)
    order = " ".join(f"{size}:{step}" for size, step in inner if not apart or (size, step) != apart[0])
    return PageLayout(
        num_parts=num_parts,
        part_size=part_size,
        part_stride=part_stride,
        block_stride=stride[at] * ratio,
        name=f"{num_parts} x {order}",
    )


def _block_axis(name: str, shape: tuple[int, ...], num_blocks: int) -> int:
    if num_blocks < _BLOCKS_MIN:
        raise ConfigError(f"vLLM's KV cache has {num_blocks} blocks; TiercelConnector needs at least {_BLOCKS_MIN}")
    if len(shape) > 1 and shape[0] == 2 and shape[1] % num_blocks == 0:
        return 1
    if shape and shape[0] >= num_blocks and shape[0] % num_blocks == 0:
        return 0
    raise ConfigError(
        f"layer {name}: no axis of its KV cache's shape {shape} counts the {num_blocks} blocks; run without TiercelConnector"
    )


def map_memory(
    geometry: BlockGeometry,
    layers: Sequence[tuple[str, torch.Tensor]],
    num_blocks: int,
    num_threads: int,
    *,
    heads: tuple[int, int] | None = None,
) -> EngineMemory:
    """Describe the engine's KV memory for a cache of that geometry, which `page_shape` decided.

    Args:
        heads: [start, stop) of the geometry's heads that the pages hold; all by default.

    Raises:
        ConfigError: the layers differ in their pages' sizes.
        ValueError: the tensors do not fit the geometry.
    """
    layouts = [page_layout(name, tensor, num_blocks) for name, tensor in layers]
    first = layouts[0]
    for (name, _), layout in zip(layers, layouts, strict=True):
        if (layout.num_parts, layout.part_size, layout.name) != (first.num_parts, first.part_size, first.name):
            raise ConfigError(
                f"layer {name}: its blocks differ from those of layer {layers[0][0]}, which is not supported"
            )
    start, stop = heads or (0, geometry.num_kv_heads)
    parts = [
        [
            _part_view(geometry, stop - start, tensor, layout, num_blocks, part)
            for (_, tensor), layout in zip(layers, layouts, strict=True)
        ]
        for part in range(first.num_parts)
    ]
    axes = "block token head dim"
    if first.num_parts < geometry.kv_parts:
        axes = "block kv token head dim"
    values = parts[1] if first.num_parts == 2 else None
    return EngineMemory.from_arrays(
        geometry, parts[0], values, axes=axes, head_range=(start, stop), num_threads=num_threads
    )


def page_shape(layout: PageLayout, *, tokens_per_block: int, num_heads: int, is_latent: bool) -> tuple[int, int, int]:
    """Return parts, heads and head size of a block whose elements are as many as a page's.

    Raises:
        ConfigError: a page's elements do not divide among its tokens.
    """
    kv_parts = 1 if is_latent and layout.num_parts == 1 else 2
    heads = 1 if is_latent else num_heads
    total = layout.num_parts * layout.part_size
    if total % (kv_parts * heads * tokens_per_block):
        kv_parts, heads = layout.num_parts, 1
    head_size, rest = divmod(total, kv_parts * heads * tokens_per_block)
    if rest:
        raise ConfigError(f"a block of {tokens_per_block} tokens has {total} elements, which do not divide among them")
    return kv_parts, heads, head_size


def _part_view(
    geometry: BlockGeometry, heads: int, tensor: torch.Tensor, layout: PageLayout, num_blocks: int, part: int
) -> torch.Tensor:
    """One run of each page under the axes that the geometry has, in the order of the bytes."""
    tokens, dim = geometry.tokens_per_block, geometry.head_size
    size, stride = [tokens, heads, dim], [heads * dim, dim, 1]
    if layout.num_parts < geometry.kv_parts:
        size, stride = [geometry.kv_parts, *size], [layout.part_size // geometry.kv_parts, *stride]
    offset = tensor.storage_offset() + part * layout.part_stride
    return torch.as_strided(tensor, [num_blocks, *size], [layout.block_stride, *stride], offset)
