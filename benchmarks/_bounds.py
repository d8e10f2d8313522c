"""What a policy's hit rate is held against: LRU at every capacity in one pass, and the best that any policy could reach.

Both count blocks: of each request the leading blocks that are cached when it arrives, over all blocks of all requests.
"""

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Request = NDArray[np.int32]


def lru_distances(requests: Sequence[Request]) -> NDArray[np.int64]:
    """How many distinct blocks, itself included, were used since a block's last use; of each block reference in order.

    0 means never used before. Distances hold at the moment a request arrives; its blocks are used from leaf to root,
    so a parent is always younger than its children. An LRU cache of `capacity` blocks, which evicts leaves first, hits
    exactly the references with 0 < distance <= capacity (Mattson et al., 1970).
    """
    lengths = np.array([len(request) for request in requests])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    uses = np.concatenate([request[::-1] for request in requests])
    order = np.argsort(uses, kind="stable")
    previous = np.full(len(uses), -1, np.int64)
    again = uses[order[1:]] == uses[order[:-1]]
    previous[order[1:][again]] = order[:-1][again]
    # Blocks used between a last use and the request's start, less those used more than once in between: all uses of
    # these but the first have their own previous use in between, too.
    start = np.repeat(starts, lengths)
    repeated = _count_above(previous, start, previous)
    distances = np.where(previous >= 0, start - previous - repeated, 0)
    root_first = start + np.repeat(lengths, lengths) - 1 - (np.arange(len(uses)) - start)
    in_order: NDArray[np.int64] = distances[root_first]
    return in_order


def hit_rates(distances: NDArray[np.int64], capacities: Sequence[int]) -> list[float]:
    """Share of the references that an LRU cache of each capacity hits."""
    known = np.sort(distances[distances > 0])
    return [float(np.searchsorted(known, capacity, side="right")) / len(distances) for capacity in capacities]


def _count_above(values: NDArray[np.int64], stops: NDArray[np.int64], limits: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of values[:stop] are greater than limit, for each pair; a wavelet matrix answers all at once."""
    shift = values + 1  # not negative
    wanted = limits + 1
    counts = np.zeros(len(stops), np.int64)
    first, stop = np.zeros(len(stops), np.int64), stops.astype(np.int64)
    for bit in reversed(range(int(shift.max()).bit_length())):
        ones = (shift >> bit) & 1
        ones_before = np.concatenate([[0], np.cumsum(ones)])
        num_zeros = len(ones) - int(ones_before[-1])
        first_ones, stop_ones = ones_before[first], ones_before[stop]
        is_one = ((wanted >> bit) & 1).astype(bool)
        counts += np.where(is_one, 0, stop_ones - first_ones)
        first = np.where(is_one, num_zeros + first_ones, first - first_ones)
        stop = np.where(is_one, num_zeros + stop_ones, stop - stop_ones)
        shift = np.concatenate([shift[ones == 0], shift[ones == 1]])
    return counts


def belady_hit_rate(requests: Sequence[Request], capacity: int) -> float:
    """The most that any policy can hit, knowing the future.

    Belady's MIN with bypass, a request at a time: after each request, of the blocks cached and those requested those stay
    whose next use comes soonest; what will not be used again never enters. A block's next use is never after its
    children's, so among equals the deeper one leaves and what stays is prefix-closed without being forced to.
    """
    never = len(requests)
    next_uses: list[list[int]] = []
    coming: dict[int, int] = {}
    for number in range(never - 1, -1, -1):
        path = requests[number].tolist()
        next_uses.append([coming.get(block, never) for block in path])
        coming.update(dict.fromkeys(path, number))
    next_uses.reverse()

    cached: dict[int, int] = {}  # block -> request of its next use
    farthest: list[tuple[int, int, int]] = []  # (-next use, -depth, block), some of them outdated
    num_hits = 0
    for request, uses in zip(requests, next_uses, strict=True):
        path = request.tolist()
        for block in path:
            if block not in cached:
                break
            num_hits += 1
        for depth, (block, next_use) in enumerate(zip(path, uses, strict=True)):
            cached.pop(block, None)
            if next_use < never:
                cached[block] = next_use
                heapq.heappush(farthest, (-next_use, -depth, block))
        while len(cached) > capacity:
            next_use, _, block = heapq.heappop(farthest)
            if cached.get(block) == -next_use:
                del cached[block]
    return num_hits / sum(len(request) for request in requests)
