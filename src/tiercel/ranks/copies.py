"""Copies that ranks were asked for and have not all answered, on the cache's side.

    open ──every rank answered──────────────────────────► ended
      └──a failure, a deadline, nobody wants it──► cancelled ──answered in time──► ended
                                                      └──not──► abandoned ──answered, or the rank died──► settled

An abandoned copy stays here until its rank is known not to touch the shared memory any more; so long that rank counts as
silent, and is not asked for more.
"""

import itertools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from tiercel.ranks.messages import MessageError


class Claim:
    """What the copies of one ticket have in common: whether anybody still wants them. Guarded by the table's lock."""

    def __init__(self) -> None:
        self.given_up = False
        self.copies: set[PendingCopy] = set()


class PendingCopy:
    """One copy, asked of some ranks. Guarded by the table's lock.

    Attributes:
        waiting: ranks that have not answered.
        failures: what went wrong, by rank.
        settled: of an abandoned copy, done when no rank touches its blocks any more.
    """

    def __init__(self, number: int, ranks: Iterable[int], claim: Claim, lock: threading.Lock) -> None:
        self.number = number
        self.claim = claim
        self.waiting = set(ranks)
        self.failures: list[str] = []
        self.changed = threading.Condition(lock)
        self.settled: Future[None] | None = None

    @property
    def troubled(self) -> bool:
        """Whether there is no use in waiting for all of it."""
        return bool(self.failures) or self.claim.given_up


class CopyTable:
    """The copies of one group. Thread-safe."""

    def __init__(self, label: Callable[[int], str] = "rank {}".format) -> None:
        """Start empty. label: names a rank, or whoever is asked, in messages."""
        self._label = label
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._open: dict[int, PendingCopy] = {}
        self._num_abandoned: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self, ranks: Iterable[int], claim: Claim) -> PendingCopy:
        """Enter a copy before its ranks are asked."""
        with self._lock:
            copy = PendingCopy(next(self._numbers), ranks, claim, self._lock)
            self._open[copy.number] = copy
            claim.copies.add(copy)
        return copy

    def wait(self, copy: PendingCopy, timeout_s: float) -> bool:
        """Wait until every rank has answered, or until trouble or the time. Returns whether all is done and well."""
        with self._lock:
            copy.changed.wait_for(lambda: not copy.waiting or copy.troubled, timeout_s)
            return not copy.waiting and not copy.failures

    def wait_ended(self, copy: PendingCopy, timeout_s: float) -> bool:
        """Wait until every rank has answered, whatever. Returns False at the time."""
        with self._lock:
            return copy.changed.wait_for(lambda: not copy.waiting, timeout_s)

    def waiting(self, copy: PendingCopy) -> list[int]:
        """The ranks that have not answered."""
        with self._lock:
            return sorted(copy.waiting)

    def abandon(self, copy: PendingCopy) -> Future[None] | None:
        """Wait no longer. Returns what is done when the copy is settled, None if it is."""
        with self._lock:
            if not copy.waiting:
                return None
            copy.settled = Future()
            for rank in copy.waiting:
                self._num_abandoned[rank] = self._num_abandoned.get(rank, 0) + 1
            return copy.settled

    def silent(self, ranks: Iterable[int]) -> list[int]:
        """Those of the ranks that still owe an answer to an abandoned copy."""
        with self._lock:
            return [rank for rank in ranks if self._num_abandoned.get(rank)]

    def give_up(self, claim: Claim) -> None:
        """End the waits of a claim's copies, now and from now on."""
        with self._lock:
            claim.given_up = True
            for copy in claim.copies:
                copy.changed.notify_all()

    def fail_all(self, reason: str) -> None:
        """End the waits of all copies that are open, for a reason that is not a rank's."""
        with self._lock:
            for copy in self._open.values():
                copy.failures.append(reason)
                copy.changed.notify_all()

    def answer(self, number: int, rank: int, failure: str) -> None:
        """Enter a rank's answer. Raises MessageError if it was not asked."""
        with self._lock:
            copy = self._open.get(number)
            if copy is None or rank not in copy.waiting:
                raise MessageError(f"an answer for copy {number}, which {self._label(rank)} was not asked for")
            settled = self._enter(copy, rank, failure)
        _settle(settled)

    def fail(self, copy: PendingCopy, rank: int, failure: str) -> None:
        """Enter that a rank could not be asked."""
        with self._lock:
            settled = self._enter(copy, rank, failure) if rank in copy.waiting else None
        _settle(settled)

    def lose(self, rank: int, reason: str) -> None:
        """Enter that a rank touches nothing any more."""
        with self._lock:
            lost = [copy for copy in self._open.values() if rank in copy.waiting]
            settled = [self._enter(copy, rank, reason) for copy in lost]
        for future in settled:
            _settle(future)

    def _enter(self, copy: PendingCopy, rank: int, failure: str) -> Future[None] | None:
        """Take a rank off a copy; returns what is to be settled without the lock."""
        copy.waiting.discard(rank)
        if failure:
            copy.failures.append(f"{self._label(rank)}: {failure}")
        if copy.settled is not None:
            self._num_abandoned[rank] -= 1
        if not copy.waiting:
            del self._open[copy.number]
            copy.claim.copies.discard(copy)
        if failure or not copy.waiting:
            copy.changed.notify_all()
        return copy.settled if not copy.waiting else None


def _settle(future: Future[None] | None) -> None:
    if future is not None:
        future.set_result(None)
