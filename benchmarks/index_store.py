"""What does it cost to take slots for a new 4K-token sequence in a full cache of a million blocks, eviction included?

One call of the row reserves and commits 256 blocks, keys hashed before; `tokens in` hashes them too. `one block` grows
a sequence by a block at a time, as decoding does.
"""

import sys

import numpy as np
from _harness import measure, parse_arguments, report, time_row
from _index_fill import NUM_BLOCKS, TOKENS_PER_BLOCK, Tokens, fill, random_tokens, sequence_of, store

from tiercel._native import Sequence
from tiercel.index import Index

SEQUENCE_TOKENS = 4096
BOUND_US = 100.0


def full_index(shape: str, rng: np.random.Generator) -> Index:
    """A full index of conversations, or of unrelated sequences of 512 tokens."""
    index = Index([NUM_BLOCKS])
    if shape == "conversations":
        fill(index, rng)
    while index.stats(0).num_free:
        store(index, sequence_of(random_tokens(rng, 512)))
    return index


def main() -> int:
    arguments = parse_arguments(__doc__)
    repeats = arguments.repeats or 500
    rng = np.random.default_rng(1)
    rows = []
    for shape in ("conversations", "31,250 sequences of 512 tokens"):
        index = full_index(shape, rng)
        hashed: list[Sequence] = []
        fresh: list[Tokens] = []

        def hash_next(hashed: list[Sequence] = hashed) -> None:
            hashed[:] = [sequence_of(random_tokens(rng, SEQUENCE_TOKENS))]
            hashed[0].keys()

        def make_tokens(fresh: list[Tokens] = fresh) -> None:
            fresh[:] = [random_tokens(rng, SEQUENCE_TOKENS)]

        def store_hashed(index: Index = index, hashed: list[Sequence] = hashed) -> None:
            store(index, hashed[0])

        def store_tokens(index: Index = index, fresh: list[Tokens] = fresh) -> None:
            store(index, sequence_of(fresh[0]))

        growing = sequence_of(random_tokens(rng, SEQUENCE_TOKENS))

        def add_block(growing: Sequence = growing) -> None:
            growing.extend(random_tokens(rng, TOKENS_PER_BLOCK))
            growing.keys(growing.num_blocks - 1)

        def store_block(index: Index = index, growing: Sequence = growing) -> None:
            store(index, growing)

        evicted = index.stats(0).num_evicted
        known = measure(store_hashed, repeats, setup=hash_next)
        assert index.stats(0).num_evicted - evicted == (repeats + 1) * SEQUENCE_TOKENS // TOKENS_PER_BLOCK
        rows.append(time_row(f"4K tokens, keys known, full of {shape}", known, unit="us", bound=BOUND_US))
        whole = measure(store_tokens, repeats, setup=make_tokens)
        rows.append(time_row(f"4K tokens in, full of {shape}", whole, unit="us"))
        rows.append(time_row(f"one block, full of {shape}", measure(store_block, repeats, setup=add_block), unit="us"))
    return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
