"""From a client's loads, prefetches and stores to the node's answers, or to its own reads. Used by `client` only.

When the node is gone a ticket resolves at once, without having touched anything: a load as missing, a store as without room.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from tiercel.cache import Ticket
from tiercel.control import Lookup, Priority
from tiercel.errors import StaleTicketError, ThrottledError
from tiercel.hashing import Sequence as TokenSequence
from tiercel.node.calls import Launch, Load, Prefetch, Store
from tiercel.node.client.calls import NodeGoneError, checked
from tiercel.node.client.link import CALL_S, Link
from tiercel.node.client.pins import RemotePins
from tiercel.node.client.reading import LANE
from tiercel.node.client.sequences import KnownSequence
from tiercel.node.client.tickets import OpenTicket, TicketTable
from tiercel.node.codec import shortened
from tiercel.node.protocol import LOADS_MAX, SEQUENCE_BLOCKS_MAX, Message
from tiercel.plan import OperationKind
from tiercel.telemetry.logs import current_request_id
from tiercel.tiers.base import BlockStatus
from tiercel.transfer import EngineSide

_MEMORY_GONE = "the node's memory has been let go of"

_SLOT_BYTES = 4

_PATIENCE_S = 0.25
"""Least wait for the answer to a launch, however short its deadline is."""


class Stored(NamedTuple):
    """What is to be stored: some blocks of a sequence."""

    sequence: TokenSequence
    known: KnownSequence
    blocks: range
    priority: Priority


class Launcher:
    """Launches for one client. Thread-safe."""

    def __init__(
        self, tickets: TicketTable, on_gone: Callable[[str], None], on_throttled: Callable[[str], None]
    ) -> None:
        """on_gone: told why a launch found no node. on_throttled: told which queue of this process was full."""
        self._tickets = tickets
        self._on_gone = on_gone
        self._on_throttled = on_throttled

    def load(self, link: Link, loads: Sequence[tuple[Lookup, EngineSide | None]], timeout_s: float) -> list[Ticket]:
        """Launch loads that may be launched, all or none. Without a side the node's memory is gone."""
        if len(loads) > LOADS_MAX:
            raise ThrottledError(f"{len(loads)} loads at once: launch at most {LOADS_MAX} through a node")
        lookups = [lookup for lookup, _ in loads]
        _check_current(lookups, link)
        slots = [_slots_of(lookup) for lookup in lookups]
        try:
            link.reads.check_room(len(slots) - slots.count(b""))
        except ThrottledError:
            self._on_throttled(str(LANE))
            raise
        with self._opening() as opened:
            for (lookup, side), own in zip(loads, slots, strict=True):
                count = lookup.num_blocks
                opened.append(self._tickets.open(OperationKind.LOAD, count, side, timeout_s, packed_slots=own))
            wanted = [
                Load(one.ticket.number, _held(lookup), lookup.first_block, lookup.num_blocks, one.on_gpu)
                for one, lookup in zip(opened, lookups, strict=True)
                if lookup.num_blocks and one.asked
            ]
            if any(side is None for _, side in loads):
                return self._miss(link, opened, lookups, _MEMORY_GONE)
            message = Launch(wanted, timeout_s, _request_id()) if wanted else None
            return self._read(link, message, opened, lookups, timeout_s)

    def prefetch(self, link: Link, lookup: Lookup, timeout_s: float) -> Ticket:
        """Launch a prefetch of a lookup that may be launched."""
        _check_current([lookup], link)
        with self._opening() as opened:
            first, count = lookup.first_block, lookup.num_blocks
            opened.append(self._tickets.open(OperationKind.PREFETCH, count, None, timeout_s))
            number = opened[0].ticket.number
            message = Prefetch(number, _held(lookup), first, count, timeout_s, _request_id()) if count else None
            return self._read(link, message, opened, [lookup], timeout_s)[0]

    def store(self, link: Link, what: Stored, side: EngineSide | None, timeout_s: float) -> Ticket:
        """Launch a store from the first blocks of `side`; without one the node's memory is gone."""
        blocks, priority = what.blocks, what.priority
        stop = min(blocks.stop, SEQUENCE_BLOCKS_MAX)  # what lies behind ends as missing
        count = max(0, stop - blocks.start)
        told = priority[:count].astype(np.uint8).tobytes() if isinstance(priority, np.ndarray) else priority
        with self._opening() as tickets:
            opened = self._tickets.open(OperationKind.STORE, len(blocks), side, timeout_s)
            tickets.append(opened)

            def make(number: int) -> Message:
                ticket, name = opened.ticket.number, _request_id()
                return Store(ticket, number, blocks.start, count, told, timeout_s, opened.on_gpu, name)

            if side is None:
                self._give_up(link, tickets, BlockStatus.NO_SPACE, _MEMORY_GONE)
            elif not count:
                self._tickets.finish(opened, BlockStatus.MISSING)
            else:
                try:
                    checked(what.known.ask_store(link, what.sequence, stop, make, _patience(timeout_s)))
                except NodeGoneError as error:
                    self._give_up(link, tickets, BlockStatus.NO_SPACE, str(error))
        return opened.ticket

    def _read(
        self, link: Link, message: Message | None, opened: list[OpenTicket], lookups: list[Lookup], timeout_s: float
    ) -> list[Ticket]:
        """Launch what reads, and take over the pins. message: None if there is nothing to ask for."""
        try:
            if message is not None:
                link.call(message, _patience(timeout_s))
            elif not link.alive:
                raise NodeGoneError(link.reason)
            for one, lookup in zip(opened, lookups, strict=True):
                self._take_over(link, one, lookup)
        except NodeGoneError as error:
            return self._miss(link, opened, lookups, str(error))
        return [one.ticket for one in opened]

    def _take_over(self, link: Link, opened: OpenTicket, lookup: Lookup) -> None:
        """Leave a lookup's pins to the node's operation, or begin to read what they hold."""
        pins = lookup.take_match()
        assert isinstance(pins, RemotePins), "a lookup that may be launched here was made here"
        if not opened.asked:
            link.reads.begin(opened, pins, lookup.first_block)
        elif lookup.num_blocks:
            pins.hand_over()
        else:
            self._tickets.finish(opened, BlockStatus.OK)

    def _miss(self, link: Link, opened: list[OpenTicket], lookups: list[Lookup], reason: str) -> list[Ticket]:
        """Resolve what reads without the node."""
        self._give_up(link, opened, BlockStatus.MISSING, reason)
        for lookup in lookups:
            lookup.take_match().release()  # the node may be there, and may not have been asked
        return [one.ticket for one in opened]

    def _give_up(self, link: Link, opened: list[OpenTicket], status: BlockStatus, reason: str) -> None:
        """Resolve tickets that the node may never have heard of; if it has, it is told that nobody waits for them."""
        for one in opened:
            link.tell_cancelled(one.ticket.number)
            self._tickets.finish(one, status)
        self._on_gone(reason)

    @contextmanager
    def _opening(self) -> Iterator[list[OpenTicket]]:
        """The tickets of a launch, to be filled in. If it fails, a signal's handler included, there never were any."""
        opened: list[OpenTicket] = []
        try:
            yield opened
        except BaseException:
            for one in opened:
                self._tickets.withdraw(one)
            raise


def _held(lookup: Lookup) -> int:
    pins = lookup.pins
    return pins.lookup if isinstance(pins, RemotePins) else 0


def _check_current(lookups: Sequence[Lookup], link: Link) -> None:
    """Raise StaleTicketError for a lookup of an earlier connection, whose number and slots mean other blocks on this one."""
    if any(isinstance(lookup.pins, RemotePins) and lookup.pins.link is not link for lookup in lookups):
        raise StaleTicketError("the node was gone after this lookup; look the sequence up again")


def _slots_of(lookup: Lookup) -> bytes:
    """The slots of the blocks to load, if this process may read them itself."""
    pins = lookup.pins
    if not isinstance(pins, RemotePins):
        return b""
    start, stop = lookup.first_block, lookup.first_block + lookup.num_blocks
    return pins.packed_slots[_SLOT_BYTES * start : _SLOT_BYTES * stop]


def _patience(timeout_s: float) -> float:
    return min(CALL_S, max(_PATIENCE_S, timeout_s))


def _request_id() -> str | None:
    name = current_request_id()
    return None if name is None else shortened(name)
