"""Any layout -> slots -> any other layout gives what numpy's transposes give, and touches nothing else."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tiercel.layout import BlockGeometry, EngineMemory

LOGICAL = ("layer", "kv", "block", "token", "head", "dim")
CANARY = 251


@dataclass
class Engine:
    """An engine's arrays in some layout, beside views that show them in the logical order of axes."""

    memory: EngineMemory
    buffers: list[NDArray[Any]]
    views: list[tuple[tuple[Any, ...], NDArray[Any]]]

    def fill(self, data: NDArray[Any]) -> None:
        """Write logical data; the padding around it keeps the canary."""
        for where, view in self.views:
            view[...] = data[where]

    def read(self, data: NDArray[Any]) -> None:
        """Write what the engine holds into logical data."""
        for where, view in self.views:
            data[where] = view

    def padding(self) -> list[NDArray[Any]]:
        """All bytes, with the blocks' own set to the canary."""
        kept = [view.copy() for _, view in self.views]
        for _, view in self.views:
            view[...] = CANARY
        result = [buffer.copy() for buffer in self.buffers]
        for (_, view), content in zip(self.views, kept, strict=True):
            view[...] = content
        return result


@st.composite
def geometries(draw: st.DrawFn) -> BlockGeometry:
    """Small geometries of every width, with and without MLA."""
    mla = draw(st.booleans())
    return BlockGeometry(
        model_id="m",
        tokens_per_block=draw(st.sampled_from([1, 2, 4, 8])),
        num_layers=draw(st.integers(1, 3)),
        kv_parts=1 if mla else 2,
        num_kv_heads=1 if mla else draw(st.integers(1, 4)),
        head_size=draw(st.sampled_from([1, 3, 8, 16])),
        dtype=draw(st.sampled_from(["uint8", "float8_e4m3fn", "bfloat16", "float16", "float32", "float64"])),
        order=draw(st.sampled_from(["token_head", "head_token"])),
    )


@st.composite
def engines(draw: st.DrawFn, geometry: BlockGeometry, num_blocks: int, heads: tuple[int, int]) -> Engine:
    """An engine that holds some heads of each block, its axes in any order, padded, offset, stepped or reversed."""
    layered = draw(st.booleans())
    values_apart = geometry.kv_parts == 2 and draw(st.booleans())
    as_sequence = draw(st.booleans())
    axes = ["token", "dim"] + ([] if as_sequence else ["block"]) + (["layer"] if layered else [])
    if not values_apart and (geometry.kv_parts == 2 or draw(st.booleans())):
        axes.append("kv")
    if heads[1] - heads[0] > 1 or draw(st.booleans()):
        axes.append("head")
    axes = list(draw(st.permutations(axes)))
    sizes = {
        "layer": geometry.num_layers,
        "kv": geometry.kv_parts,
        "block": num_blocks,
        "token": geometry.tokens_per_block * (num_blocks if as_sequence else 1),
        "head": heads[1] - heads[0],
        "dim": geometry.head_size,
    }
    cuts = {axis: draw(st.sampled_from([(0, 1, 0), (0, 1, 0), (1, 1, 2), (0, 2, 0), (1, -1, 1)])) for axis in axes}
    carrier = np.dtype(f"u{geometry.element_bytes}")
    engine_arrays: list[list[NDArray[Any]]] = []
    engine = Engine(memory=None, buffers=[], views=[])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    for part in range(2 if values_apart else 1):
        engine_arrays.append([])
        for layer in range(1 if layered else geometry.num_layers):
            padded = tuple(low + sizes[axis] * abs(step) + high for axis, (low, step, high) in cuts.items())
            buffer = np.full(padded, CANARY, carrier)
            array = buffer[tuple(cut(low, step, sizes[axis]) for axis, (low, step, _) in cuts.items())]
            engine.buffers.append(buffer)
            engine_arrays[-1].append(array)
            where = (
                slice(None) if layered else layer,
                slice(None) if "kv" in axes else part,
                *(slice(None), slice(None)),
                slice(*heads) if "head" in axes else heads[0],
            )
            engine.views.append((where, in_logical_order(array, axes, geometry.tokens_per_block, as_sequence)))
    values = engine_arrays[1] if values_apart else None
    named = " ".join(axes)
    engine.memory = EngineMemory.from_arrays(geometry, engine_arrays[0], values, axes=named, head_range=heads)
    return engine


def cut(low: int, step: int, size: int) -> slice:
    """The slice that takes size elements from low on, stepping; backwards if step is negative."""
    if step > 0:
        return slice(low, low + size * step, step)
    return slice(low + size - 1, low - 1 if low else None, -1)


def in_logical_order(array: NDArray[Any], axes: list[str], tokens_per_block: int, as_sequence: bool) -> NDArray[Any]:
    """A view of an array with its axes in LOGICAL order; a sequence's tokens split into block and token."""
    names = list(axes)
    view = array
    if as_sequence:
        at = names.index("token")
        shape = (*view.shape[:at], view.shape[at] // tokens_per_block, tokens_per_block, *view.shape[at + 1 :])
        steps = (*view.strides[:at], view.strides[at] * tokens_per_block, view.strides[at], *view.strides[at + 1 :])
        view = np.lib.stride_tricks.as_strided(view, shape, steps)
        names[at : at + 1] = ["block", "token"]
    return view.transpose([names.index(axis) for axis in LOGICAL if axis in names])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[BlockGeometry, int, list[Engine], list[Engine], list[int], list[int], int]:
    """A geometry, a source and a target engine, each split over its own ranks, which blocks go where, and a seed."""
    geometry = draw(geometries())
    num_blocks = draw(st.integers(1, 4))
    sides: list[list[Engine]] = []
    for _ in range(2):
        split = draw(st.integers(1, geometry.num_kv_heads))
        ranges = [(0, split)] + ([(split, geometry.num_kv_heads)] if split < geometry.num_kv_heads else [])
        sides.append([draw(engines(geometry, num_blocks, heads)) for heads in ranges])
    moved = draw(st.integers(1, num_blocks))
    sources, targets = (list(draw(st.permutations(range(num_blocks))))[:moved] for _ in range(2))
    return geometry, num_blocks, sides[0], sides[1], sources, targets, draw(st.integers(0, 2**32 - 1))


@given(world=worlds())
@settings(max_examples=150, deadline=None)
def test_any_layout_into_slots_into_any_other_layout_equals_numpy(
    world: tuple[BlockGeometry, int, list[Engine], list[Engine], list[int], list[int], int],
) -> None:
    geometry, num_blocks, from_engines, to_engines, sources, targets, seed = world
    size = {"block": num_blocks, **geometry.shape}
    data = np.random.default_rng(seed).integers(0, 250, [size[axis] for axis in LOGICAL])
    data = data.astype(f"u{geometry.element_bytes}")
    slots = np.full((len(sources), geometry.block_bytes), CANARY, np.uint8)
    addresses = (slots.ctypes.data + np.arange(len(sources)) * geometry.block_bytes).astype(np.uint64)
    for engine in from_engines:
        engine.fill(data)
        engine.memory.blocks(sources).gather(addresses)
    in_slot = [LOGICAL.index(axis) for axis in ("block", *geometry.shape)]
    expected = np.ascontiguousarray(data.transpose(in_slot)[sources]).view(np.uint8).reshape(slots.shape)
    np.testing.assert_array_equal(slots, expected)

    before = [padding for engine in to_engines for padding in engine.padding()]
    for engine in to_engines:
        engine.memory.blocks(targets).scatter(addresses)
    landed = np.zeros_like(data)
    for engine in to_engines:
        engine.read(landed)
    wanted = np.full_like(data, CANARY)
    wanted[:, :, targets] = data[:, :, sources]
    np.testing.assert_array_equal(landed, wanted)
    after = [padding for engine in to_engines for padding in engine.padding()]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new, old)
