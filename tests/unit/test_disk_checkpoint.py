"""Checkpoints of the disk tier while other threads write and free: nothing gets lost and nothing comes back."""

import threading
from pathlib import Path

import numpy as np

from tests.helpers.tier_samples import ODD_BLOCK_BYTES, disk_options, load, random_bytes, random_labels, store
from tiercel.tiers.base import BlockStatus
from tiercel.tiers.disk import DiskTier

SEED = 17
NUM_THREADS = 3
SLOTS_EACH = 40
ROUNDS = 60
NUM_SLOTS = NUM_THREADS * SLOTS_EACH


def test_checkpoints_amid_writes_and_frees_lose_nothing_and_revive_nothing(tmp_path: Path) -> None:
    tier = DiskTier.open(disk_options(tmp_path, num_slots=NUM_SLOTS))
    held: dict[int, tuple[bytes, bytes]] = {}

    def work(number: int) -> None:
        random = np.random.default_rng((SEED, number))
        own = np.arange(number * SLOTS_EACH, (number + 1) * SLOTS_EACH, dtype=np.uint32)
        for _ in range(ROUNDS):
            slots = random.choice(own, 8, replace=False)
            for slot in slots.tolist():
                held.pop(slot, None)
            if random.random() < 0.3:
                tier.free(slots)
                continue
            rows, labels = random_bytes(random, 8, ODD_BLOCK_BYTES), random_labels(random, 8)
            assert store(tier, slots, rows, labels) == [BlockStatus.OK] * 8
            for slot, name, row in zip(slots.tolist(), labels.names, rows, strict=True):
                held[slot] = (name.tobytes(), row.tobytes())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(NUM_THREADS)]
    for thread in threads:
        thread.start()
    order = np.random.default_rng(SEED)
    while any(thread.is_alive() for thread in threads):
        tier.checkpoint(order.permutation(NUM_SLOTS).astype(np.uint32))
    tier.close()

    tier = DiskTier.open(disk_options(tmp_path, num_slots=NUM_SLOTS))
    found = tier.recovered
    statuses, rows = load(tier, found.slots)
    tier.close()
    assert statuses == [BlockStatus.OK] * len(found.slots), f"seed {SEED}"
    names = (key.tobytes() for key in found.keys)
    assert dict(zip(found.slots.tolist(), zip(names, map(bytes, rows), strict=True), strict=True)) == held
