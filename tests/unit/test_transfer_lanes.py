"""The transfer engine's lanes: how many chunks are with a device at once."""

import queue
import threading
import time

import numpy as np
import pytest

from tests.helpers.tier_samples import ODD_BLOCK_BYTES
from tiercel.plan import Completion, Move, OperationKind, Plan, pack_slots
from tiercel.tiers.base import Addresses, BlockLabels, BlockMemory, BlockStatus, Slots, Statuses, Tier, TierName
from tiercel.tiers.host import HostTier
from tiercel.tiers.memory import allocate_memory
from tiercel.tiers.null import NullTier
from tiercel.transfer.engine import TransferEngine
from tiercel.transfer.lanes import TransferSettings
from tiercel.transfer.remote import RemoteMemory
from tiercel.transfer.sides import EngineSide

NUM_BLOCKS = 4


class PairedTier(NullTier):
    """A disk whose calls end only when another one has come beside them."""

    def __init__(self) -> None:
        super().__init__(name=TierName.DISK, num_slots=NUM_BLOCKS, block_bytes=ODD_BLOCK_BYTES)
        self._both = threading.Barrier(2, timeout=10)

    def write(self, slots: Slots, source: BlockMemory, labels: BlockLabels) -> Statuses:
        self._both.wait()
        return super().write(slots, source, labels)

    def read(self, slots: Slots, target: BlockMemory) -> Statuses:
        self._both.wait()
        return super().read(slots, target)


@pytest.mark.parametrize("kind", [OperationKind.STORE, OperationKind.PREFETCH])
def test_the_disk_is_given_the_next_chunk_before_the_last_one_has_ended(kind: OperationKind) -> None:
    completions: queue.SimpleQueue[Completion] = queue.SimpleQueue()
    host, disk = HostTier(num_slots=NUM_BLOCKS, block_bytes=ODD_BLOCK_BYTES), PairedTier()
    slots = np.arange(NUM_BLOCKS, dtype=np.uint32)
    source, target = (TierName.HOST, TierName.DISK)[:: 1 if kind is OperationKind.STORE else -1]
    if kind is OperationKind.PREFETCH:
        disk.reserve(slots)
        NullTier.write(
            disk, slots, host.memory(slots), BlockLabels(parent=bytes(16), names=np.zeros((4, 16), np.uint8))
        )
    tiers: dict[TierName, Tier] = {TierName.HOST: host, TierName.DISK: disk}
    engine = TransferEngine(tiers, TransferSettings(chunk_bytes=ODD_BLOCK_BYTES), on_completion=completions.put)
    packed = pack_slots(slots)
    move = Move(
        source=source,
        target=target,
        first_block=0,
        num_blocks=NUM_BLOCKS,
        source_slots=packed,
        target_slots=packed,
        parent_key=bytes(16),
        keys=bytes(16 * NUM_BLOCKS),
    )
    engine.submit(
        Plan(ticket=1, kind=kind, first_block=0, num_blocks=NUM_BLOCKS, moves=(move,), frees=(), deadline_s=60.0), None
    )
    assert set(completions.get(timeout=30).statuses) == {BlockStatus.OK}
    assert engine.close()
    host.close()


class CountedTier(NullTier):
    """A host tier that writes for a while, and knows how many writes run at once and how large they are."""

    def __init__(self) -> None:
        super().__init__(name=TierName.HOST, num_slots=NUM_BLOCKS, block_bytes=ODD_BLOCK_BYTES)
        self._counting = threading.Lock()
        self._num_running = 0
        self.most_running = 0
        self.sizes: list[int] = []

    def write(self, slots: Slots, source: BlockMemory, labels: BlockLabels) -> Statuses:
        with self._counting:
            self._num_running += 1
            self.most_running = max(self.most_running, self._num_running)
            self.sizes.append(len(slots))
        time.sleep(0.2)
        with self._counting:
            self._num_running -= 1
        return super().write(slots, source, labels)


@pytest.mark.parametrize(("on_gpu", "at_once", "sizes"), [(True, 2, [2, 2]), (False, 1, [1, 1, 1, 1])])
def test_a_gpu_stores_two_large_chunks_at_once_and_a_processor_one_small_one(
    on_gpu: bool, at_once: int, sizes: list[int]
) -> None:
    completions: queue.SimpleQueue[Completion] = queue.SimpleQueue()
    host = CountedTier()
    settings = TransferSettings(chunk_bytes=ODD_BLOCK_BYTES, gpu_chunk_bytes=2 * ODD_BLOCK_BYTES)
    engine = TransferEngine({TierName.HOST: host}, settings, on_completion=completions.put)
    packed = pack_slots(np.arange(NUM_BLOCKS, dtype=np.uint32))
    move = Move(
        source=TierName.GPU,
        target=TierName.HOST,
        first_block=0,
        num_blocks=NUM_BLOCKS,
        source_slots=b"",
        target_slots=packed,
        parent_key=bytes(16),
        keys=bytes(16 * NUM_BLOCKS),
    )
    plan = Plan(
        ticket=1,
        kind=OperationKind.STORE,
        first_block=0,
        num_blocks=NUM_BLOCKS,
        moves=(move,),
        frees=(),
        deadline_s=60.0,
    )
    engine.submit(plan, EngineSide(allocate_memory(NUM_BLOCKS, ODD_BLOCK_BYTES), on_gpu))
    assert set(completions.get(timeout=30).statuses) == {BlockStatus.OK}
    assert (host.most_running, host.sizes) == (at_once, sizes)
    assert engine.close()


class AwayMemory(RemoteMemory):
    """Memory of another process, which copies when its gate is open."""

    def __init__(self, gate: threading.Event) -> None:
        self._gate = gate

    @property
    def num_blocks(self) -> int:
        return 1

    @property
    def holder(self) -> object:
        return self._gate

    def gather(self, targets: Addresses) -> None:
        assert self._gate.wait(30)

    def scatter(self, sources: Addresses) -> None:
        assert self._gate.wait(30)

    def slice(self, start: int, stop: int) -> "AwayMemory":
        return self

    def give_up(self) -> None:
        self._gate.set()


@pytest.mark.parametrize("kind", [OperationKind.STORE, OperationKind.LOAD])
def test_holders_that_do_not_copy_hold_up_neither_each_other_nor_anybody_else(kind: OperationKind) -> None:
    completions: queue.SimpleQueue[Completion] = queue.SimpleQueue()
    host = HostTier(num_slots=16, block_bytes=ODD_BLOCK_BYTES)
    host.reserve(np.arange(16, dtype=np.uint32))
    engine = TransferEngine({TierName.HOST: host}, TransferSettings(), on_completion=completions.put)
    storing = kind is OperationKind.STORE
    gates = [threading.Event() for _ in range(5)]

    def submit(ticket: int, gate: threading.Event) -> None:
        slots = pack_slots(np.array([ticket], np.uint32))
        move = Move(
            source=TierName.GPU if storing else TierName.HOST,
            target=TierName.HOST if storing else TierName.GPU,
            first_block=0,
            num_blocks=1,
            source_slots=b"" if storing else slots,
            target_slots=slots if storing else b"",
        )
        plan = Plan(ticket=ticket, kind=kind, first_block=0, num_blocks=1, moves=(move,), frees=(), deadline_s=60.0)
        engine.submit(plan, EngineSide(AwayMemory(gate)))

    for ticket in range(12):
        submit(ticket, gates[ticket % 4])
    gates[4].set()
    submit(12, gates[4])
    assert completions.get(timeout=10).ticket == 12
    assert completions.empty()
    for gate in gates:
        gate.set()
    assert {completions.get(timeout=30).ticket for _ in range(12)} == set(range(12))
    assert engine.close()
    host.close()
