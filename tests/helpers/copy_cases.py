"""Random engine memories on any device, with what a gather and a scatter of some of their blocks must give.

The reference is numpy: an engine's arrays in the logical order of axes, transposed into slot format. The same cases run over
numpy arrays in every test run and over CUDA tensors on a GPU machine. A case is a function of its seed.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiercel.layout import BlockGeometry, EngineBlocks, EngineMemory
from tiercel.tiers.base import BlockMemory

LOGICAL = ("layer", "kv", "block", "token", "head", "dim")
POISON = 0xEE
LAYOUTS = {
    "apart, token first": "block token head dim",
    "apart, head first": "block head token dim",
    "apart, one sequence": "head token dim",
    "together, kv first": "kv block token head dim",
    "together, block first": "block kv token head dim",
    "one tensor, layer first": "layer kv block token head dim",
    "one tensor, block first": "block layer kv head token dim",
    "mla": "block token dim",
}
DTYPES = {"uint8": 1, "float8_e4m3fn": 1, "bfloat16": 2, "float16": 2, "float32": 4}


@dataclass
class CopyCase:
    """An engine's arrays as bytes with poison around them, and which of its blocks move.

    Attributes:
        buffers: uint8 memory of each array, padding included.
        views: each buffer's array, in the order of `axes`.
        where: the part of the logical data that each view holds.
    """

    geometry: BlockGeometry
    axes: tuple[str, ...]
    heads: tuple[int, int]
    num_blocks: int
    values_apart: bool
    ids: NDArray[np.int64]
    buffers: list[NDArray[np.uint8]] = field(default_factory=list)
    views: list[NDArray[Any]] = field(default_factory=list)
    where: list[tuple[Any, ...]] = field(default_factory=list)

    def memory(self, device: str) -> "PlacedMemory":
        """Put the arrays on a device."""
        return PlacedMemory(self, device)

    def logical(self) -> NDArray[Any]:
        """What the arrays hold in the LOGICAL order of axes; heads that they do not hold are zero."""
        size = {"block": self.num_blocks, **self.geometry.shape}
        data = np.zeros([size[axis] for axis in LOGICAL], f"u{self.geometry.element_bytes}")
        for view, where in zip(self.views, self.where, strict=True):
            data[where] = self._in_order(view)
        return data

    def put(self, data: NDArray[Any]) -> None:
        """Write logical data into the arrays."""
        for view, where in zip(self.views, self.where, strict=True):
            self._in_order(view)[...] = data[where]

    def slots(self, data: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The moved blocks in slot format, uint8[blocks, block_bytes], and which of those bytes this memory holds."""
        order = [LOGICAL.index(axis) for axis in ("block", *self.geometry.shape)]
        held = np.zeros(data.shape, data.dtype)
        held[:, :, :, :, slice(*self.heads)] = np.iinfo(data.dtype).max

        def flat(array: NDArray[Any]) -> NDArray[np.uint8]:
            moved = np.ascontiguousarray(array.transpose(order)[self.ids])
            return moved.reshape(len(self.ids), -1).view(np.uint8)

        return flat(data), flat(held) == 255

    def _in_order(self, view: NDArray[Any]) -> NDArray[Any]:
        names = list(self.axes)
        if "block" not in names:
            at = names.index("token")
            tokens = self.geometry.tokens_per_block
            view = view.reshape(*view.shape[:at], view.shape[at] // tokens, tokens, *view.shape[at + 1 :], copy=False)
            names[at : at + 1] = ["block", "token"]
        return view.transpose([names.index(axis) for axis in LOGICAL if axis in names])


class PlacedMemory:
    """A case's arrays on a device."""

    def __init__(self, case: CopyCase, device: str) -> None:
        self._case = case
        self._device = device
        self._on_device: list[Any] = []
        arrays: list[Any] = list(case.views)
        if device != "cpu":
            import torch  # pyright: ignore[reportMissingImports]

            self._on_device = [torch.from_numpy(buffer).to(device) for buffer in case.buffers]
            arrays = [self._as_tensor(buffer, view) for buffer, view in zip(self._on_device, arrays, strict=True)]
        half = len(arrays) // 2 if case.values_apart else len(arrays)
        self.memory = EngineMemory.from_arrays(
            case.geometry,
            arrays[:half],
            arrays[half:] if case.values_apart else None,
            axes=" ".join(case.axes),
            head_range=case.heads,
        )

    def blocks(self) -> EngineBlocks:
        """The blocks that move."""
        return self.memory.blocks(self._case.ids)

    def upload(self) -> None:
        """Bring the case's arrays to the device."""
        if not self._on_device:
            return
        import torch  # pyright: ignore[reportMissingImports]

        for there, here in zip(self._on_device, self._case.buffers, strict=True):
            there.copy_(torch.from_numpy(here))

    def download(self) -> None:
        """Bring the device's arrays, padding included, to the case."""
        for there, here in zip(self._on_device, self._case.buffers, strict=bool(self._on_device)):
            here[...] = there.cpu().numpy()

    def _as_tensor(self, buffer: Any, view: NDArray[Any]) -> Any:
        import torch  # pyright: ignore[reportMissingImports]

        size = view.itemsize
        case_buffer = self._case.buffers[next(i for i, own in enumerate(self._case.views) if own is view)]
        offset = view.ctypes.data - case_buffer.ctypes.data
        typed = buffer[offset % size :]
        typed = typed[: len(typed) // size * size].view(getattr(torch, self._case.geometry.dtype))
        return typed.as_strided(view.shape, [step // size for step in view.strides], offset // size)


def random_case(seed: int, layout: str, *, large: bool = False) -> CopyCase:
    """Return a case; `large` ones fill many of a kernel's tiles."""
    rng = np.random.default_rng(seed)
    names = tuple(LAYOUTS[layout].split())
    mla, apart = layout == "mla", layout.startswith("apart")
    dtype = str(rng.choice(list(DTYPES)))
    num_heads = 1 if mla else int(rng.choice([1, 2, 4, 8]))
    geometry = BlockGeometry(
        model_id="m",
        tokens_per_block=int(rng.choice([16, 32] if large else [1, 4, 16])),
        num_layers=int(rng.integers(1, 5)),
        kv_parts=1 if mla else 2,
        num_kv_heads=num_heads,
        head_size=int(rng.choice([64, 128, 576] if large else [1, 3, 8, 64, 128])),
        dtype=dtype,
        order=str(rng.choice(["token_head", "head_token"])),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    )
    start = int(rng.integers(0, num_heads)) if rng.random() < 0.4 else 0
    stop = int(rng.integers(start + 1, num_heads + 1)) if start else num_heads
    num_blocks = int(rng.integers(20, 60) if large else rng.integers(1, 12))
    ids = rng.permutation(num_blocks)[: rng.integers(1, num_blocks + 1)].astype(np.int64)
    case = CopyCase(geometry, names, (start, stop), num_blocks, apart, ids)
    _add_arrays(case, rng)
    return case


def shard_case(seed: int, layout: str) -> CopyCase:
    """Return a random case of a tensor-parallel rank, which holds some of the heads."""
    cases = (random_case(1000 * seed + attempt, layout) for attempt in range(1000))
    return next(case for case in cases if case.heads[1] - case.heads[0] < case.geometry.num_kv_heads)


def shards_of_one(seed: int, num_ranks: int) -> list[CopyCase]:
    """Return the ranks' shares of random blocks, each in a layout of its own; all move the same blocks."""
    rng = np.random.default_rng(seed)
    first = random_case(seed, str(rng.choice([name for name in LAYOUTS if name != "mla"])))
    heads_a_rank = int(rng.integers(1, 4))
    geometry = replace(first.geometry, num_kv_heads=num_ranks * heads_a_rank)
    names = [str(rng.choice([name for name in LAYOUTS if name != "mla"])) for _ in range(num_ranks)]
    cases = []
    for rank, name in enumerate(names):
        heads = (rank * heads_a_rank, (rank + 1) * heads_a_rank)
        axes = tuple(LAYOUTS[name].split())
        case = CopyCase(geometry, axes, heads, first.num_blocks, name.startswith("apart"), first.ids)
        _add_arrays(case, rng)
        cases.append(case)
    return cases


def vector_case(num_blocks: int) -> CopyCase:
    """Return a case of blocks of 16 bytes each, one vector of the kernel, all of which move."""
    geometry = BlockGeometry(
        model_id="m", tokens_per_block=1, num_layers=1, kv_parts=1, num_kv_heads=1, head_size=16, dtype="uint8"
    )
    rng = np.random.default_rng(num_blocks)
    ids = rng.permutation(num_blocks).astype(np.int64)
    case = CopyCase(geometry, ("block", "token", "dim"), (0, 1), num_blocks, False, ids)
    _add_arrays(case, rng, padded=False)
    return case


def _add_arrays(case: CopyCase, rng: np.random.Generator, *, padded: bool = True) -> None:
    geometry, names = case.geometry, case.axes
    size = {**geometry.shape, "block": case.num_blocks, "head": case.heads[1] - case.heads[0]}
    if "block" not in names:
        size["token"] *= case.num_blocks
    carrier = np.dtype(f"u{geometry.element_bytes}")
    one_tensor = "layer" in names
    for part in range(2 if case.values_apart else 1):
        for layer in range(1 if one_tensor else geometry.num_layers):
            shape = [size[axis] for axis in names]
            gap = int(rng.choice([0, 0, 1, 4])) if padded else 0
            room = [*shape[:-1], shape[-1] + gap]
            head, count = int(rng.choice([0, 16, carrier.itemsize])) if padded else 0, int(np.prod(room))
            buffer = np.full(head + count * carrier.itemsize + 32, POISON, np.uint8)
            view = buffer[head : head + count * carrier.itemsize].view(carrier).reshape(room)[..., : shape[-1]]
            view[...] = rng.integers(0, np.iinfo(carrier).max, shape, carrier, endpoint=True)
            case.buffers.append(buffer)
            case.views.append(view)
            case.where.append(
                (
                    slice(None) if one_tensor else layer,
                    slice(None) if "kv" in names else part,
                    *(slice(None), slice(None)),
                    slice(*case.heads) if "head" in names else case.heads[0],
                )
            )


def check_gather(case: CopyCase, reached: BlockMemory, slots: NDArray[np.uint8], offset: int = 0) -> None:
    """Gather into poisoned slots, uint8[slots, stride], and compare every byte, what must stay untouched included."""
    slots[...] = POISON
    reached.gather(addresses_of(slots, case, offset))
    content, held = case.slots(case.logical())
    expected = np.full_like(slots[: len(case.ids)], POISON)
    width = content.shape[1]
    expected[:, offset : offset + width] = np.where(held, content, POISON)
    np.testing.assert_array_equal(slots[: len(case.ids)], expected)
    assert (slots[len(case.ids) :] == POISON).all()


def check_scatter(case: CopyCase, placed: PlacedMemory, reached: BlockMemory, slots: NDArray[np.uint8]) -> None:
    """Scatter random slots into poisoned arrays and compare every byte of them, padding and other blocks included."""
    for buffer in case.buffers:
        buffer[...] = POISON
    expected = case.logical()
    slots[...] = np.random.default_rng(len(case.ids)).integers(0, 256, slots.shape, np.uint8)
    content, _ = case.slots(expected)
    order = ["block", *case.geometry.shape]
    moved = np.ascontiguousarray(slots[: len(case.ids), : content.shape[1]]).view(expected.dtype)
    moved = moved.reshape(len(case.ids), *case.geometry.shape.values())
    expected[:, :, case.ids] = moved.transpose([order.index(axis) for axis in LOGICAL])
    case.put(expected)
    wanted = [buffer.copy() for buffer in case.buffers]
    for buffer in case.buffers:
        buffer[...] = POISON
    placed.upload()
    reached.scatter(addresses_of(slots, case))
    placed.download()
    for buffer, want in zip(case.buffers, wanted, strict=True):
        np.testing.assert_array_equal(buffer, want)


def check_layers(
    case: CopyCase, placed: PlacedMemory, reach: Callable[[EngineBlocks], BlockMemory], slots: NDArray[np.uint8]
) -> None:
    """Gather and scatter part of the layers at a time: each touches its own bytes, and together they are the block."""
    rng, num_layers = np.random.default_rng(len(case.ids)), case.geometry.num_layers
    cuts = sorted({0, num_layers, *(int(cut) for cut in rng.integers(0, num_layers, 2))})
    parts = [placed.blocks().layers(start, stop) for start, stop in pairwise(cuts)]
    addresses, layer_bytes = addresses_of(slots, case), case.geometry.block_bytes // num_layers
    slots[...] = POISON
    reach(placed.blocks()).gather(addresses)
    whole = slots.copy()
    for part, (start, stop) in zip(parts, pairwise(cuts), strict=True):
        slots[...] = POISON
        reach(part).gather(addresses)
        expected = np.full_like(slots, POISON)
        mine = slice(start * layer_bytes, stop * layer_bytes)
        expected[:, mine] = whole[:, mine]
        np.testing.assert_array_equal(slots, expected)
    slots[...] = rng.integers(0, 256, slots.shape, np.uint8)
    scattered = []
    for views in ([placed.blocks()], parts):
        for buffer in case.buffers:
            buffer[...] = POISON
        placed.upload()
        for view in views:
            reach(view).scatter(addresses)
        placed.download()
        scattered.append([buffer.copy() for buffer in case.buffers])
    for together, apart in zip(*scattered, strict=True):
        np.testing.assert_array_equal(together, apart)


def addresses_of(slots: NDArray[np.uint8], case: CopyCase, offset: int = 0) -> NDArray[np.uint64]:
    """Address of each moved block's slot, `offset` bytes into the rows of `slots`."""
    return (slots.ctypes.data + np.arange(len(case.ids)) * slots.strides[0] + offset).astype(np.uint64)


def bytes_at(address: int, num_bytes: int) -> NDArray[np.uint8]:
    """A view of memory, which the caller keeps alive."""
    return np.frombuffer(memoryview((ctypes.c_uint8 * num_bytes).from_address(address)).cast("B"), np.uint8)


def slot_stride(case: CopyCase) -> int:
    """Bytes from a slot to the next, whole pages, with room behind the block for an offset."""
    return -(-(case.geometry.block_bytes + 64) // 4096) * 4096
