"""The index against a plain-dict model, under long random histories of two tiers.

A block is named by its path: (root, id of block 0, id of block 1, ...). The model keeps a dict a tier from paths to
slots and predicts every answer; of an eviction, whose order is the policy's, it checks what must hold of any order.
TIERCEL_TEST_SEED repeats the history that a failure printed.
"""

import os
import random
import sys
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest

from tiercel._native import Sequence
from tiercel.index import EVICTION_POLICIES, Index, Match, Reservation

TOKENS_PER_BLOCK = 2
CAPACITIES = (24, 40)
EVICT_BATCH = (1, 3)

Path = tuple[int, ...]  # root, then block ids


@dataclass
class Writing:
    """A reservation as the model sees it: its paths, slots, and how many of them are still in the tier."""

    reservation: Reservation
    tier: int
    owner: int
    paths: list[Path]
    slots: list[int]
    num_live: int


@dataclass
class Tier:
    """One tier: every path present, its slot, and the reservation that writes it, if one does."""

    capacity: int
    slots: dict[Path, int] = field(default_factory=dict)
    writers: dict[Path, Writing] = field(default_factory=dict)
    pins: Counter[int] = field(default_factory=Counter)

    def present_blocks(self, path: Path) -> int:
        num_blocks = 0
        while num_blocks + 1 < len(path) and path[: num_blocks + 2] in self.slots:
            num_blocks += 1
        return num_blocks

    def is_ready(self, path: Path) -> bool:
        return path in self.slots and path not in self.writers

    def evictable(self, own: Path) -> list[Path]:
        """Ready, unpinned blocks without descendants in the tier that do not lie on the path `own`."""
        parents = {path[:-1] for path in self.slots}
        return [
            path
            for path, slot in self.slots.items()
            if path not in parents and path not in self.writers and not self.pins[slot] and path != own[: len(path)]
        ]


class Model:
    """The index under test and the dicts that say what it must answer."""

    def __init__(self, seed: int, policies: list[str]) -> None:
        self.random = random.Random(seed)
        self.index = Index(list(CAPACITIES), policies=policies, evict_batch=list(EVICT_BATCH))
        self.policies = policies
        self.tiers = [Tier(capacity) for capacity in CAPACITIES]
        self.matches: list[tuple[Match, list[tuple[int, int]]]] = []
        self.writing: list[Writing] = []
        self.owner = 0
        self.num_clears = 0

    def some_path(self) -> Path:
        """A path that likely shares a prefix with what is stored."""
        known = [path for tier in self.tiers for path in tier.slots]
        start: Path = (self.random.randrange(3),)
        if known and self.random.random() < 0.8:
            start = self.random.choice(known)
            start = start[: self.random.randint(1, len(start))]
        return start + tuple(self.random.randrange(3) for _ in range(self.random.choice([0, 0, 1, 2, 5, 12])))

    @staticmethod
    def sequence(path: Path) -> Sequence:
        tokens = np.repeat(np.array(path[1:], dtype=np.int32), TOKENS_PER_BLOCK)
        return Sequence(bytes([path[0]] * 16), TOKENS_PER_BLOCK, tokens)

    def match(self) -> None:
        path = self.some_path()
        limit = self.random.choice([None, None, 0, 1, 3])
        num_asked = len(path) - 1 if limit is None else min(limit, len(path) - 1)
        expected: list[tuple[int, int]] = []
        num_pending = 0
        for end in range(2, num_asked + 2):
            ready = [tier for tier in range(len(self.tiers)) if self.tiers[tier].is_ready(path[:end])]
            present = any(path[:end] in tier.slots for tier in self.tiers)
            if ready and not num_pending:
                expected.append((ready[0], self.tiers[ready[0]].slots[path[:end]]))
            elif present and not ready:
                num_pending += 1
            else:
                break
        match = self.index.match(self.sequence(path), limit_blocks=limit, touch=self.random.random() < 0.8)
        tiers = [tier for tier, _, count in match.segments for _ in range(count)]
        assert list(zip(tiers, match.slots().tolist(), strict=True)) == expected
        assert [first for _, first, _ in match.segments] == np.cumsum([0] + [n for *_, n in match.segments])[
            :-1
        ].tolist()
        assert (match.num_blocks, match.num_pending) == (len(expected), num_pending)
        assert match.generation == self.index.generation == self.num_clears
        for tier, slot in expected:
            self.tiers[tier].pins[slot] += 1
        self.matches.append((match, expected))

    def unpin(self, held: list[tuple[int, int]]) -> None:
        for tier, slot in held:
            self.tiers[tier].pins[slot] -= 1

    def truncate(self) -> None:
        if not self.matches:
            return
        match, held = self.random.choice(self.matches)
        num_blocks = self.random.randint(0, len(held) + 1)
        match.truncate(num_blocks)
        self.unpin(held[num_blocks:])
        del held[num_blocks:]
        assert match.slots().tolist() == [slot for _, slot in held]

    def release(self) -> None:
        if not self.matches:
            return
        match, held = self.matches.pop(self.random.randrange(len(self.matches)))
        if self.random.random() < 0.5:
            match.release()
            match.release()
        del match
        self.unpin(held)

    def leave(self, tier: Tier, path: Path) -> None:
        """Take one block out of the model's tier; a writer keeps its slot."""
        writer = tier.writers.pop(path, None)
        if writer is not None:
            writer.num_live = min(writer.num_live, writer.paths.index(path))
        del tier.slots[path]

    def check_evicted(self, tier: Tier, voided: list[int], own: Path, num_wanted: int) -> None:
        by_slot = {slot: path for path, slot in tier.slots.items() if path not in tier.writers}
        for slot in voided:
            assert by_slot[slot] in tier.evictable(own), "evicted what must stay, or not from the end"
            self.leave(tier, by_slot[slot])
        assert len(voided) <= num_wanted
        assert len(voided) == num_wanted or not tier.evictable(own)

    def reserve(self) -> None:
        path = self.some_path()
        number = self.random.randrange(len(self.tiers))
        tier = self.tiers[number]
        limit = self.random.choice([None, None, None, 2, 6])
        num_asked = len(path) - 1 if limit is None else min(limit, len(path) - 1)
        path = path[: num_asked + 1]
        first = tier.present_blocks(path)
        attached = [
            (end - 2, tier.writers[path[:end]].owner) for end in range(2, first + 2) if path[:end] in tier.writers
        ]
        num_free = self.index.stats(number).num_free
        missing = num_asked - first - num_free
        self.owner += 1
        taken = self.index.reserve(self.sequence(path), number, owner=self.owner, limit_blocks=limit)
        self.check_evicted(tier, taken.voided.tolist(), path, max(missing, EVICT_BATCH[number]) if missing > 0 else 0)
        assert (taken.tier, taken.owner, taken.first_block) == (number, self.owner, first)
        assert [(at, owner) for start, n, owner in taken.attached for at in range(start, start + n)] == attached
        assert taken.num_blocks == min(num_asked - first, num_free + len(taken.voided))
        assert taken.num_short == num_asked - first - taken.num_blocks
        sequence = self.sequence(path)
        assert taken.parent_key == sequence.parent_key(first)
        assert taken.keys().tobytes() == sequence.keys(first, first + taken.num_blocks).tobytes()
        paths = [path[: first + 2 + block] for block in range(taken.num_blocks)]
        writing = Writing(taken, number, self.owner, paths, taken.slots.tolist(), taken.num_blocks)
        for name, slot in zip(paths, writing.slots, strict=True):
            tier.slots[name] = slot
            tier.writers[name] = writing
        self.writing.append(writing)

    def commit(self) -> None:
        if not self.writing:
            return
        writing = self.writing.pop(self.random.randrange(len(self.writing)))
        num_blocks = len(writing.paths)
        is_aborted = self.random.random() < 0.15
        failed = np.array(
            [self.random.random() < self.random.choice([0, 0, 0.3]) for _ in range(num_blocks)], dtype=np.bool_
        )
        tier = self.tiers[writing.tier]
        live = range(writing.num_live)
        num_ready = 0 if is_aborted else next((block for block in live if failed[block]), writing.num_live)
        expected = set(writing.slots[num_ready:])
        if num_ready < writing.num_live:
            expected |= self.cut(tier, writing.paths[num_ready])
        for path in writing.paths[:num_ready]:
            del tier.writers[path]
        if is_aborted:
            writing.reservation = None  # type: ignore[assignment]
            return
        voided = self.index.commit(writing.reservation, failed if failed.any() else None)
        assert len(voided) == len(set(voided.tolist()))
        assert set(voided.tolist()) == expected
        with pytest.raises(ValueError, match="committed before"):
            self.index.commit(writing.reservation)

    def cut(self, tier: Tier, path: Path) -> set[int]:
        """Take a block and its descendants out of the model's tier; returns the slots of the ready ones."""
        subtree = [other for other in tier.slots if other[: len(path)] == path]
        voided = {tier.slots[other] for other in subtree if other not in tier.writers}
        for other in subtree:
            self.leave(tier, other)
        return voided

    def drop(self) -> None:
        path = self.some_path()
        if len(path) == 1:
            return
        block = self.random.randrange(len(path) - 1)
        number = self.random.randrange(len(self.tiers))
        voided = self.index.drop(self.sequence(path), block, number)
        assert set(voided.tolist()) == self.cut(self.tiers[number], path[: block + 2])

    def evict(self) -> None:
        number = self.random.randrange(len(self.tiers))
        num_wanted = self.random.randrange(6)
        self.check_evicted(self.tiers[number], self.index.evict(number, num_wanted).tolist(), (), num_wanted)

    def clear(self) -> None:
        if self.random.random() > 0.05:
            return
        self.index.clear()
        self.num_clears += 1
        for tier in self.tiers:
            tier.slots.clear()
            tier.writers.clear()
        for writing in self.writing:
            writing.num_live = 0

    def restart(self) -> None:
        """What an index exports, another one restores, in any order that keeps the last use last."""
        number = self.random.randrange(len(self.tiers))
        parents, keys, slots = self.index.export_blocks(number)
        other = Index(list(CAPACITIES), policies=self.policies)
        roots = np.array([[root] * 16 for root in range(3)], dtype=np.uint8)
        assert other.restore_blocks(number, parents, keys, slots, self.random.choice([roots, roots[:0]])).all()
        other.check()
        tier = self.tiers[number]
        readable = {p for p in tier.slots if all(tier.is_ready(p[:end]) for end in range(2, len(p) + 1))}
        assert set(slots.tolist()) == {tier.slots[path] for path in readable}
        for path in readable:
            found = other.match(self.sequence(path))
            assert found.slots().tolist() == [tier.slots[path[:end]] for end in range(2, len(path) + 1)]

    def check(self) -> None:
        self.index.check()
        for number, tier in enumerate(self.tiers):
            stats = self.index.stats(number)
            num_writing = sum(len(w.slots) for w in self.writing if w.tier == number)
            ready = {slot for path, slot in tier.slots.items() if path not in tier.writers}
            pinned = {slot for slot, count in tier.pins.items() if count}
            assert (stats.num_ready, stats.num_writing, stats.num_pinned) == (len(ready), num_writing, len(pinned))
            assert stats.num_free == tier.capacity - len(ready | pinned) - num_writing


def run_history(seed: int, num_steps: int, policies: list[str]) -> None:
    model = Model(seed, policies)
    steps = [model.match] * 5 + [model.reserve] * 6 + [model.commit] * 6 + [model.release] * 4
    steps += [model.truncate, model.drop, model.evict, model.evict, model.clear, model.restart]
    for _ in range(num_steps):
        model.random.choice(steps)()
        model.check()
    while model.matches:
        model.release()
    while model.writing:
        model.commit()
    model.index.clear()
    assert [model.index.stats(tier).num_free for tier in range(2)] == list(CAPACITIES)


@pytest.mark.parametrize("policy", EVICTION_POLICIES)
def test_the_index_agrees_with_a_plain_dict_model_under_every_policy(policy: str) -> None:
    chosen = os.environ.get("TIERCEL_TEST_SEED")
    seed = int(chosen) if chosen else random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"TIERCEL_TEST_SEED={seed}\n")
    other = random.Random(seed).choice(EVICTION_POLICIES)
    run_history(seed, num_steps=1500, policies=[policy, other])
    run_history(seed + 1, num_steps=500, policies=[other, policy])
