"""An engine's KV memory, described by the strides of its arrays, as blocks that a tier can copy from and to.

Made by connectors; handed to `transfer`, which passes `EngineBlocks` on to the tiers (`tiers.base.BlockMemory`). Memory on a
GPU is described here just the same; who copies it is `transfer.devices`' business.
"""

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from tiercel._native import CopyProgram
from tiercel.layout.arrays import HOST_DEVICE, engine_array
from tiercel.layout.described import (
    DescribedArrays,
    PlacedArray,
    axis_names,
    check_lists,
    checked_blocks,
    labelled_arrays,
)
from tiercel.layout.events import check_event, event_handle
from tiercel.layout.geometry import BlockGeometry
from tiercel.layout.numbers import are_distinct, checked_numbers

_PAGE_BYTES = 4096


@final
class EngineMemory:
    """The blocks of an engine's KV cache in host or GPU memory, or one tensor-parallel rank's share of each.

    Keeps the arrays alive. Thread-safe; whether the engine reads or writes a block meanwhile is the caller's business.
    """

    def __init__(self, described: DescribedArrays, layers: range, num_threads: int) -> None:
        """Take checked arrays; use `from_arrays`."""
        self.geometry = described.geometry
        self.head_range = described.heads
        """[start, stop) of the geometry's heads that it holds."""
        self.pieces = described.pieces(layers)
        self.num_blocks = described.num_blocks
        self.num_threads = num_threads
        self.device = described.placed[0].array.device
        self.writable = all(placed.array.writable for placed in described.placed)
        held_bytes = int((self.pieces[:, 3] * self.pieces[:, 6] * self.pieces[:, 8]).sum())
        self.holds_whole_blocks = held_bytes == self.geometry.block_bytes
        self.program = CopyProgram(self.pieces, self.geometry.block_bytes)
        self._described = described
        self._views: dict[range, EngineMemory] = {}

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
        check_lists(keys, values)
        start, stop = (0, geometry.num_kv_heads) if head_range is None else head_range
        if not 0 <= start < stop <= geometry.num_kv_heads:
            raise ValueError(f"head_range = {head_range}: must lie in [0, {geometry.num_kv_heads}] and hold a head")
        names = axis_names(axes, geometry, values is not None, stop - start)
        sizes = {**geometry.shape, "head": stop - start}
        placed: list[PlacedArray] = []
        counts: dict[str, int] = {}
        for label, part, layer, array in labelled_arrays(geometry, keys, values, "layer" in names):
            found = engine_array(array)
            counts[label] = checked_blocks(label, found, names, geometry, sizes)
            placed.append(PlacedArray(found, part, layer))
        devices = sorted({each.array.device for each in placed})
        if len(devices) > 1:
            raise ValueError(f"the arrays lie on {' and '.join(devices)}: describe each device's memory by itself")
        num_blocks = min(counts.values())
        odd = next((label for label, count in counts.items() if count != num_blocks), None)
        if odd is not None:
            raise ValueError(f"{odd}: holds {counts[odd]} blocks, another array {num_blocks}; all must hold the same")
        described = DescribedArrays(
            geometry=geometry, names=names, heads=(start, stop), placed=tuple(placed), num_blocks=num_blocks
        )
        return cls(described, range(geometry.num_layers), num_threads)

    def layers(self, start: int, stop: int) -> "EngineMemory":
        """Return the layers [start, stop) of the same blocks: only these bytes of a slot are copied. Kept, so that each is
        compiled once. Raises ValueError if there are no such layers."""
        if not 0 <= start < stop <= self.geometry.num_layers:
            raise ValueError(f"layers [{start}, {stop}): must lie in [0, {self.geometry.num_layers}) and hold one")
        layers = range(start, stop)
        view = self._views.get(layers)
        if view is None:
            view = self._views.setdefault(layers, EngineMemory(self._described, layers, self.num_threads))
        return view

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
        numbers = checked_numbers(ids, self.num_blocks)
        if after is not None:
            check_event(after, self.device)
        return EngineBlocks(self, numbers, after)


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
        return are_distinct(self._ids, self._memory.num_blocks)

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

    def layers(self, start: int, stop: int) -> "EngineBlocks":
        """Return the layers [start, stop) of these blocks; as `EngineMemory.layers`."""
        return EngineBlocks(self._memory.layers(start, stop), self._ids, self._after)

    def slice(self, start: int, stop: int) -> "EngineBlocks":
        """Return the blocks [start, stop), without copying."""
        return EngineBlocks(self._memory, self._ids[start:stop], self._after)

    def _require_reach(self, addresses: NDArray[np.uint64]) -> None:
        if self._memory.device != HOST_DEVICE:
            raise ValueError(f"memory on {self._memory.device} is not reached from here: give it to a cache")
        if len(addresses) != len(self._ids):
            raise ValueError(f"{len(addresses)} addresses for {len(self._ids)} blocks: must be one each")
