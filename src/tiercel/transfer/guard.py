"""The fence around an engine's memory: once it is down, no move touches that memory any more.

An engine that gives up on a load wants its blocks back at once, while a disk read may still be under way. Every copy to or
from engine memory goes through a `GuardedMemory`; `Guard.revoke` waits for the copies in progress (memory to memory, one chunk
per worker at most) and makes all later ones raise `RevokedError`. Copies of one ticket may run side by side: while a GPU ends
one, the next is under way. I/O does not run under the fence: guarded memory has no addresses, so a
tier reads into a buffer of its own first. Memory given as `DirectMemory` is the exception: devices read and write it
themselves, without a copy, and taking it back waits for them. Copies that other processes make are given up first, so that a
process that does not answer is not waited for; it has a fence of its own (`ranks.agent`).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tiercel.tiers.base import Addresses, BlockMemory


class RevokedError(Exception):
    """The memory was taken back by its owner. Never leaves `transfer`."""


class Guard:
    """Says whether a ticket's engine memory may still be touched."""

    def __init__(self, give_up: Callable[[], None] | None = None) -> None:
        """Let copies through. give_up: called when they are forbidden, to shorten those in progress."""
        self._give_up = give_up
        # Entered as it is: a condition is entered by Python code, in which a signal's exception would leave the lock held.
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self._num_copying = 0
        self._revoked = False

    def revoke(self, timeout_s: float | None = None) -> bool:
        """Forbid all later copies and wait for those in progress. Idempotent. Returns False if some go on at the time."""
        with self._lock:
            self._revoked = True
        if self._give_up is not None:
            self._give_up()
        with self._lock:
            return self._idle.wait_for(lambda: self._num_copying == 0, timeout_s)

    def gather(self, memory: BlockMemory, targets: Addresses) -> None:
        """Copy out of guarded memory. Raises RevokedError without having touched it."""
        with self.touching():
            memory.gather(targets)

    def scatter(self, memory: BlockMemory, sources: Addresses) -> None:
        """Copy into guarded memory. Raises RevokedError without having touched it."""
        with self.touching():
            memory.scatter(sources)

    @contextmanager
    def touching(self) -> Iterator[None]:
        """Hold the fence open; `revoke` waits for the end. Raises RevokedError if it is down."""
        with self._lock:
            if self._revoked:
                raise RevokedError
            self._num_copying += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_copying -= 1
                if self._num_copying == 0:
                    self._idle.notify_all()


class DirectMemory:
    """Engine memory that devices read and write themselves where its blocks have addresses; a `BlockMemory`. Its owner waits,
    when it takes the memory back, for what a device is busy with."""

    def __init__(self, memory: BlockMemory) -> None:
        self._memory = memory

    @property
    def num_blocks(self) -> int:
        return self._memory.num_blocks

    @property
    def addresses(self) -> Addresses | None:
        return self._memory.addresses

    def gather(self, targets: Addresses) -> None:
        """Copy every block to its target address."""
        self._memory.gather(targets)

    def scatter(self, sources: Addresses) -> None:
        """Copy every block from its source address."""
        self._memory.scatter(sources)

    def slice(self, start: int, stop: int) -> "DirectMemory":
        """The blocks [start, stop), without copying."""
        return DirectMemory(self._memory.slice(start, stop))


class GuardedMemory:
    """Engine memory behind a guard; a `BlockMemory`."""

    def __init__(self, memory: BlockMemory, guard: Guard) -> None:
        self._memory = memory
        self._guard = guard

    @contextmanager
    def borrowed(self) -> Iterator[BlockMemory]:
        """Memory to give to a tier: behind the fence copy by copy, or, if it is direct and has addresses, itself, with the
        fence held open meanwhile. Raises RevokedError."""
        if isinstance(self._memory, DirectMemory) and self._memory.addresses is not None:
            with self._guard.touching():
                yield self._memory
        else:
            yield self

    @property
    def num_blocks(self) -> int:
        return self._memory.num_blocks

    @property
    def addresses(self) -> None:
        return None

    def gather(self, targets: Addresses) -> None:
        """Copy every block to its target address. Raises RevokedError."""
        self._guard.gather(self._memory, targets)

    def scatter(self, sources: Addresses) -> None:
        """Copy every block from its source address. Raises RevokedError."""
        self._guard.scatter(self._memory, sources)

    def slice(self, start: int, stop: int) -> "GuardedMemory":
        """The blocks [start, stop) behind the same guard."""
        return GuardedMemory(self._memory.slice(start, stop), self._guard)
