"""An engine's arrays, checked against the geometry, and the copies that bring some of their layers into slots.

Used by `memory`, which is what others see.
"""

from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiercel.layout.arrays import EngineArray
from tiercel.layout.geometry import BlockGeometry
from tiercel.layout.pieces import Axis, Piece, compile_box

_AXIS_NAMES = ("layer", "kv", "block", "token", "head", "dim")
_CARRIERS = ("int", "uint", "void")


@dataclass(frozen=True)
class PlacedArray:
    """One array: of keys (part 0) or values (part 1), and of which layer; both 0 where an axis of it says so."""

    array: EngineArray
    part: int
    layer: int


@dataclass(frozen=True, kw_only=True)
class DescribedArrays:
    """All arrays of an engine's memory.

    Attributes:
        names: names of every array's axes in order.
        heads: [start, stop) of the geometry's heads that they hold.
        num_blocks: blocks that each of them holds.
    """

    geometry: BlockGeometry
    names: tuple[str, ...]
    heads: tuple[int, int]
    placed: tuple[PlacedArray, ...]
    num_blocks: int

    def pieces(self, layers: range) -> NDArray[np.int64]:
        """Compile the copies of neighbouring layers of a block, int64[num_pieces, 9]."""
        start, stop = self.heads
        sizes, slot = {**self.geometry.shape, "head": stop - start}, self.geometry.strides
        together = "layer" in self.names
        if together:
            sizes["layer"] = len(layers)
        pieces: list[Piece] = []
        for each in self.placed:
            if not together and each.layer not in layers:
                continue
            strides = dict(zip(self.names, each.array.strides, strict=True))
            first = layers.start if together else each.layer
            offset = first * slot["layer"] + each.part * slot["kv"] + start * slot["head"]
            address = each.array.address + (first * strides["layer"] if together else 0)
            axes = [Axis(size, strides[axis], slot[axis]) for axis, size in sizes.items() if axis in strides]
            block_stride = strides.get("block", strides["token"] * sizes["token"])
            pieces += compile_box(address, block_stride, offset, axes, each.array.element_bytes)
        return np.array(pieces, np.int64)


def axis_names(axes: str, geometry: BlockGeometry, has_values: bool, num_heads: int) -> tuple[str, ...]:
    """Return the axes that a text names. Raises ValueError if they do not fit the geometry, TypeError for no text."""
    if not isinstance(axes, str):
        raise TypeError(f"axes = {axes!r}: must be one text such as 'block token head dim'")
    names = tuple(axes.split())
    unknown = [name for name in names if name not in _AXIS_NAMES]
    if unknown or len(set(names)) != len(names):
        raise ValueError(f"axes = {axes!r}: must be some of {', '.join(_AXIS_NAMES)}, each once")
    required = {"token", "dim"}
    if num_heads > 1:
        required.add("head")
    if geometry.kv_parts == 2 and not has_values:
        required.add("kv")
    lacking = required - set(names)
    if lacking:
        raise ValueError(f"axes = {axes!r}: lacks {', '.join(sorted(lacking))}")
    if has_values and ("kv" in names or geometry.kv_parts == 1):
        reason = "axes names kv" if "kv" in names else "the geometry has one part (MLA)"
        raise ValueError(f"values: must be None, because {reason}")
    return names


def check_lists(keys: object, values: object) -> None:
    """Raise TypeError for arrays that were not given as lists; values may be None."""
    for name, given in (("keys", keys), ("values", [] if values is None else values)):
        if not isinstance(given, Sized):
            kind = "None" if given is None else f"a {type(given).__name__}"
            raise TypeError(f"{name}: must be a list of arrays, one for each layer or one for all of them, not {kind}")


def labelled_arrays(
    geometry: BlockGeometry, keys: Sequence[object], values: Sequence[object] | None, all_layers: bool
) -> Iterator[tuple[str, int, int, object]]:
    """Yield each array with its name for messages, its part (0 keys, 1 values) and its layer."""
    expected = 1 if all_layers else geometry.num_layers
    for name, part, arrays in (("keys", 0, keys), ("values", 1, values)):
        if arrays is None:
            continue
        if len(arrays) != expected:
            reason = "axes names layer" if all_layers else "one for each layer"
            raise ValueError(f"{name}: {len(arrays)} arrays, must be {expected} ({reason})")
        for layer, array in enumerate(arrays):
            yield f"{name}[{layer}]", part, layer, array


def checked_blocks(
    label: str, array: EngineArray, names: tuple[str, ...], geometry: BlockGeometry, sizes: Mapping[str, int]
) -> int:
    """Return how many blocks an array holds, having compared every axis with the geometry."""
    if len(array.shape) != len(names):
        raise ValueError(
            f"{label}: has {len(array.shape)} axes {array.shape}, must have {len(names)} ({' '.join(names)})"
        )
    same_type = array.dtype == geometry.dtype
    carrier = array.dtype.startswith(_CARRIERS) and array.element_bytes == geometry.element_bytes
    if not same_type and not carrier:
        raise ValueError(f"{label}: elements of {array.dtype}, must be {geometry.dtype} or integers of its width")
    found = dict(zip(names, array.shape, strict=True))
    for axis, size in sizes.items():
        if found.get(axis, size) != size and (axis != "token" or "block" in found):
            raise ValueError(f"{label}: axis {axis} has size {found[axis]}, must be {size}")
    return found["block"] if "block" in names else found["token"] // geometry.tokens_per_block
