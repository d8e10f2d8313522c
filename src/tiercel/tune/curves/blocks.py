"""The same trace in blocks of another size, and what the size does to hit rates."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tiercel._native import nearest_kept
from tiercel.tune.curves.lru import lru_curve
from tiercel.tune.curves.weighting import Weighting
from tiercel.tune.traces import NO_BLOCK, Trace


def reblock(trace: Trace, tokens_per_block: int) -> Trace:
    """Return the trace in blocks of another size: what `Trace.tokens` gives, cut anew.

    Larger blocks merge whole ones: two requests share one if they share all that it is made of. Smaller ones split them, so
    that requests share exactly the tokens that they shared before: of two prompts that part within a block of the trace it
    is not known where, so the hit rates of smaller blocks are lower bounds.

    The last block of a request may be partly filled, as before; `without_partial_blocks` takes those away.

    Raises:
        ValueError: neither size is a multiple of the other, or there would be 2^31 blocks or more.
    """
    if tokens_per_block < 1:
        raise ValueError(f"tokens_per_block = {tokens_per_block}: at least 1")
    if tokens_per_block == trace.tokens_per_block:
        return trace
    if tokens_per_block % trace.tokens_per_block == 0:
        return _merged(trace, tokens_per_block)
    if trace.tokens_per_block % tokens_per_block == 0:
        return _split(trace, tokens_per_block)
    raise ValueError(
        f"tokens_per_block = {tokens_per_block}: trace {trace.name} has blocks of {trace.tokens_per_block} tokens, and one "
        "must be a multiple of the other"
    )


def _merged(trace: Trace, tokens_per_block: int) -> Trace:
    """A block is named by the last one that it is made of. Where a request ends inside one, that is a block of its own."""
    factor = tokens_per_block // trace.tokens_per_block
    is_last = trace.depths % factor == factor - 1
    nearest = nearest_kept(trace.parents, is_last.view(np.uint8))
    parents = _above(nearest, trace.parents[is_last])
    held = trace.leaves != NO_BLOCK
    ends_inside = held.copy()
    ends_inside[held] = ~is_last[trace.leaves[held]]
    tails, number = np.unique(trace.leaves[ends_inside], return_inverse=True)
    leaves = _above(nearest, trace.leaves)
    leaves[ends_inside] = len(parents) + number
    parents = np.concatenate([parents, nearest[tails]])
    return replace(trace, tokens_per_block=tokens_per_block, parents=parents, leaves=leaves)


def _split(trace: Trace, tokens_per_block: int) -> Trace:
    """Block b becomes the blocks b * factor and following."""
    factor = trace.tokens_per_block // tokens_per_block
    if trace.num_blocks * factor >= 2**31:
        raise ValueError(f"tokens_per_block = {tokens_per_block}: trace {trace.name} would have 2^31 blocks or more")
    parents = np.arange(-1, trace.num_blocks * factor - 1, dtype=np.int32)
    parents[::factor] = np.where(trace.parents == NO_BLOCK, NO_BLOCK, trace.parents * factor + factor - 1)
    held = trace.leaves != NO_BLOCK
    before = np.zeros(trace.num_requests, np.int64)
    before[held] = trace.depths[trace.leaves[held]].astype(np.int64) * trace.tokens_per_block
    filled = np.clip(-(-(trace.input_tokens - before) // tokens_per_block), 1, factor)
    leaves = np.where(held, trace.leaves.astype(np.int64) * factor + filled - 1, NO_BLOCK).astype(np.int32)
    return replace(trace, tokens_per_block=tokens_per_block, parents=parents, leaves=leaves)


def _above(nearest: NDArray[np.int32], blocks: NDArray[np.int32]) -> NDArray[np.int32]:
    found = np.full(len(blocks), NO_BLOCK, np.int32)
    named = blocks != NO_BLOCK
    found[named] = nearest[blocks[named]]
    return found


@dataclass(frozen=True, kw_only=True)
class BlockSizeRow:
    """One block size: hit rates of LRU by capacity, of prompts' tokens, in full blocks only.

    Attributes:
        hit_rates: float64[capacities], of tokens.
        ideal: of a cache without end.
    """

    tokens_per_block: int
    hit_rates: NDArray[np.float64]
    ideal: float


def sweep_block_sizes(trace: Trace, sizes: Sequence[int], capacities_tokens: Sequence[int]) -> list[BlockSizeRow]:
    """Return LRU's hit rates at each block size and capacity, exactly, with the blocks that a cache can hold.

    Args:
        sizes: tokens a block.
        capacities_tokens: room for so many tokens, in blocks of each size.

    Raises:
        ValueError: as `reblock`.
    """
    rows = []
    for size in sizes:
        curve = lru_curve(reblock(trace, size).without_partial_blocks())
        capacities = [tokens // size for tokens in capacities_tokens]
        rows.append(
            BlockSizeRow(
                tokens_per_block=size,
                hit_rates=curve.hit_rates(capacities, Weighting.TOKENS),
                ideal=curve.hit_rate(curve.capacity_max, Weighting.TOKENS),
            )
        )
    return rows
