"""What became readable in which tier and what left it, block by block, for whoever follows a cache from outside."""

import enum
from typing import NamedTuple

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


def take_changes(index: Index, tiers: tuple[TierName, ...]) -> tuple[BlockChange, ...] | None:
    """The changes since the last call, in order; None if there were more than there was room for."""
    kinds, numbers, keys, is_incomplete = index.take_changes()
    if is_incomplete:
        return None
    packed = keys.tobytes()
    width = keys.shape[1]
    return tuple(
        BlockChange(_KINDS[kind], tiers[number], packed[at * width : (at + 1) * width])
        for at, (kind, number) in enumerate(zip(kinds.tolist(), numbers.tolist(), strict=True))
    )


_KINDS = tuple(ChangeKind)
