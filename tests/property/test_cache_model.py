"""Whatever is admitted to disk and whatever is evicted: a byte served is the byte stored, and nothing is leaked.

Random stores, loads, prefetches, cancellations, lookups and resets over real tiers, a few at a time, under every admission policy
with every eviction policy. The model is the engine: its KV is a function of the tokens, so every block served can be checked.
"""

import gc
import random
import time
from pathlib import Path

import numpy as np
import pytest

import tiercel.index
from tests.helpers.seeds import chosen_seed
from tests.helpers.small_engine import MODEL, TOKENS_PER_BLOCK, SmallEngine, config, tokens
from tiercel import Cache, Sequence, Ticket

ADMISSIONS = ("through", "on_second_hit", "on_evict")
POLICIES: tuple[str, ...] = tuple(getattr(tiercel.index, "EVICTION_POLICIES", ("lru",)))
NUM_STEPS = 150
BLOCKS_MAX = 24
AREAS = 6


class World:
    """A cache and an engine whose memory is divided into areas, one for each ticket that may be open."""

    def __init__(self, cache: Cache, seed: int) -> None:
        self.cache = cache
        self.random = random.Random(seed)
        self.engine = SmallEngine(cache.geometry, AREAS * BLOCKS_MAX)
        self.open: dict[int, tuple[Ticket, Sequence | None]] = {}

    def prompt(self) -> Sequence:
        """One of a few prompts that share beginnings, by a new object."""
        common = tokens(self.random.choice((0, 4, 9)), seed=self.random.randrange(2))
        own = tokens(BLOCKS_MAX, seed=100 + self.random.randrange(4))
        whole = np.concatenate([common, own])[: self.random.randint(1, BLOCKS_MAX) * TOKENS_PER_BLOCK]
        return self.cache.sequence(np.ascontiguousarray(whole))

    def area(self) -> int:
        """An area that no ticket uses, waiting for one where there is none."""
        free = [area for area in range(AREAS) if area not in self.open]
        if free:
            return self.random.choice(free)
        return self.close_one()

    def close_one(self) -> int:
        """Wait for one ticket; what a load brought must be right."""
        area = self.random.choice(list(self.open))
        ticket, loaded = self.open.pop(area)
        result = ticket.wait(30)
        if loaded is not None:
            self.engine.check(loaded, result.num_blocks_ok, at=area * BLOCKS_MAX)
        return area

    def step(self) -> None:
        act = self.random.choices(("store", "load", "prefetch", "lookup", "cancel", "reset"), (40, 30, 10, 10, 10, 1))[
            0
        ]
        getattr(self, act)()

    def store(self) -> None:
        sequence, area = self.prompt(), self.area()
        first = self.random.choice((0, 0, self.random.randint(0, sequence.num_blocks)))
        source = self.engine.fill(sequence, start=first, at=area * BLOCKS_MAX)
        each = np.array([self.random.randint(0, 100) for _ in range(source.num_blocks)], np.int32)
        priority = self.random.choice((0, 50, each))
        ticket = self.cache.store(sequence, source, first_block=first, priority=priority)
        self.open[area] = (ticket, None)

    def load(self) -> None:
        sequence, area = self.prompt(), self.area()
        at = area * BLOCKS_MAX
        self.open[area] = (self.cache.load(sequence, self.engine.blocks(at, at + BLOCKS_MAX)), sequence)

    def prefetch(self) -> None:
        self.open[self.area()] = (self.cache.prefetch(self.prompt()), None)

    def lookup(self) -> None:
        with self.cache.lookup(self.prompt()):
            pass

    def cancel(self) -> None:
        if self.open:
            ticket, _ = self.random.choice(list(self.open.values()))
            ticket.cancel()

    def reset(self) -> None:
        self.cache.reset()


def assert_nothing_is_held(cache: Cache) -> None:
    """Once nothing runs: demotions may still begin in the background, and end."""
    gc.collect()
    deadline = time.monotonic() + 30
    while True:
        status = cache.stats()
        held = {tier.name: (tier.num_pinned, tier.num_writing) for tier in status.tiers}
        if not status.tickets["running"] and set(held.values()) == {(0, 0)}:
            break
        assert time.monotonic() < deadline, f"still held: {held}, running: {status.tickets['running']}"
        time.sleep(0.005)
    cache._assembly.control.index.check()
    for tier in status.tiers:
        assert tier.num_free + tier.num_ready == tier.num_slots, f"{tier.name}: slots were leaked"


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("admission", ADMISSIONS)
def test_no_admission_or_eviction_policy_serves_a_wrong_byte_or_leaks_a_slot(
    tmp_path: Path, admission: str, policy: str
) -> None:
    seed = chosen_seed()
    settings = config(
        tmp_path,
        host=40,
        disk=100,
        ssd_admission=admission,
        eviction_policy=policy,
        evict_start_threshold=random.Random(seed).choice((0.6, 0.9, 1.0)),
        evict_ratio=0.05,
        hit_reward_seconds=0.01,
        min_store_priority=random.Random(seed + 1).choice((0, 20)),
    )
    with Cache.open(MODEL, settings) as cache:
        world = World(cache, seed)
        for _ in range(NUM_STEPS):
            world.step()
        while world.open:
            world.close_one()
        assert_nothing_is_held(cache)
    with Cache.open(MODEL, settings) as cache:
        again = World(cache, seed)
        for _ in range(20):
            again.load()
        while again.open:
            again.close_one()
        assert_nothing_is_held(cache)
