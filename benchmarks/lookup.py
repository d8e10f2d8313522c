"""How long does a lookup take, tokens in and plan out, through the public facade?

The whole of `Cache.lookup(Cache.sequence(tokens))`: hashing, match and pins in an index of a million blocks, load or
recompute decided on learnt costs, metrics counted. `+ moves` is the control half's launch on top: the same lookup turned
into the frozen plan that goes to the data half. Each call takes another sequence, so that the processor's caches are not
kept warm by one. The host tier's slots are mapped but hold no bytes: none is moved here.
"""

import sys

import numpy as np
from _harness import Row, measure, parse_arguments, report, time_row
from _index_fill import NUM_BLOCKS, Tokens, fill, random_tokens

from tiercel import Cache, CacheConfig, ModelConfig, Sequence
from tiercel.control import Lookup

BOUNDS_US = {512: (25.0, 25.0), 16_384: (120.0, 40.0), 131_072: (900.0, 150.0)}  # from scratch, grown
COPIES = {512: 200, 16_384: 48, 131_072: 8}
GROWTH_TOKENS = 512
MODEL = ModelConfig(num_layers=1, num_kv_heads=1, head_size=64, dtype="float16", model_id="lookup-benchmark")


def open_cache() -> Cache:
    room = sum(COPIES[num_tokens] * num_tokens // 16 for num_tokens in COPIES)
    cache = Cache.open(MODEL, CacheConfig(num_cpu_blocks=NUM_BLOCKS + 64 * 64 + room))
    for tokens in (1_000, 10_000, 100_000):
        cache.observe_prefill(cached_tokens=0, computed_tokens=tokens, seconds=tokens * 1e-4)
    return cache


def store(cache: Cache, tokens: Tokens) -> None:
    """Make a sequence's blocks ready without moving bytes, turn by turn."""
    index = cache._assembly.control.index
    sequence = cache.sequence()
    for start in range(0, len(tokens), 1024):
        sequence.extend(tokens[start : start + 1024])
        index.commit(index.reserve(sequence, 0, owner=1))


def measure_length(cache: Cache, num_tokens: int, rng: np.random.Generator, repeats: int | None) -> list[Row]:
    count = repeats or (400 if num_tokens < 100_000 else 60)
    stored = [random_tokens(rng, num_tokens) for _ in range(COPIES[num_tokens])]
    for tokens in stored:
        store(cache, tokens)
    inputs = iter(stored * (3 * count // len(stored) + 6))
    held: list[Lookup] = []
    control = cache._assembly.control

    def release() -> None:
        while held:
            held.pop().release()

    def look_up() -> None:
        held.append(cache.lookup(cache.sequence(next(inputs))))

    def plan_moves() -> None:
        lookup = cache.lookup(cache.sequence(next(inputs)))
        control.finish(control.begin_load(1, lookup, deadline_s=1.0))

    hit = measure(look_up, count, setup=release)
    assert held[-1].num_blocks == num_tokens // 16
    release()
    planned = measure(plan_moves, count)
    grown: list[tuple[Sequence, Tokens]] = []

    def look_up_shorter() -> None:
        release()
        tokens = next(inputs)
        sequence = cache.sequence(tokens[:-GROWTH_TOKENS])
        cache.lookup(sequence).release()
        grown[:] = [(sequence, tokens[-GROWTH_TOKENS:])]

    def look_up_grown() -> None:
        sequence, new_tokens = grown[0]
        sequence.extend(new_tokens)
        held.append(cache.lookup(sequence))

    growth = measure(look_up_grown, count, setup=look_up_shorter)
    release()
    unknown = iter([random_tokens(rng, num_tokens) for _ in range(count + 1)])
    miss = measure(lambda: cache.lookup(cache.sequence(next(unknown))), count)
    scratch_us, grown_us = BOUNDS_US[num_tokens]
    return [
        time_row(f"lookup, {num_tokens} tokens, full hit", hit, unit="us", bound=scratch_us),
        time_row(f"lookup + moves, {num_tokens} tokens, full hit", planned, unit="us", bound=scratch_us),
        time_row(f"lookup, {num_tokens} tokens, grown by 512", growth, unit="us", bound=grown_us),
        time_row(f"lookup, {num_tokens} tokens, miss", miss, unit="us", bound=hit.median_s * 1e6),
    ]


def main() -> int:
    arguments = parse_arguments(__doc__)
    rng = np.random.default_rng(1)
    with open_cache() as cache:
        fill(cache._assembly.control.index, rng)
        rows = []
        for num_tokens in COPIES:
            rows += measure_length(cache, num_tokens, rng, arguments.repeats)
    return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
