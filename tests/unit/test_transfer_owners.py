"""Owners of a lane: by weight and bytes, first in, first out within one, and bandwidth with time passed in."""

import queue
import random
import threading
import time
from collections import Counter

import numpy as np
import pytest

from tests.helpers.seeds import chosen_seed
from tests.helpers.tier_samples import ODD_BLOCK_BYTES
from tiercel.errors import ThrottledError
from tiercel.plan import Completion, Move, OperationKind, Plan, pack_slots
from tiercel.tiers.base import BlockLabels, BlockMemory, Slots, Statuses, TierName
from tiercel.tiers.memory import allocate_memory
from tiercel.tiers.null import NullTier
from tiercel.transfer import EngineSide, LaneName, Owner, TenantRate, TransferEngine, TransferSettings
from tiercel.transfer.job import Chunk, Job
from tiercel.transfer.queues import OwnerQueues

HOST = TierName.HOST
STORES = LaneName(HOST, False)
A, B, C = Owner(1), Owner(2), Owner(3)


def plan_of(ticket: int, num_blocks: int, first_slot: int = 0) -> Plan:
    slots = pack_slots(np.arange(first_slot, first_slot + num_blocks, dtype=np.uint32))
    move = Move(
        source=TierName.GPU, target=HOST, first_block=0, num_blocks=num_blocks, source_slots=b"", target_slots=slots
    )
    return Plan(
        ticket=ticket, kind=OperationKind.STORE, first_block=0, num_blocks=num_blocks, moves=(move,), frees=(),
        deadline_s=60.0,
    )  # fmt: skip


def chunk_of(owner: Owner, num_blocks: int = 1) -> Chunk:
    return Job(plan_of(1, num_blocks), None, 0.0, owner).first_chunks()[0]


def size_of(chunk: Chunk) -> int:
    return 100 * (chunk.stop - chunk.start)


def free(_: Chunk) -> bool:
    return True


def pop(waiting: OwnerQueues, now_s: float) -> Chunk:
    chunk = waiting.first(now_s, free)
    assert chunk is not None
    waiting.remove(chunk, size_of(chunk), now_s)
    return chunk


def queues(*rates: TenantRate) -> OwnerQueues:
    return OwnerQueues((TenantRate(), *rates), HOST)


def drain(waiting: OwnerQueues, num_chunks: int, now_s: float = 0.0) -> Counter[Owner]:
    """Take so many chunks; returns the bytes that each owner got."""
    got: Counter[Owner] = Counter()
    for _ in range(num_chunks):
        chunk = pop(waiting, now_s)
        got[chunk.job.owner] += size_of(chunk)
    return got


def test_one_owner_is_served_in_the_order_of_its_coming() -> None:
    rng = random.Random(chosen_seed())
    waiting = queues()
    expected: list[Chunk] = []
    for _ in range(300):
        if expected and rng.random() < 0.5:
            assert waiting.first(0.0, free) is expected[0]
            assert pop(waiting, 0.0) is expected.pop(0)
        else:
            expected.append(chunk_of(A, rng.randint(1, 9)))
            waiting.add(expected[-1])
        assert bool(waiting) == bool(expected)


def test_busy_owners_get_bytes_by_their_weights_whatever_the_sizes_of_their_chunks() -> None:
    rng = random.Random(chosen_seed())
    waiting = queues(TenantRate(weight=1), TenantRate(weight=3), TenantRate(weight=0.5))
    for owner, size in ((A, 1), (B, 7), (C, 2)):
        for _ in range(2000):
            waiting.add(chunk_of(owner, rng.randint(1, 2 * size)))
    got = drain(waiting, 1500)
    assert got[B] / got[A] == pytest.approx(3, rel=0.05)
    assert got[C] / got[A] == pytest.approx(0.5, rel=0.05)


def test_two_clients_of_a_tenant_take_turns_and_who_was_idle_saved_nothing_up() -> None:
    waiting = queues(TenantRate(), TenantRate())
    for _ in range(100):
        waiting.add(chunk_of(Owner(1, client=7)))
    drain(waiting, 50)
    for _ in range(100):
        waiting.add(chunk_of(Owner(1, client=8)))
    got = drain(waiting, 40)
    assert got[Owner(1, 7)] == got[Owner(1, 8)] == 2000


def test_an_owner_that_empties_its_queue_cannot_come_back_ahead_of_what_it_had() -> None:
    waiting = queues(TenantRate(), TenantRate())
    for _ in range(100):
        waiting.add(chunk_of(A))
    got: Counter[Owner] = Counter()
    for _ in range(100):  # one large chunk at a time, as a client that waits for each
        if not any(queue.owner == B for queue in waiting._queues.values()):
            waiting.add(chunk_of(B, 10))
        got += drain(waiting, 1)
    assert got[B] / got[A] == pytest.approx(1, rel=0.15)


def test_a_bandwidth_holds_back_its_tenant_alone_and_says_until_when() -> None:
    waiting = queues(TenantRate(bytes_per_s={HOST: 1000}), TenantRate(bytes_per_s={TierName.DISK: 1}))
    for _ in range(10):
        waiting.add(chunk_of(A))
        waiting.add(chunk_of(B))
    assert drain(waiting, 3, now_s=5.0) == {A: 200, B: 100}, (
        "a tenth of a second's bytes were saved up, and one goes over"
    )
    assert waiting.wait_s(5.0) is None, "the other's work may move"
    assert drain(waiting, 9, now_s=5.0) == {B: 900}
    assert waiting.first(5.0, free) is None
    wait_s = waiting.wait_s(5.0)
    assert wait_s is not None
    assert wait_s == pytest.approx(0.1)
    assert waiting.first(5.0 + wait_s + 1e-6, free) is not None
    moved, now_s = 0, 6.0
    while moved < 700:
        now_s += 0.001
        while waiting.first(now_s, free) is not None and moved < 700:
            moved += sum(drain(waiting, 1, now_s).values())
    assert moved == 700
    assert 1000 * (now_s - 5.0) >= moved


def test_what_was_cancelled_is_not_held_back_by_a_bandwidth() -> None:
    waiting = queues(TenantRate(bytes_per_s={HOST: 1}))
    first, second = chunk_of(A, 50), chunk_of(A, 50)
    waiting.add(first)
    waiting.add(second)
    drain(waiting, 1)
    assert waiting.first(0.0, free) is None
    second.job.cancelled = True
    assert waiting.first(0.0, free) is second
    pop(waiting, 0.0)
    assert not waiting


class SlowTier(NullTier):
    """A host tier whose writes wait for a signal, and tells whose they were by their slots."""

    def __init__(self) -> None:
        super().__init__(name=HOST, num_slots=1024, block_bytes=ODD_BLOCK_BYTES)
        self.go = threading.Event()
        self.written: list[int] = []

    def write(self, slots: Slots, source: BlockMemory, labels: BlockLabels) -> Statuses:
        assert self.go.wait(20)
        self.written.append(int(slots[0]))
        return super().write(slots, source, labels)


def test_a_flood_of_one_client_is_throttled_and_the_others_stores_go_by_turns() -> None:
    completions: queue.SimpleQueue[Completion] = queue.SimpleQueue()
    host = SlowTier()
    engine = TransferEngine(
        {HOST: host}, TransferSettings(queue_depth_max=20, chunk_bytes=ODD_BLOCK_BYTES), on_completion=completions.put
    )
    flooding, modest = Owner(client=1), Owner(client=2)
    memory = EngineSide(allocate_memory(1, ODD_BLOCK_BYTES))
    for ticket in range(20):
        engine.submit(plan_of(ticket, 1, ticket), memory, flooding)
    assert not engine.has_room(STORES, 1, flooding)
    with pytest.raises(ThrottledError, match="holds 20 moves of at most 20"):
        engine.submit(plan_of(20, 1, 20), memory, flooding)
    assert engine.has_room(STORES, 3, modest)
    for ticket in range(100, 103):
        engine.submit(plan_of(ticket, 1, ticket), memory, modest)
    assert engine.queue_depths()[str(STORES)] == 23
    host.go.set()
    for _ in range(23):
        completions.get(timeout=20)
    assert max(host.written.index(slot) for slot in (100, 101, 102)) <= 8
    assert [slot for slot in host.written if slot < 100] == list(range(20))
    assert engine.has_room(STORES, 20, flooding)
    assert engine.close()


def test_a_lane_with_only_held_back_work_sleeps_until_its_time_and_lets_stores_pass() -> None:
    completions: queue.SimpleQueue[Completion] = queue.SimpleQueue()
    host = SlowTier()
    host.go.set()
    rate = TenantRate(bytes_per_s={HOST: 20 * ODD_BLOCK_BYTES})
    settings = TransferSettings(chunk_bytes=ODD_BLOCK_BYTES, yield_s=5.0, tenants=(TenantRate(), rate))
    engine = TransferEngine({HOST: host}, settings, on_completion=completions.put)
    memory = EngineSide(allocate_memory(1, ODD_BLOCK_BYTES))
    load = Move(
        source=HOST, target=TierName.GPU, first_block=0, num_blocks=1,
        source_slots=pack_slots(np.zeros(1, np.uint32)), target_slots=b"",
    )  # fmt: skip
    started, cpu_started = time.monotonic(), time.process_time()
    for ticket in range(12):
        plan = Plan(
            ticket=ticket,
            kind=OperationKind.LOAD,
            first_block=0,
            num_blocks=1,
            moves=(load,),
            frees=(),
            deadline_s=60.0,
        )
        engine.submit(plan, memory, A)
    engine.submit(plan_of(100, 1, 100), memory, B)
    tickets = [completions.get(timeout=20).ticket for _ in range(13)]
    seconds = time.monotonic() - started
    assert tickets.index(100) < 12, "a store waited for loads that could not move"
    assert seconds >= 8 / 20, "12 blocks at 20 a second, less what was saved up"
    assert time.process_time() - cpu_started < seconds / 2, "it waited busily"
    assert engine.close()
