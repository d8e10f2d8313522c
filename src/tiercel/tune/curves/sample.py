"""Which blocks of a trace stand for all of it.

The blocks used most are all followed (hot); of the others a share. Their ancestors that are not followed are left out, so
what is followed is a tree of its own in which each block hangs below its nearest ancestor followed. Every request keeps its
place in time, and its leading blocks stay its leading blocks.

Two ways to choose the others:

- `block`: each by a hash of its name. Every conversation is there, with a share of its blocks; so samples are many and
  alike. Depth shrinks with the rate.
- `subtree`: all blocks below one child of a hot block, or below a root that is not hot, are followed or none is. Paths keep
  their depth, but conversations are few and differ much, so the error is larger (docs/policies.md has both).
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from tiercel._native import SAMPLE_PARTS, count_uses, nearest_kept
from tiercel.tune.traces import NO_BLOCK, Trace

HOT = SAMPLE_PARTS
"""`Sample.groups` of a hot block."""
HOT_SHARE = 0.0005
"""Blocks that take a larger share of all references are followed exactly; there can be 2,000 of them."""


class SampleUnit(StrEnum):
    """What is followed or not as a whole."""

    BLOCK = "block"
    SUBTREE = "subtree"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The tree of the blocks followed.

    Attributes:
        rate: share of the blocks that are not hot that is followed.
        parents: int32[followed], each one's nearest ancestor followed.
        groups: uint8[followed], HOT or the part of the sample that a block falls into.
        leaves: int32[num_requests], the deepest block followed of each request, or NO_BLOCK.
        has_leaf: bool[num_requests], whether that is the request's own deepest block.
        num_hot: hot blocks.
    """

    rate: float
    parents: NDArray[np.int32]
    groups: NDArray[np.uint8]
    leaves: NDArray[np.int32]
    has_leaf: NDArray[np.bool_]
    num_hot: int


def sample_blocks(
    trace: Trace,
    *,
    rate: float,
    seed: int = 0,
    hot_share: float = HOT_SHARE,
    unit: SampleUnit = SampleUnit.BLOCK,
    num_samples_max: int | None = None,
) -> Sample:
    """Choose blocks, the same ones for the same seed.

    Args:
        rate: share of the blocks to follow; more than 0, at most 1.
        hot_share: follow each block that takes more than this share of all references.
        num_samples_max: lower the rate until about so many are followed, the hot ones aside.

    Raises:
        ValueError: a value is out of range, or the blocks are no tree.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate = {rate}: more than 0 and at most 1")
    if not 0 < hot_share <= 1:
        raise ValueError(f"hot_share = {hot_share}: more than 0 and at most 1")
    if num_samples_max is not None and num_samples_max < 1:
        raise ValueError(f"num_samples_max = {num_samples_max}: at least 1")
    uses = count_uses(trace.parents, trace.leaves)
    is_hot = uses > hot_share * float(uses.sum(dtype=np.int64))
    num_others = int(len(uses) - np.count_nonzero(is_hot))
    if num_samples_max is not None and num_others:
        rate = min(rate, num_samples_max / num_others)
    hashes = _hash_blocks(_units(trace, is_hot, unit), seed)
    followed = is_hot if rate < 1 else np.ones(len(uses), np.bool_)
    if rate < 1:
        followed = followed | (hashes < np.uint64(int(rate * 2**64)))
    nearest = nearest_kept(trace.parents, followed.view(np.uint8))
    groups = np.where(is_hot, np.uint8(HOT), (hashes % np.uint64(SAMPLE_PARTS)).astype(np.uint8))
    return Sample(
        rate=rate,
        parents=_look_up(nearest, trace.parents[followed]),
        groups=groups[followed],
        leaves=_look_up(nearest, trace.leaves),
        has_leaf=_look_up(followed.astype(np.int32) - 1, trace.leaves) == 0,
        num_hot=int(np.count_nonzero(is_hot)),
    )


def _units(trace: Trace, is_hot: NDArray[np.bool_], unit: SampleUnit) -> NDArray[np.int32]:
    """Of each block what is followed with it as a whole. A hot block's ancestors are hot: they are used no less."""
    numbers = np.arange(trace.num_blocks, dtype=np.int32)
    if unit is SampleUnit.BLOCK:
        return numbers
    below_hot = (trace.parents == NO_BLOCK) | is_hot[trace.parents]
    tops = ~is_hot & below_hot
    return np.where(is_hot, numbers, nearest_kept(trace.parents, tops.view(np.uint8)))


def _look_up(values: NDArray[np.int32], blocks: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the value of each block, NO_BLOCK for none."""
    found = np.full(len(blocks), NO_BLOCK, np.int32)
    named = blocks != NO_BLOCK
    found[named] = values[blocks[named]]
    return found


def _hash_blocks(blocks: NDArray[np.int32], seed: int) -> NDArray[np.uint64]:
    """Mix each number with the seed, so that two seeds have nothing in common."""
    start = _mix(np.array([seed % 2**64], np.uint64))
    return _mix(_mix(blocks.astype(np.uint64)) ^ start)


def _mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
