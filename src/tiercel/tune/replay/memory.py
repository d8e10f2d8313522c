"""KV memory of an engine that computes nothing: blocks in host memory, filled by their keys and checked by them.

Blocks are lent by number. What is given back is overwritten, so that a block which a load left as it was is never taken for one
that arrived.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiercel import BlockGeometry, EngineBlocks, EngineMemory
from tiercel.tune.replay.contents import BlockPattern

BlockIds = NDArray[np.int64]
Keys = NDArray[np.uint8]
"""uint8[num_blocks, 16]."""

_AXES = ("layer", "kv", "token", "head", "dim")


class EngineBuffers:
    """Blocks of an emulated engine."""

    def __init__(self, geometry: BlockGeometry, num_blocks: int, *, copy_threads: int) -> None:
        """Take the memory. Raises MemoryError if the machine has not as much."""
        self.block_bytes = geometry.block_bytes
        self._pattern = BlockPattern(geometry.block_bytes)
        self._words = np.zeros((num_blocks, self._pattern.stride_bytes // 8), np.uint64)
        payload = self._words.view(np.uint8)[:, : geometry.block_bytes].view(f"u{geometry.element_bytes}")
        shape = [geometry.shape[axis] for axis in _AXES]
        blocks = payload.reshape(num_blocks, *shape)
        assert np.shares_memory(blocks, self._words), "the engine's blocks are a view of its memory"
        axes = " ".join(("block", *_AXES))
        self._memory = EngineMemory.from_arrays(geometry, [blocks], axes=axes, num_threads=copy_threads)
        self._free = np.arange(num_blocks, dtype=np.int64)
        self._num_free = num_blocks

    @property
    def num_blocks(self) -> int:
        return len(self._words)

    @property
    def num_free(self) -> int:
        return self._num_free

    def take(self, num_blocks: int) -> BlockIds:
        """Lend blocks; there must be as many."""
        assert num_blocks <= self._num_free, "who takes blocks looks first whether there are enough"
        self._num_free -= num_blocks
        return self._free[self._num_free : self._num_free + num_blocks].copy()

    def give_back(self, ids: BlockIds) -> None:
        """Take blocks back and overwrite them."""
        self._words[ids] = 0
        self._free[self._num_free : self._num_free + len(ids)] = ids
        self._num_free += len(ids)

    def blocks(self, ids: BlockIds) -> EngineBlocks:
        """The blocks as a cache takes them."""
        return self._memory.blocks(ids)

    def compute(self, ids: BlockIds, keys: Keys) -> None:
        """Fill blocks with what an engine would compute for these keys."""
        for number, key in zip(ids.tolist(), keys, strict=True):
            self._pattern.fill(self._words[number], key)

    def wrong(self, ids: BlockIds, keys: Keys) -> Sequence[int]:
        """Check blocks that were loaded. Returns the positions, in `ids`, of those that hold other bytes than were stored."""
        pairs = enumerate(zip(ids.tolist(), keys, strict=True))
        return [at for at, (number, key) in pairs if not self._pattern.matches(self._words[number], key)]
