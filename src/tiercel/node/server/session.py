"""One client of a node: its connections, its tickets, its copies, and what is taken back when it leaves.

welcomed ──its event connection or its process ended──► leaving ──its process is gone, or it said Bye──► gone
           tickets cancelled, pins and sequences taken back        what it might still have written to is free
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tiercel.cache import Ticket
from tiercel.errors import CacheClosedError, ThrottledError
from tiercel.node.codec import encode
from tiercel.node.events import Ended, SourceFree, TierCount
from tiercel.node.protocol import Message
from tiercel.node.server.memory import ClientCopies

_log = logging.getLogger(__name__)


@dataclass(eq=False, kw_only=True)
class Session:
    """A client, from its `Hello` to its end. Its methods are thread-safe.

    Attributes:
        number: of the client.
        connection: its event connection.
        calls: its call connections.
        ready: whether it mapped the memory; one that only asks never does.
        said_bye: whether it left in order: nothing of its touches the memory any more.
        watched: what `ExitWatch.forget` takes.
    """

    number: int
    name: str
    process: int
    token: bytes
    connection: int
    send: Callable[[bytes], bool]
    copies: ClientCopies
    tickets_max: int
    connected_at: float = field(default_factory=time.monotonic)
    calls: set[int] = field(default_factory=set)
    ready: bool = False
    said_bye: bool = False
    leaving: bool = False
    watched: int | None = None
    _slow: bool = False
    _namespaces: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _tickets: dict[int, Ticket | None] = field(default_factory=dict)

    def tell(self, message: Message) -> None:
        """Send an event, if the client is there."""
        self.send(encode(message))

    @property
    def num_tickets(self) -> int:
        """Tickets that have no outcome yet."""
        return len(self._tickets)

    def reserve(self, numbers: list[int]) -> None:
        """Enter tickets that are about to be launched.

        Raises:
            ThrottledError: too many are under way. ValueError: a number is in use.
            CacheClosedError: the client is leaving.
        """
        with self._lock:
            if self.leaving:
                raise CacheClosedError("the client has left")
            if len(set(numbers)) < len(numbers) or any(number in self._tickets for number in numbers):
                raise ValueError(f"tickets {numbers}: each needs a number of its own")
            if len(self._tickets) + len(numbers) > self.tickets_max:
                raise ThrottledError(
                    f"{len(self._tickets)} tickets are under way of at most {self.tickets_max}; retry later, recompute, or "
                    f"raise node_tickets_max"
                )
            self._tickets.update(dict.fromkeys(numbers))

    def discard(self, numbers: list[int]) -> None:
        """Forget tickets that were not launched."""
        with self._lock:
            for number in numbers:
                self._tickets.pop(number, None)

    def enter(self, number: int, ticket: Ticket, *, is_store: bool) -> None:
        """Tell the client of a ticket's outcome from now on. One that came too late, because the client left, is cancelled."""
        with self._lock:
            self._tickets[number] = ticket
            leaving = self.leaving
        if is_store:
            ticket.add_source_callback(lambda: self._source_freed(number, ticket))
        ticket.add_done_callback(lambda: self._ended(number, ticket))
        if leaving:
            ticket.cancel()

    def cancel(self, number: int) -> None:
        """Cancel a ticket, if it has no outcome yet. Waits until the client's memory is not touched any more."""
        ticket = self._tickets.get(number)
        if ticket is not None:
            ticket.cancel()

    def leave(self) -> list[Ticket]:
        """Begin to leave. Returns the tickets to cancel."""
        with self._lock:
            self.leaving = True
            return [ticket for ticket in self._tickets.values() if ticket is not None]

    def begin_slow(self) -> bool:
        """Begin a call that may take long. False if one is under way."""
        with self._lock:
            was_slow, self._slow = self._slow, True
            return not was_slow

    def end_slow(self) -> None:
        """It has ended."""
        self._slow = False

    def add_namespace(self, name: str, num_max: int) -> bool:
        """Note that the client was given a namespace. False if it had it. Raises ThrottledError if it has too many."""
        with self._lock:
            if name in self._namespaces:
                return False
            if len(self._namespaces) >= num_max:
                raise ThrottledError(f"{num_max} namespaces are open, which is as many as a client may have")
            self._namespaces.add(name)
            return True

    @property
    def num_namespaces(self) -> int:
        """Namespaces that the client was given."""
        return len(self._namespaces)

    def _source_freed(self, number: int, ticket: Ticket) -> None:
        if not ticket.done:  # its end says it, too
            self.tell(SourceFree(number))

    def _ended(self, number: int, ticket: Ticket) -> None:
        result = ticket.try_wait()
        assert result is not None, "a ticket called back before it was resolved"
        with self._lock:
            self._tickets.pop(number, None)
        ended = Ended(
            ticket=number,
            outcome=result.outcome.value,
            statuses=result.statuses.tobytes(),
            blocks=[TierCount(int(tier), count) for tier, count in result.blocks_by_tier.items()],
            seconds=min(result.seconds, 86400.0),
        )
        self.tell(ended)


def cancel_all(tickets: list[Ticket]) -> None:
    """Cancel tickets, one after another: each wait is bounded by that of a client's cancelled copy."""
    for ticket in tickets:
        with suppress(CacheClosedError):
            ticket.cancel()
