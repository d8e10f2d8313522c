"""The transfer engine's lanes: how many chunks are with a device at once."""

import queue
import threading

import numpy as np
import pytest

from tests.helpers.tier_samples import ODD_BLOCK_BYTES
from tiercel.plan import Completion, Move, OperationKind, Plan, pack_slots
from tiercel.tiers.base import BlockLabels, BlockMemory, BlockStatus, Slots, Statuses, Tier, TierName
from tiercel.tiers.host import HostTier
from tiercel.tiers.null import NullTier
from tiercel.transfer.engine import TransferEngine
from tiercel.transfer.lanes import TransferSettings

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
        source=source, target=target, first_block=0, num_blocks=NUM_BLOCKS, source_slots=packed, target_slots=packed
    )
    engine.submit(
        Plan(ticket=1, kind=kind, first_block=0, num_blocks=NUM_BLOCKS, moves=(move,), frees=(), deadline_s=60.0), None
    )
    assert set(completions.get(timeout=30).statuses) == {BlockStatus.OK}
    assert engine.close()
    host.close()
