"""Tenants of the index against a model by block, in plain dicts, under long random histories.

The first test predicts every victim under lru. The second one, under any policy and over two tiers, holds what must be so
whatever the order: nobody is evicted below its reserve for another, and nobody holds more than its limit.
TIERCEL_TEST_SEED repeats the history that a failure printed.
"""

import random
from dataclasses import dataclass

import numpy as np
import pytest

from tests.helpers.seeds import chosen_seed
from tiercel._native import Sequence
from tiercel.index import EVICTION_POLICIES, Index, Match

Path = tuple[int, ...]  # tenant, then block ids

CAPACITY = 60
RESERVES = (0, 20, 5, 0)
LIMITS = (CAPACITY, 40, CAPACITY, 12)
NUM_ROOTS = len(RESERVES)


def root_of(number: int) -> bytes:
    return bytes([number + 1] * 16)


def sequence_of(path: Path) -> Sequence:
    return Sequence(root_of(path[0]), 1, np.array(path[1:], np.int32))


def some_path(rng: random.Random) -> Path:
    """Few long paths with common beginnings; some tenants store much more than others."""
    start = (min(rng.randrange(NUM_ROOTS), rng.randrange(NUM_ROOTS)), *([rng.randrange(4)] * rng.randint(1, 5)))
    return start + tuple(rng.randrange(2) for _ in range(rng.choice([0, 1, 4, 8, 8, 20])))


@dataclass
class Block:
    turn: int
    priority: int


class Model:
    """The blocks of one tier under lru, and who has reserved what."""

    def __init__(self) -> None:
        self.blocks: dict[Path, Block] = {}
        self.owner = list(range(NUM_ROOTS))
        self.turn = 0

    def num_held(self, tenant: int) -> int:
        return sum(self.owner[path[0]] == tenant for path in self.blocks)

    def use(self, path: Path, num_blocks: int, priority: int = 0) -> None:
        for end in range(num_blocks + 1, 1, -1):
            self.turn += 1
            known = self.blocks.get(path[:end])
            self.blocks[path[:end]] = Block(self.turn, max(priority, known.priority if known else 0))

    def evict(self, num_blocks: int, spared: Path = (), tenant: int | None = None) -> list[Path]:
        """Of one tenant, or of all that hold more than they have reserved."""
        evicted: list[Path] = []
        while len(evicted) < num_blocks:
            gives = [t == tenant if tenant is not None else self.num_held(t) > RESERVES[t] for t in range(NUM_ROOTS)]
            parents = {path[:-1] for path in self.blocks}
            leaves = [
                path
                for path in self.blocks
                if path not in parents and path != spared[: len(path)] and gives[self.owner[path[0]]]
            ]
            if not leaves:
                break
            victim = min(leaves, key=lambda path: (self.blocks[path].priority, self.blocks[path].turn))
            del self.blocks[victim]
            evicted.append(victim)
        return evicted

    def make_room(self, path: Path, num_wanted: int) -> tuple[list[Path], int]:
        """What leaves for so many more blocks of a path, and how many of these find a slot."""
        tenant = self.owner[path[0]]
        evicted = self.evict(self.num_held(tenant) + num_wanted - LIMITS[tenant], path, tenant)
        num_wanted = min(num_wanted, max(0, LIMITS[tenant] - self.num_held(tenant)))
        evicted += self.evict(len(self.blocks) + num_wanted - CAPACITY, path)
        evicted += self.evict(len(self.blocks) + num_wanted - CAPACITY, path, tenant)
        return evicted, min(num_wanted, CAPACITY - len(self.blocks))


def run_lru_history(seed: int, num_steps: int) -> None:
    rng = random.Random(seed)
    model = Model()
    tenants = [([reserve], [limit]) for reserve, limit in zip(RESERVES[1:], LIMITS[1:], strict=True)]
    index = Index([CAPACITY], tenants=tenants)
    for number in range(1, NUM_ROOTS):
        index.assign(root_of(number), number)
    slots: dict[int, Path] = {}
    for step in range(num_steps):
        now_s = step * 0.5
        path = some_path(rng)
        match = index.match(sequence_of(path), now_s=now_s)
        num_present = match.num_blocks
        match.release()
        model.use(path, num_present)
        if rng.random() < 0.1:
            num_blocks = rng.randrange(12)
            victims = index.evict(0, num_blocks, now_s + 0.25)
            assert [slots.pop(slot) for slot in victims.tolist()] == model.evict(num_blocks)
            continue
        priority = rng.choice([0, 0, 0, 0, 0, 7])
        taken = index.reserve(sequence_of(path), 0, owner=0, now_s=now_s + 0.25, priority=priority)
        for end in range(2, num_present + 2):
            model.blocks[path[:end]].priority = max(model.blocks[path[:end]].priority, priority)
        victims_expected, num_taken = model.make_room(path, len(path) - 1 - num_present)
        assert [slots.pop(slot) for slot in taken.voided.tolist()] == victims_expected
        assert (taken.num_blocks, taken.num_short) == (num_taken, len(path) - 1 - num_present - num_taken)
        model.use(path, num_present + num_taken, priority)
        slots |= {slot: path[: num_present + 2 + at] for at, slot in enumerate(taken.slots.tolist())}
        index.commit(taken)
        taken.release()
        index.check()
        assert [share.num_held for share in index.shares(0)] == [model.num_held(t) for t in range(NUM_ROOTS)]


def test_tenants_share_an_lru_tier_as_their_model_does() -> None:
    run_lru_history(chosen_seed(), num_steps=1500)


class AnyHistory:
    """Two tiers under any policies, with pins, demotions, drops, restarts and roots that change hands."""

    capacities = (40, 70)
    reserves = ((0, 0), (15, 10), (5, 30), (0, 0))
    limits = ((40, 70), (30, 40), (40, 70), (8, 12))

    def __init__(self, seed: int, policies: list[str]) -> None:
        self.rng = random.Random(seed)
        self.policies = policies
        self.owner = [0] * NUM_ROOTS
        self.index = self.make_index()
        self.pins: list[Match] = []
        self.now_s = 0.0

    def make_index(self) -> Index:
        tenants = [
            (list(reserve), list(limit)) for reserve, limit in zip(self.reserves[1:], self.limits[1:], strict=True)
        ]
        index = Index(list(self.capacities), policies=self.policies, evict_batch=[3, 1], tenants=tenants)
        for number, owner in enumerate(self.owner):
            index.assign(root_of(number), owner)
        return index

    def held(self, tier: int) -> list[int]:
        return [share.num_held for share in self.index.shares(tier)]

    def expect_fair(self, tier: int, before: list[int], tenant: int | None) -> None:
        for other, (had, has) in enumerate(zip(before, self.held(tier), strict=True)):
            if other != tenant:
                assert has >= min(had, self.reserves[other][tier]), "evicted below its reserve for another"
                assert has <= had, "grew by itself"
            else:
                assert has <= max(had, self.limits[other][tier]), "holds more than its limit"

    def store(self) -> None:
        path, tier = some_path(self.rng), self.rng.randrange(2)
        before = self.held(tier)
        taken = self.index.reserve(sequence_of(path), tier, owner=1, now_s=self.now_s)
        tenant = self.owner[path[0]]
        self.expect_fair(tier, before, tenant)
        if taken.num_short and not self.pins and self.held(tier)[tenant] < self.limits[tenant][tier]:
            gone = [has <= self.reserves[other][tier] for other, has in enumerate(self.held(tier)) if other != tenant]
            assert all(gone), "found no slot while others held more than their reserve"
        flags = np.array([self.rng.random() < 0.03 for _ in range(taken.num_blocks)], np.bool_)
        self.index.commit(taken, flags)

    def look_up(self) -> None:
        self.pins.append(self.index.match(sequence_of(some_path(self.rng)), now_s=self.now_s))
        if len(self.pins) > 2:
            self.pins.pop(0).release()

    def evict(self) -> None:
        tier = self.rng.randrange(2)
        before = self.held(tier)
        kept_in = self.rng.choice([None, 1 - tier])
        self.index.evict(tier, self.rng.randrange(10), self.now_s, kept_in=kept_in)
        self.expect_fair(tier, before, None)

    def demote(self) -> None:
        held_before = self.held(0)
        before = self.held(1)
        made = self.index.demote(0, 1, owner=2, num_blocks=20, now_s=self.now_s)
        if made is None:
            return
        match, reservation = made
        grown = [tenant for tenant, (had, has) in enumerate(zip(before, self.held(1), strict=True)) if has > had]
        self.expect_fair(1, before, grown[0] if grown else None)
        self.index.commit(reservation)
        match.release()
        reservation.release()
        leaving = [t for t, held in enumerate(held_before) if held > self.reserves[t][0]]
        assert leaving, "demoted what nobody would evict"

    def drop(self) -> None:
        path = some_path(self.rng)
        self.index.drop(sequence_of(path), self.rng.randrange(len(path) - 1), self.rng.randrange(2))

    def change_hands(self) -> None:
        root = self.rng.randrange(NUM_ROOTS)
        self.owner[root] = self.rng.randrange(NUM_ROOTS)
        self.index.assign(root_of(root), self.owner[root])

    def restart(self) -> None:
        """What is restored belongs to the tenants of its roots, in any order of the calls."""
        other = self.make_index()
        early = self.rng.random() < 0.5
        if not early:
            other = Index(list(self.capacities), policies=self.policies, tenants=[([0, 0], list(self.capacities))] * 3)
        parents, keys, slots = self.index.export_blocks(1)
        assert other.restore_blocks(1, parents, keys, slots, np.empty((0, 16), np.uint8)).all()
        for number, owner in enumerate(self.owner):
            other.assign(root_of(number), owner)
        other.check()
        assert [share.num_held for share in other.shares(1)] == self.held(1)
        other.evict(1, 5)
        other.check()

    def run(self, num_steps: int) -> None:
        steps = [self.store] * 8 + [self.look_up] * 4 + [self.evict, self.demote, self.demote, self.drop]
        for _ in range(num_steps):
            self.now_s += self.rng.choice([0.0, 0.5])
            self.rng.choice(steps)()
            if self.rng.random() < 0.02:
                self.change_hands()
            if self.rng.random() < 0.02:
                self.restart()
            self.index.check()


@pytest.mark.parametrize("policy", EVICTION_POLICIES)
def test_no_tenant_is_evicted_below_its_reserve_for_another_under_any_policy(policy: str) -> None:
    seed = chosen_seed()
    other = random.Random(seed).choice(EVICTION_POLICIES)
    AnyHistory(seed, [policy, other]).run(num_steps=800)
