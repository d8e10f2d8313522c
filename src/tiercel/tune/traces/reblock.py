"""The same trace in blocks of another size.

Larger blocks are exact: a larger block is one with another exactly if all the trace's blocks in it are. Smaller ones are as exact
as the trace is: what two requests share is known in the trace's blocks alone, so two that part within a block share nothing of
it, and where both end in one partly filled block they share its tokens up to the shorter end. `Trace.tokens` says the same, token
by token.
"""

from dataclasses import replace
from math import gcd

import numpy as np
from numpy.typing import NDArray

from tiercel.tune.traces.format import TOKENS_PER_BLOCK_MAX
from tiercel.tune.traces.trace import NO_BLOCK, Trace


def with_tokens_per_block(trace: Trace, tokens_per_block: int) -> Trace:
    """Return the trace with its blocks cut or joined to another size; where neither comes out even, through their common part.

    Raises:
        ValueError: the size is less than 1, or more than a cache has.
    """
    if not 1 <= tokens_per_block <= TOKENS_PER_BLOCK_MAX:
        remedy = "give the size of a cache's blocks, such as 16"
        raise ValueError(f"tokens_per_block = {tokens_per_block}: must be 1 to {TOKENS_PER_BLOCK_MAX}; {remedy}")
    if tokens_per_block == trace.tokens_per_block:
        return trace
    common = gcd(tokens_per_block, trace.tokens_per_block)
    return _joined(_cut(trace, common), tokens_per_block)


def _joined(trace: Trace, tokens_per_block: int) -> Trace:
    """A larger block is named by the last of the blocks in it: one at its end, or a request's deepest where that comes first."""
    count = tokens_per_block // trace.tokens_per_block
    if count == 1:
        return trace
    held = trace.leaves != NO_BLOCK
    is_kept = trace.depths % count == count - 1
    is_kept[trace.leaves[held]] = True
    numbers = np.cumsum(is_kept, dtype=np.int64).astype(np.int32) - 1
    kept = np.flatnonzero(is_kept).astype(np.int32)
    above = trace.parents[kept]  # climbs to the end of the larger block before
    for _ in range(count - 1):
        inside = np.flatnonzero(above != NO_BLOCK)
        inside = inside[trace.depths[above[inside]] % count != count - 1]
        if not len(inside):
            break
        above[inside] = trace.parents[above[inside]]
    return _renumbered(trace, tokens_per_block, numbers, above)


def _renumbered(trace: Trace, tokens_per_block: int, numbers: NDArray[np.int32], above: NDArray[np.int32]) -> Trace:
    leaves = np.where(trace.leaves == NO_BLOCK, NO_BLOCK, numbers[trace.leaves]) if len(numbers) else trace.leaves
    parents = np.where(above == NO_BLOCK, NO_BLOCK, numbers[above]) if len(numbers) else above
    return replace(
        trace,
        tokens_per_block=tokens_per_block,
        parents=parents.astype(np.int32),
        leaves=leaves.astype(np.int32),
    )


def _cut(trace: Trace, tokens_per_block: int) -> Trace:
    """Each block becomes as many as its longest holder fills of it, one behind the other."""
    count = trace.tokens_per_block // tokens_per_block
    if count == 1:
        return trace
    held = np.flatnonzero(trace.leaves != NO_BLOCK)
    leaves = trace.leaves[held]
    filled = trace.input_tokens[held] - trace.depths[leaves].astype(np.int64) * trace.tokens_per_block
    parts = np.clip(-(-filled // tokens_per_block), 1, count)
    sizes = np.zeros(trace.num_blocks, np.int64)
    np.maximum.at(sizes, leaves, parts)
    inner = trace.parents[trace.parents != NO_BLOCK]
    sizes[inner] = count
    starts = np.cumsum(sizes) - sizes
    total = int(sizes.sum())
    if total > np.iinfo(np.int32).max:
        raise ValueError(f"blocks of {tokens_per_block} tokens would be {total}, more than 2^31 - 1")
    parents = np.arange(-1, total - 1, dtype=np.int32)
    firsts = starts[sizes > 0]
    above = trace.parents[sizes > 0]
    parents[firsts] = np.where(above == NO_BLOCK, NO_BLOCK, starts[above] + count - 1)
    new_leaves = trace.leaves.copy()
    new_leaves[held] = (starts[leaves] + parts - 1).astype(np.int32)
    return replace(trace, tokens_per_block=tokens_per_block, parents=parents, leaves=new_leaves)
