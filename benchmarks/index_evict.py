"""Does evicting 256 blocks cost the same whatever the number of leaves?

5K leaves are conversations of a million blocks, 31K unrelated sequences of 512 tokens, 1M unrelated blocks; the latter
two are used in random order.
"""

import sys

import numpy as np
from _harness import measure, parse_arguments, report, time_row
from _index_fill import NUM_BLOCKS, fill, random_tokens, sequence_of, store

from tiercel.index import Index

NUM_EVICTED = 256
BOUND_US = 30.0


def fill_leaves(index: Index, rng: np.random.Generator, tokens_per_leaf: int) -> None:
    """Store unrelated sequences and use them in another order, so that the oldest ones lie anywhere in memory."""
    num_leaves = NUM_BLOCKS * 16 // tokens_per_leaf
    tokens = random_tokens(rng, NUM_BLOCKS * 16).reshape(num_leaves, tokens_per_leaf)
    for leaf in tokens:
        store(index, sequence_of(leaf))
    for leaf in rng.permutation(num_leaves):
        index.match(sequence_of(tokens[leaf])).release()


def main() -> int:
    arguments = parse_arguments(__doc__)
    repeats = arguments.repeats or 400
    rng = np.random.default_rng(1)
    rows = []
    for name, tokens_per_leaf in (("5K", None), ("31K", 512), ("1M", 16)):
        index = Index([NUM_BLOCKS])
        if tokens_per_leaf is None:
            fill(index, rng)
        else:
            fill_leaves(index, rng, tokens_per_leaf)

        def evict(index: Index = index) -> None:
            assert index.evict(0, NUM_EVICTED).size == NUM_EVICTED

        rows.append(time_row(f"evict 256 blocks, {name} leaves", measure(evict, repeats), unit="us", bound=BOUND_US))
    return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
