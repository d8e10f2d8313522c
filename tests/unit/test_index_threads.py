"""Many threads on one index: nothing is lost, nothing deadlocks, every slot comes back."""

import gc
import os
import random
import sys
import threading
import time

import numpy as np

from tiercel._native import Sequence
from tiercel.index import Index

NUM_THREADS = 8
SECONDS = 3.0
CAPACITIES = [300, 600]


def hammer(index: Index, seed: int, deadline: float, errors: list[BaseException]) -> None:
    chance = random.Random(seed)
    held: list[object] = []
    shared = [Sequence(bytes(16), 2, np.array([prompt] * 40, np.int32)) for prompt in range(4)]
    try:
        while time.monotonic() < deadline:
            tokens = [chance.randrange(4)] * 2 * chance.randint(0, 20) + [chance.randrange(4)] * chance.randint(0, 200)
            fresh = Sequence(bytes(16), 2, np.array(tokens, np.int32))
            sequence = chance.choice([fresh, chance.choice(shared)])
            tier = chance.randrange(2)
            act = chance.random()
            if act < 0.4:
                held.append(index.match(sequence))
            elif act < 0.8:
                reservation = index.reserve(sequence, tier, owner=seed)
                if chance.random() < 0.8:
                    failed = np.array([chance.random() < 0.02 for _ in range(reservation.num_blocks)], np.bool_)
                    index.commit(reservation, failed)
                else:
                    held.append(reservation)
            elif act < 0.85 and sequence.num_blocks:
                index.drop(sequence, chance.randrange(sequence.num_blocks), tier)
            elif act < 0.9:
                index.evict(tier, chance.randrange(20))
            elif act < 0.91:
                index.clear()
            elif act < 0.92:
                index.check()
            if len(held) > 3:
                held.pop(chance.randrange(4))
    except BaseException as error:  # noqa: BLE001 - handed to the test's thread
        errors.append(error)


def test_after_eight_threads_every_slot_is_free_again() -> None:
    chosen = os.environ.get("TIERCEL_TEST_SEED")
    seed = int(chosen) if chosen else random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"TIERCEL_TEST_SEED={seed}\n")
    index = Index(CAPACITIES)
    errors: list[BaseException] = []
    deadline = time.monotonic() + SECONDS
    threads = [threading.Thread(target=hammer, args=(index, seed + n, deadline, errors)) for n in range(NUM_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
    assert not errors
    gc.collect()
    index.check()
    for tier, capacity in enumerate(CAPACITIES):
        stats = index.stats(tier)
        assert (stats.num_pinned, stats.num_writing) == (0, 0)
        assert stats.num_free + stats.num_ready == capacity
    index.clear()
    assert [index.stats(tier).num_free for tier in range(2)] == CAPACITIES
