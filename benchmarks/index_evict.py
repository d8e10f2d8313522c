"""Does evicting 256 blocks cost the same whatever the number of leaves?

5K leaves are conversations of a million blocks, 31K unrelated sequences of 512 tokens, 1M unrelated blocks; the latter
two are used in random order. The last row is the 1M again, of eight tenants that each have a tenth reserved.
"""

import sys

import numpy as np
from _harness import measure, parse_arguments, report, time_row
from _index_fill import NUM_BLOCKS, TOKENS_PER_BLOCK, fill, random_tokens, store

from tiercel._native import Sequence
from tiercel.index import Index

NUM_EVICTED = 256
BOUND_US = 30.0
NUM_TENANTS = 8
TENANTS_BOUND_US = 2 * BOUND_US


def root_of(leaf: int) -> bytes:
    return bytes([leaf % NUM_TENANTS] * 16)


def shared_index() -> Index:
    index = Index([NUM_BLOCKS], tenants=[([NUM_BLOCKS // 10], [NUM_BLOCKS])] * NUM_TENANTS)
    for tenant in range(NUM_TENANTS):
        index.assign(root_of(tenant), tenant + 1)
    return index


def fill_leaves(index: Index, rng: np.random.Generator, tokens_per_leaf: int) -> None:
    """Store unrelated sequences and use them in another order, so that the oldest ones lie anywhere in memory."""
    num_leaves = NUM_BLOCKS * 16 // tokens_per_leaf
    tokens = random_tokens(rng, NUM_BLOCKS * 16).reshape(num_leaves, tokens_per_leaf)
    for leaf in range(num_leaves):
        store(index, Sequence(root_of(leaf), TOKENS_PER_BLOCK, tokens[leaf]))
    for turn, leaf in enumerate(rng.permutation(num_leaves)):
        index.match(Sequence(root_of(leaf), TOKENS_PER_BLOCK, tokens[leaf]), now_s=turn * 0.01).release()


def main() -> int:
    arguments = parse_arguments(__doc__)
    repeats = arguments.repeats or 400
    rng = np.random.default_rng(1)
    rows = []
    for name, tokens_per_leaf in (
        ("5K leaves", None),
        ("31K leaves", 512),
        ("1M leaves", 16),
        ("1M leaves, 8 tenants", 16),
    ):
        is_shared = "tenants" in name
        index = shared_index() if is_shared else Index([NUM_BLOCKS])
        if tokens_per_leaf is None:
            fill(index, rng)
        else:
            fill_leaves(index, rng, tokens_per_leaf)

        def evict(index: Index = index) -> None:
            assert index.evict(0, NUM_EVICTED).size == NUM_EVICTED

        bound = TENANTS_BOUND_US if is_shared else BOUND_US
        label = f"evict 256 blocks, {name}"
        rows.append(time_row(label, measure(evict, repeats), unit="us", bound=bound))
    return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
