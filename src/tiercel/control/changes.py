"""What became readable in which tier and what left it, block by block, for whoever follows a cache from outside."""

import enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiercel.hashing import KEY_BYTES
from tiercel.index import Index
from tiercel.tiers.base import TierName


class ChangeKind(enum.Enum):
    """What happened to a block in a tier."""

    READY = 0
    """It can be read."""
    GONE = 1
    """It cannot be read any more."""
    ALL_GONE = 2
    """Nothing from before is there, in any tier."""


class BlockChange(NamedTuple):
    """One change. `key` is the block's, 16 bytes; of ALL_GONE, tier and key mean nothing."""

    kind: ChangeKind
    tier: TierName
    key: bytes


class BlockWatch:
    """Follows the blocks of an index."""

    def __init__(self, index: Index, tiers: tuple[TierName, ...]) -> None:
        self._index = index
        self._tiers = tiers

    def watch(self, num_changes: int) -> None:
        """Note changes from now on, up to so many until they are taken; 0: no longer."""
        self._index.watch(num_changes)

    def changes(self) -> tuple[BlockChange, ...] | None:
        """The changes since the last call, in order; None if there were more than there was room for."""
        kinds, numbers, keys, is_incomplete = self._index.take_changes()
        if is_incomplete:
            return None
        packed = keys.tobytes()
        return tuple(
            BlockChange(_KINDS[kind], self._tiers[number], packed[at * KEY_BYTES : (at + 1) * KEY_BYTES])
            for at, (kind, number) in enumerate(zip(kinds.tolist(), numbers.tolist(), strict=True))
        )

    def keys(self, tier: TierName) -> NDArray[np.uint8]:
        """Keys of a tier's blocks that can be read: uint8[num_blocks, 16]; none of a tier that is not there."""
        if tier not in self._tiers:
            return np.empty((0, KEY_BYTES), np.uint8)
        return self._index.export_blocks(self._tiers.index(tier))[1]


_KINDS = tuple(ChangeKind)
