"""What the bytes of a block are, so that one wrong byte in what a cache gives back is noticed: a pattern made of its key."""

import numpy as np
from numpy.typing import NDArray

UNIT_BYTES = 16
"""Bytes of a key, and of the pattern's unit."""

Words = NDArray[np.uint64]

_STEP = np.uint64(0x9E3779B97F4A7C15)
"""Odd, so that no two words of a block are equal; a block whose pages changed places differs, too."""


class BlockPattern:
    """Fills blocks and checks them. Word i of a block is word i modulo 2 of its key, xor i times a constant."""

    def __init__(self, block_bytes: int) -> None:
        num_units = -(-block_bytes // UNIT_BYTES)
        self._block_bytes = block_bytes
        self._ramp = (np.arange(2 * num_units, dtype=np.uint64) * _STEP).reshape(num_units, 2)
        self._expected = np.empty_like(self._ramp)

    @property
    def stride_bytes(self) -> int:
        """Bytes of whole units that hold a block."""
        return self._ramp.nbytes

    def fill(self, block: Words, key: NDArray[np.uint8]) -> None:
        """Write a block. block: uint64[stride_bytes / 8], C-contiguous. key: uint8[16]."""
        np.bitwise_xor(self._ramp, key.view(np.uint64), out=block.reshape(-1, 2))

    def matches(self, block: Words, key: NDArray[np.uint8]) -> bool:
        """Whether every byte of a block is the one that `fill` wrote. Arguments as there."""
        np.bitwise_xor(self._ramp, key.view(np.uint64), out=self._expected)
        expected, found = self._expected.reshape(-1).view(np.uint8), block.view(np.uint8)
        return np.array_equal(found[: self._block_bytes], expected[: self._block_bytes])
