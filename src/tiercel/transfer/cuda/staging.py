"""A pinned buffer between a GPU and host memory that is not pinned, in two halves: while the GPU works on one, the
processor copies the other. Used by `copier`.
"""

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tiercel import _native
from tiercel.layout import EngineBlocks, EngineMemory
from tiercel.tiers.base import Addresses
from tiercel.tiers.memory import page_aligned_bytes

Start = Callable[[NDArray[np.int64], Addresses], _native.CudaTransfer]
"""Starts the GPU on blocks, by their ids, and their slots."""


class Staging:
    """Slots in pinned memory, for one call at a time; others wait."""

    def __init__(self, device: _native.CudaDevice, block_bytes: int, num_bytes: int) -> None:
        """Allocate and pin. Raises OSError or RuntimeError if the memory is not to be had.

        Args:
            block_bytes: size of a block.
            num_bytes: size of both halves together; each holds at least one block whatever this says.
        """
        self._block_bytes = block_bytes
        self._stride = page_aligned_bytes(block_bytes)
        self._half_blocks = max(1, num_bytes // 2 // self._stride)
        self._arena = _native.Arena(2 * self._half_blocks * self._stride, hugepages=False)
        self._pinned = _native.PinnedMemory(device, self._arena.address, self._arena.num_bytes)
        self._lock = threading.Lock()

    def check_size(self, block_bytes: int) -> None:
        """Raise ValueError if blocks of this size do not fit: a buffer belongs to one cache, whose blocks are alike."""
        if block_bytes != self._block_bytes:
            raise ValueError(f"blocks of {block_bytes} bytes: this cache's have {self._block_bytes}")

    def gather(self, blocks: EngineBlocks, targets: Addresses, start: Start) -> None:
        """Bring blocks from the GPU to addresses anywhere in host memory."""
        _require_one_each(blocks, targets)
        with self._lock:
            program = self._program(blocks.memory)
            waiting: tuple[NDArray[np.int64], Addresses] | None = None
            for half, part in self._parts(blocks.num_blocks):
                transfer = start(blocks.ids[part], self._slots(half))
                if waiting is not None:
                    program.gather(*waiting, blocks.memory.num_threads)
                transfer.wait()
                waiting = half, targets[part]
            if waiting is not None:
                program.gather(*waiting, blocks.memory.num_threads)

    def scatter(self, blocks: EngineBlocks, sources: Addresses, start: Start) -> None:
        """Bring blocks from addresses anywhere in host memory to the GPU."""
        _require_one_each(blocks, sources)
        with self._lock:
            program = self._program(blocks.memory)
            transfer: _native.CudaTransfer | None = None
            for half, part in self._parts(blocks.num_blocks):
                program.scatter(half, sources[part], blocks.memory.num_threads)
                if transfer is not None:
                    transfer.wait()
                transfer = start(blocks.ids[part], self._slots(half))
            if transfer is not None:
                transfer.wait()

    def close(self) -> None:
        """Unpin and free. No call may be in progress."""
        self._pinned.close()
        self._arena.close()

    def _parts(self, num_blocks: int) -> list[tuple[NDArray[np.int64], slice]]:
        """Which slots of the buffer take which of a call's blocks, in turns of one half."""
        parts: list[tuple[NDArray[np.int64], slice]] = []
        for number, at in enumerate(range(0, num_blocks, self._half_blocks)):
            stop = min(num_blocks, at + self._half_blocks)
            first = number % 2 * self._half_blocks
            parts.append((np.arange(first, first + stop - at, dtype=np.int64), slice(at, stop)))
        return parts

    def _slots(self, half: NDArray[np.int64]) -> Addresses:
        return (self._arena.address + half * self._stride).astype(np.uint64)

    def _program(self, memory: EngineMemory) -> _native.CopyProgram:
        """The copy between the buffer, whose slots it takes for an engine's blocks, and slots elsewhere.

        It moves the bytes that the memory holds and no others: a tensor-parallel rank must leave the rest of a slot alone.
        """
        base, run = self._arena.address, self._block_bytes
        if memory.holds_whole_blocks:
            pieces = np.array([[base, self._stride, 0, 1, 0, 0, 1, 0, run]], np.int64)
        else:
            pieces = memory.pieces.copy()
            pieces[:, 0] = base + pieces[:, 2]
            pieces[:, 1] = self._stride
            pieces[:, 4] = pieces[:, 5]
            pieces[:, 7] = pieces[:, 8]
        return _native.CopyProgram(pieces, self._block_bytes)


def _require_one_each(blocks: EngineBlocks, addresses: Addresses) -> None:
    if len(addresses) != blocks.num_blocks:
        raise ValueError(f"{len(addresses)} addresses for {blocks.num_blocks} blocks: must be one each")
