"""The fence around an engine's memory: once it is down, no move touches that memory any more.

An engine that gives up on a load wants its blocks back at once, while a disk read may still be under way. Every copy to or
from engine memory goes through a `GuardedMemory`; `Guard.revoke` waits for the copies in progress (memory to memory, one chunk
per worker at most) and makes all later ones raise `RevokedError`. Copies of one ticket may run side by side: while a GPU ends
one, the next is under way. I/O never runs under the fence: guarded memory has no addresses, so a
tier reads into a buffer of its own first.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tiercel.tiers.base import Addresses, BlockMemory


class RevokedError(Exception):
    """The memory was taken back by its owner. Never leaves `transfer`."""


class Guard:
    """Says whether a ticket's engine memory may still be touched."""

    def __init__(self) -> None:
        self._idle = threading.Condition()
        self._num_copying = 0
        self._revoked = False

    def revoke(self) -> None:
        """Wait for the copies in progress and forbid all later ones. Idempotent."""
        with self._idle:
            self._revoked = True
            self._idle.wait_for(lambda: self._num_copying == 0)

    def gather(self, memory: BlockMemory, targets: Addresses) -> None:
        """Copy out of guarded memory. Raises RevokedError without having touched it."""
        with self._copying():
            memory.gather(targets)

    def scatter(self, memory: BlockMemory, sources: Addresses) -> None:
        """Copy into guarded memory. Raises RevokedError without having touched it."""
        with self._copying():
            memory.scatter(sources)

    @contextmanager
    def _copying(self) -> Iterator[None]:
        with self._idle:
            if self._revoked:
                raise RevokedError
            self._num_copying += 1
        try:
            yield
        finally:
            with self._idle:
                self._num_copying -= 1
                if self._num_copying == 0:
                    self._idle.notify_all()


class GuardedMemory:
    """Engine memory behind a guard; a `BlockMemory`."""

    def __init__(self, memory: BlockMemory, guard: Guard) -> None:
        self._memory = memory
        self._guard = guard

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
