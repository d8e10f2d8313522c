"""Same inputs, same seed, same plan: two control halves that are told the same do the same, under every policy and admission."""

import random

import msgspec
import numpy as np
import pytest

from tests.helpers.control_samples import BLOCK_BYTES, Bench, sequence
from tests.helpers.seeds import chosen_seed
from tiercel.control import Admission, Operation
from tiercel.index import EVICTION_POLICIES
from tiercel.tiers.base import BlockStatus

NUM_STEPS = 200


class Trail:
    """Random calls on a control half; notes every plan and every slot that is freed, as bytes."""

    def __init__(self, seed: int, policy: str, admission: Admission) -> None:
        self.random = random.Random(seed)
        self.noted: list[bytes] = []
        self.bench = Bench(
            host=24,
            disk=60,
            eviction_policy=policy,
            ssd_admission=admission,
            evict_start_threshold=0.8,
            evict_stop_threshold=0.5,
            hit_reward_seconds=0.5,
            ssd_write_budget_per_day=24 * 200 * BLOCK_BYTES,
            ghost_sample_rate=1.0,
        )

    def run(self) -> list[bytes]:
        for _ in range(NUM_STEPS):
            self.bench.now_s += self.random.random()
            self.random.choice((self.store, self.store, self.load, self.relieve))()
        self.bench.check()
        for tier in self.bench.control.tiers:
            self.noted += [column.tobytes() for column in self.bench.control.export_blocks(tier)]
        return self.noted

    def end(self, operation: Operation) -> None:
        self.noted.append(msgspec.msgpack.encode(operation.plan))
        status = self.random.choice((BlockStatus.OK,) * 8 + (BlockStatus.IO_ERROR,))
        self.bench.finish(operation, status)
        self.noted.append(operation.statuses.tobytes())

    def store(self) -> None:
        self.bench.ticket += 1
        stored = sequence(self.random.randint(1, 12), seed=self.random.randrange(9))
        each = np.array([self.random.randint(0, 100) for _ in range(stored.num_blocks)], np.int32)
        control = self.bench.control
        operation = control.begin_store(
            self.bench.ticket,
            stored,
            blocks=range(stored.num_blocks),
            deadline_s=1.0,
            targets=control.tiers,
            priority=self.random.choice((0, 50, each)),
            now_s=self.bench.now_s,
        )
        self.end(operation)

    def load(self) -> None:
        self.bench.ticket += 1
        wanted = sequence(self.random.randint(1, 12), seed=self.random.randrange(9))
        begin = self.random.choice((self.bench.control.begin_load, self.bench.control.begin_prefetch))
        lookup = self.bench.control.lookup(wanted, now_s=self.bench.now_s)
        self.end(begin(self.bench.ticket, lookup, deadline_s=1.0, now_s=self.bench.now_s))

    def relieve(self) -> None:
        relief, now_s = self.bench.control.relief, self.bench.now_s
        frees = relief.evict(now_s)
        while operation := relief.begin_demotion(self.bench.ticket + 1, now_s, 1.0):
            self.bench.ticket += 1
            self.end(operation)
            relief.end(operation, now_s)
        self.noted.append(msgspec.msgpack.encode((frees, relief.evict_undemoted(now_s))))


@pytest.mark.parametrize("policy", EVICTION_POLICIES)
@pytest.mark.parametrize("admission", Admission)
def test_the_same_calls_make_the_same_plans(policy: str, admission: Admission) -> None:
    seed = chosen_seed()
    first = Trail(seed, policy, admission).run()
    again = Trail(seed, policy, admission).run()
    assert len(first) == len(again)
    differing = [number for number, (one, other) in enumerate(zip(first, again, strict=True)) if one != other]
    assert not differing, f"seed {seed}: entry {differing[0]} of {len(first)} differs"
    assert Trail(seed + 1, policy, admission).run() != first
