"""How long does a lookup take in an index of a million blocks?

`match` alone has all keys hashed; `tokens in` also hashes the sequence from scratch. Each call takes another sequence,
so that the processor's caches are not kept warm by one. Bounds are those of a whole lookup, plan included, which this
is only the larger part of.
"""

import sys

import numpy as np
from _harness import Row, measure, parse_arguments, report, time_row
from _index_fill import NUM_BLOCKS, Tokens, fill, random_tokens, sequence_of, store_by_turns

from tiercel._native import Sequence
from tiercel.index import Index

BOUNDS_US = {512: (25.0, 25.0), 16_384: (120.0, 40.0), 131_072: (900.0, 150.0)}  # from scratch, grown
COPIES = {512: 200, 16_384: 48, 131_072: 8}
GROWTH_TOKENS = 512


def measure_length(index: Index, stored: list[Tokens], num_tokens: int, repeats: int | None) -> list[Row]:
    count = repeats or (400 if num_tokens < 100_000 else 40)
    from_scratch, when_grown = BOUNDS_US[num_tokens]
    name = f"{num_tokens} tokens"

    def look_up(sequence: Sequence) -> int:
        return index.match(sequence).num_blocks

    def tokens_in(tokens: Tokens) -> int:
        return index.match(sequence_of(tokens)).num_blocks

    hashed = [sequence_of(tokens) for tokens in stored]
    for sequence in hashed:
        assert look_up(sequence) == num_tokens // 16
    in_turn = iter(hashed * (count // len(hashed) + 2))
    match_alone = measure(lambda: look_up(next(in_turn)), count)
    inputs = iter(stored * (count // len(stored) + 2))
    whole = measure(lambda: tokens_in(next(inputs)), count)

    grown: list[Sequence] = []
    growing = iter(stored * (count // len(stored) + 2))

    def look_up_shorter() -> None:
        tokens = next(growing)
        sequence = sequence_of(tokens[:-GROWTH_TOKENS])
        look_up(sequence)
        grown[:] = [sequence]
        new_tokens[:] = [tokens[-GROWTH_TOKENS:]]

    new_tokens: list[Tokens] = []

    def look_up_grown() -> None:
        grown[0].extend(new_tokens[0])
        look_up(grown[0])

    growth = measure(look_up_grown, count, setup=look_up_shorter)
    rng = np.random.default_rng(2)
    unknown = iter([random_tokens(rng, num_tokens) for _ in range(count + 1)])
    miss = measure(lambda: tokens_in(next(unknown)), count)
    return [
        time_row(f"match alone, {name}, full hit", match_alone, unit="us"),
        time_row(f"tokens in, {name}, full hit", whole, unit="us", bound=from_scratch),
        time_row(f"tokens in, {name}, grown by 512", growth, unit="us", bound=when_grown),
        time_row(f"tokens in, {name}, miss", miss, unit="us", bound=whole.median_s * 1e6),
    ]


def main() -> int:
    arguments = parse_arguments(__doc__)
    rng = np.random.default_rng(1)
    extra_blocks = sum(COPIES[num_tokens] * num_tokens // 16 for num_tokens in COPIES)
    index = Index([NUM_BLOCKS + 64 * 64 + extra_blocks])
    fill(index, rng)
    rows = []
    for num_tokens, copies in COPIES.items():
        stored = [random_tokens(rng, num_tokens) for _ in range(copies)]
        for tokens in stored:
            store_by_turns(index, tokens, 1024)
        rows += measure_length(index, stored, num_tokens, arguments.repeats)
    return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
