"""Numbers of an engine's blocks, as callers give them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def checked_numbers(ids: Sequence[int] | NDArray[np.integer], num_blocks: int) -> NDArray[np.int64]:
    """Return block ids as a vector of their own.

    Raises:
        ValueError: a number lies outside [0, num_blocks), or ids has more than one axis.
        TypeError: ids are no integers.
    """
    numbers = np.asarray(ids)
    if numbers.size and numbers.dtype.kind not in "iu":
        raise TypeError(f"block ids of {numbers.dtype}: must be integers")
    if numbers.ndim != 1:
        raise ValueError(f"block ids with {numbers.ndim} axes: must have one")
    if numbers.size and not (int(numbers.min()) >= 0 and int(numbers.max()) < num_blocks):
        bad = next(int(number) for number in numbers if not 0 <= number < num_blocks)
        raise ValueError(f"block id {bad}: must lie in [0, {num_blocks})")
    return np.array(numbers, np.int64)


def are_distinct(ids: NDArray[np.int64], num_blocks: int) -> bool:
    """Return whether no number in [0, num_blocks) comes twice."""
    if bool((ids[1:] > ids[:-1]).all()):
        return True
    named = np.zeros(num_blocks, np.bool_)
    named[ids] = True
    return int(np.count_nonzero(named)) == len(ids)
