"""The fence around an engine's memory holds whatever runs when it comes down."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from tiercel.tiers.base import Addresses, BlockMemory
from tiercel.transfer.guard import Guard, GuardedMemory, RevokedError

NOWHERE: Addresses = np.empty(0, np.uint64)


class SlowMemory:
    """Blocks whose copies last until they are let go."""

    num_blocks = 0
    addresses = None

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self.go = threading.Event()
        self.num_ended = 0

    def gather(self, targets: Addresses) -> None:
        self._copy()

    def scatter(self, sources: Addresses) -> None:
        self._copy()

    def slice(self, start: int, stop: int) -> BlockMemory:
        return self

    def _copy(self) -> None:
        self.started.release()
        assert self.go.wait(10)
        self.num_ended += 1


@contextmanager
def two_copies_in_flight(memory: SlowMemory, guard: Guard) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        guarded = GuardedMemory(memory, guard)
        copies = [pool.submit(guarded.gather, NOWHERE), pool.submit(guarded.scatter, NOWHERE)]
        try:
            for _ in copies:
                assert memory.started.acquire(timeout=10), "copies of one ticket wait for each other"
            yield pool
        finally:
            memory.go.set()
        for copy in copies:
            copy.result(10)


def revoke_and_count(guard: Guard, memory: SlowMemory) -> int:
    guard.revoke()
    return memory.num_ended


def test_revoking_waits_for_every_copy_in_flight() -> None:
    memory, guard = SlowMemory(), Guard()
    with two_copies_in_flight(memory, guard) as pool:
        revoked = pool.submit(revoke_and_count, guard, memory)
        with pytest.raises(TimeoutError):
            revoked.result(0.05)
        memory.go.set()
        assert revoked.result(10) == 2


def test_after_revoking_nothing_is_touched() -> None:
    memory, guard = SlowMemory(), Guard()
    with two_copies_in_flight(memory, guard) as pool:
        revoked = pool.submit(guard.revoke)
        while not guard._revoked:
            pass
        with pytest.raises(RevokedError):
            guard.scatter(memory, NOWHERE)
    revoked.result(10)
    with pytest.raises(RevokedError):
        guard.gather(memory, NOWHERE)
    assert memory.num_ended == 2


def test_a_copy_that_fails_does_not_hold_up_revoking() -> None:
    class BrokenMemory(SlowMemory):
        def gather(self, targets: Addresses) -> None:
            raise OSError("the device failed")

    guard = Guard()
    with pytest.raises(OSError, match="the device failed"):
        guard.gather(BrokenMemory(), NOWHERE)
    guard.revoke()
