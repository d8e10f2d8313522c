"""The fence around an engine's memory: once it is down, no move touches that memory any more.

An engine that gives up on a load wants its blocks back at once, while a disk read may still be under way. Every copy to or
from engine memory goes through a `GuardedMemory`; `Guard.revoke` waits for the copy in progress (memory to memory, one chunk
at most) and makes all later ones raise `RevokedError`. I/O never runs under the fence: guarded memory has no addresses, so a
tier reads into a buffer of its own first.
"""

import threading

from tiercel.tiers.base import Addresses, BlockMemory


class RevokedError(Exception):
    """The memory was taken back by its owner. Never leaves `transfer`."""


class Guard:
    """Says whether a ticket's engine memory may still be touched."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._revoked = False

    def revoke(self) -> None:
        """Wait for the copy in progress and forbid all later ones. Idempotent."""
        with self._lock:
            self._revoked = True

    def gather(self, memory: BlockMemory, targets: Addresses) -> None:
        """Copy out of guarded memory. Raises RevokedError without having touched it."""
        with self._lock:
            if self._revoked:
                raise RevokedError
            memory.gather(targets)

    def scatter(self, memory: BlockMemory, sources: Addresses) -> None:
        """Copy into guarded memory. Raises RevokedError without having touched it."""
        with self._lock:
            if self._revoked:
                raise RevokedError
            memory.scatter(sources)


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
