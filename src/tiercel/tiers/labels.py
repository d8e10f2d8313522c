"""Names of blocks as tiers that survive a restart take them, record them and give them back."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiercel.tiers.base import BlockLabels, Slots

NAME_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class RecoveredBlocks:
    """Blocks that were in the tier when it was opened, least recently written first.

    Attributes:
        parents: uint8[n, 16], name of the block before each.
        keys: uint8[n, 16], name of each block. A name may occur twice; the later one is the newer.
        slots: uint32[n]. Whoever does not restore a block frees its slot.
    """

    parents: NDArray[np.uint8]
    keys: NDArray[np.uint8]
    slots: Slots


def nothing_recovered() -> RecoveredBlocks:
    """Return what is found where nothing was left."""
    nothing = np.empty((0, NAME_BYTES), np.uint8)
    return RecoveredBlocks(parents=nothing, keys=nothing, slots=np.empty(0, np.uint32))


def parents_of(labels: BlockLabels) -> NDArray[np.uint8]:
    """Return the name of the block before each: uint8[num_blocks, 16]."""
    first = np.frombuffer(labels.parent, np.uint8)[None]
    return np.concatenate((first, labels.names[:-1])) if len(labels.names) else labels.names


def check_labels(slots: Slots, labels: BlockLabels, *, num_blocks: int) -> None:
    """Raise ValueError unless a write's slots, blocks and names are as many, and the names are what a record can hold."""
    names = labels.names
    if not len(slots) == num_blocks == len(names):
        raise ValueError(f"{len(slots)} slots, {num_blocks} blocks and {len(names)} names")
    if names.dtype != np.uint8 or names.shape[1:] != (NAME_BYTES,) or not names.flags.c_contiguous:
        raise ValueError("labels: names must be uint8[num_blocks, 16], C-contiguous")
    if len(labels.parent) != NAME_BYTES:
        raise ValueError("labels: the parent must be 16 bytes")
