"""What the size of a block does to hit rates: the same room, the same prompts, other blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiercel.tune.curves.lru import lru_curve
from tiercel.tune.curves.weighting import Weighting
from tiercel.tune.traces import Trace, with_tokens_per_block


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

    Larger blocks than the trace's are exact. Of two prompts that part within a block of the trace it is not known where, so
    the rates of smaller ones are lower bounds.

    Args:
        sizes: tokens a block.
        capacities_tokens: room for so many tokens, in blocks of each size.

    Raises:
        ValueError: a size is less than 1, or a capacity is negative.
    """
    rows = []
    for size in sizes:
        curve = lru_curve(with_tokens_per_block(trace, size).without_partial_blocks())
        capacities = [tokens // size for tokens in capacities_tokens]
        rows.append(
            BlockSizeRow(
                tokens_per_block=size,
                hit_rates=curve.hit_rates(capacities, Weighting.TOKENS),
                ideal=curve.hit_rate(curve.capacity_max, Weighting.TOKENS),
            )
        )
    return rows
