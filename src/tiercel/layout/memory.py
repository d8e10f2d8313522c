"""An engine's KV memory, described by the strides of its arrays, as blocks that a tier can copy from and to.

Made by connectors; handed to `transfer`, which passes `EngineBlocks` on to the tiers (`tiers.base.BlockMemory`). Memory on a
GPU is described here just the same; who copies it is `transfer.devices`' business.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from tiercel._native import CopyProgram
from tiercel.layout.arrays import HOST_DEVICE, EngineArray, engine_array
from tiercel.layout.events import check_event, event_handle
from tiercel.layout.geometry import BlockGeometry
from tiercel.layout.pieces import Axis, Piece, compile_box

_PAGE_BYTES = 4096
_AXIS_NAMES = ("layer", "kv", "block", "token", "head", "dim")
_CARRIERS = ("int", "uint", "void")


@final
class EngineMemory:
    """The blocks of an engine's KV cache in host or GPU memory, or one tensor-parallel rank's share of each.

    Keeps the arrays alive. Thread-safe; whether the engine reads or writes a block meanwhile is the caller's business.
    """

    def __init__(
        self,
        geometry: BlockGeometry,
        pieces: NDArray[np.int64],
        *,
        num_blocks: int,
        arrays: Sequence[EngineArray],
        num_threads: int,
    ) -> None:
        """Take compiled pieces; use `from_arrays`."""
        self.geometry = geometry
        self.pieces = pieces
        self.num_blocks = num_blocks
        self.num_threads = num_threads
        self.device = arrays[0].device
        self.writable = all(array.writable for array in arrays)
        self.holds_whole_blocks = int((pieces[:, 3] * pieces[:, 6] * pieces[:, 8]).sum()) == geometry.block_bytes
        self.program = CopyProgram(pieces, geometry.block_bytes)
        self._arrays = tuple(arrays)

    @classmethod
    def from_arrays(
        cls,
        geometry: BlockGeometry,
        keys: Sequence[object],
        values: Sequence[object] | None = None,
        *,
        axes: str,
        head_range: tuple[int, int] | None = None,
        num_threads: int = 1,
    ) -> "EngineMemory":
        """Describe an engine's arrays.

        | arrays | axes |
        |---|---|
        | one per layer, keys and values apart | "block token head dim", "block head token dim" |
        | one per layer, of one sequence, blocks being its consecutive tokens | "head token dim", "token head dim" |
        | one per layer, K and V together | "kv block token head dim", "block kv token head dim" |
        | one for all layers | "layer kv block token head dim", "block layer kv token head dim" |
        | one per layer, MLA | "block token dim" |

        Args:
            geometry: the format of a slot.
            keys: the arrays: one per layer, or a single one if `axes` names layer.
            values: the same for values; None if `axes` names kv, and for MLA.
            axes: names of every array's axes in order, out of layer, kv, block, token, head and dim. Without block, the
                token axis is the sequence, and its last tokens that fill no block are left out. Without head, one head.
            head_range: [start, stop) of the geometry's heads that this memory holds; all by default.
            num_threads: threads that copy, if the arrays lie in host memory.

        Raises:
            ValueError: an array does not fit the geometry (the message names the axis and both sizes), or the arrays lie on
                several devices.
            TypeError: something is no array, or `axes` is no text.
        """
        start, stop = (0, geometry.num_kv_heads) if head_range is None else head_range
        if not 0 <= start < stop <= geometry.num_kv_heads:
            raise ValueError(f"head_range = {head_range}: must lie in [0, {geometry.num_kv_heads}] and hold a head")
        names = _axis_names(axes, geometry, values is not None, stop - start)
        sizes, slot = {**geometry.shape, "head": stop - start}, geometry.strides
        arrays: list[EngineArray] = []
        pieces: list[Piece] = []
        counts: dict[str, int] = {}
        for label, part, layer, array in _labelled(geometry, keys, values, "layer" in names):
            described = engine_array(array)
            counts[label] = _checked_blocks(label, described, names, geometry, sizes)
            offset = layer * slot["layer"] + part * slot["kv"] + start * slot["head"]
            pieces += _array_pieces(described, names, sizes, slot, offset)
            arrays.append(described)
        devices = sorted({array.device for array in arrays})
        if len(devices) > 1:
            raise ValueError(f"the arrays lie on {' and '.join(devices)}: describe each device's memory by itself")
        num_blocks = min(counts.values())
        odd = next((label for label, count in counts.items() if count != num_blocks), None)
        if odd is not None:
            raise ValueError(f"{odd}: holds {counts[odd]} blocks, another array {num_blocks}; all must hold the same")
        return cls(geometry, np.array(pieces, np.int64), num_blocks=num_blocks, arrays=arrays, num_threads=num_threads)

    @property
    def block_address(self) -> tuple[int, int] | None:
        """Host address of block 0 and bytes between blocks, if each block lies writable and page-aligned in slot format."""
        if self.device != HOST_DEVICE:
            return None
        address, stride, *_, run = (int(number) for number in self.pieces[0])
        whole = len(self.pieces) == 1 and run == self.geometry.block_bytes
        aligned = address % _PAGE_BYTES == 0 and stride % _PAGE_BYTES == 0
        return (address, stride) if whole and aligned and self.writable else None

    def blocks(self, ids: Sequence[int] | NDArray[np.integer], *, after: object | None = None) -> "EngineBlocks":
        """Return blocks by their numbers, in that order.

        Args:
            ids: numbers in [0, num_blocks); without repetition if they are to be loaded into.
            after: in GPU memory, an event of the engine's stream (a recorded torch.cuda.Event, or a CUevent as a number)
                before which the blocks are neither read nor written. None: the engine is done with them already.

        Raises:
            ValueError: a number is out of range, ids has more than one axis, or the event does not fit.
            TypeError: ids are no integers, or after is no event.
        """
        numbers = np.asarray(ids)
        if numbers.size and numbers.dtype.kind not in "iu":
            raise TypeError(f"block ids of {numbers.dtype}: must be integers")
        if numbers.ndim != 1:
            raise ValueError(f"block ids with {numbers.ndim} axes: must have one")
        if numbers.size and not (int(numbers.min()) >= 0 and int(numbers.max()) < self.num_blocks):
            bad = next(int(number) for number in numbers if not 0 <= number < self.num_blocks)
            raise ValueError(f"block id {bad}: must lie in [0, {self.num_blocks})")
        if after is not None:
            check_event(after, self.device)
        return EngineBlocks(self, np.array(numbers, np.int64), after)


@final
class EngineBlocks:
    """Some blocks of an `EngineMemory`; a `tiers.base.BlockMemory`."""

    __slots__ = ("_after", "_ids", "_memory")

    def __init__(self, memory: EngineMemory, ids: NDArray[np.int64], after: object | None = None) -> None:
        """Take checked numbers; use `EngineMemory.blocks`."""
        self._memory = memory
        self._ids = ids
        self._after = after

    @property
    def memory(self) -> EngineMemory:
        """The memory that they are blocks of."""
        return self._memory

    @property
    def num_blocks(self) -> int:
        """Number of blocks."""
        return len(self._ids)

    @property
    def ids(self) -> NDArray[np.int64]:
        """Their numbers in the engine's memory."""
        return self._ids

    @property
    def after_event(self) -> int:
        """The CUevent to wait for before they are touched, 0 for none. It lives as long as these blocks."""
        return 0 if self._after is None else event_handle(self._after)

    @property
    def are_distinct(self) -> bool:
        """Whether no block is named twice: only then can they be loaded into."""
        ids = self._ids
        return bool((ids[1:] > ids[:-1]).all()) or len(np.unique(ids)) == len(ids)

    @property
    def addresses(self) -> NDArray[np.uint64] | None:
        """Where each block lies, uint64[num_blocks], if each lies page-aligned and whole in slot format, else None."""
        where = self._memory.block_address
        return None if where is None else (where[0] + self._ids * where[1]).astype(np.uint64)

    def gather(self, targets: NDArray[np.uint64]) -> None:
        """Copy every block to its target address, in slot format. Blocks; releases the GIL.

        A memory that holds some of the heads writes only their share of each target.

        Raises:
            ValueError: not one target for each block, or the memory lies on a GPU.
        """
        self._require_reach(targets)
        self._memory.program.gather(self._ids, targets, self._memory.num_threads)

    def scatter(self, sources: NDArray[np.uint64]) -> None:
        """Copy every block from its source address, in slot format. Blocks; releases the GIL.

        Raises:
            ValueError: not one source for each block, or the memory lies on a GPU, is read-only or stands for several
                elements at once.
        """
        self._require_reach(sources)
        if not self._memory.writable:
            raise ValueError("the engine's memory is read-only, or a broadcast array: it cannot be loaded into")
        self._memory.program.scatter(self._ids, sources, self._memory.num_threads)

    def slice(self, start: int, stop: int) -> "EngineBlocks":
        """Return the blocks [start, stop), without copying."""
        return EngineBlocks(self._memory, self._ids[start:stop], self._after)

    def _require_reach(self, addresses: NDArray[np.uint64]) -> None:
        if self._memory.device != HOST_DEVICE:
            raise ValueError(f"memory on {self._memory.device} is not reached from here: give it to a cache")
        if len(addresses) != len(self._ids):
            raise ValueError(f"{len(addresses)} addresses for {len(self._ids)} blocks: must be one each")


def _axis_names(axes: str, geometry: BlockGeometry, has_values: bool, num_heads: int) -> tuple[str, ...]:
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


def _labelled(
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


def _checked_blocks(
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


def _array_pieces(
    array: EngineArray, names: tuple[str, ...], sizes: Mapping[str, int], slot: Mapping[str, int], slot_offset: int
) -> list[Piece]:
    """Return the pieces of one array, whose first element lies at slot_offset of a slot with these strides."""
    strides = dict(zip(names, array.strides, strict=True))
    axes = [Axis(size, strides[axis], slot[axis]) for axis, size in sizes.items() if axis in strides]
    block_stride = strides.get("block", strides["token"] * sizes["token"])
    return compile_box(array.address, block_stride, slot_offset, axes, array.element_bytes)
