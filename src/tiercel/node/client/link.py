"""One connection to a node, from its welcome to its end: messages, calls, copies, and the node's memory. Used by `client` only.

One thread listens. What is lost is told by whoever notices first; the listener then returns, and its caller closes.
"""

import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tiercel._native import NodeCall
from tiercel.costs import PrefillCurve
from tiercel.node.board import BoardFacts
from tiercel.node.calls import OpenNamespace, Root
from tiercel.node.client import joining
from tiercel.node.client.calls import CallPool, NodeGoneError, ask, checked
from tiercel.node.client.copying import Copyists
from tiercel.node.client.reading import HostReads
from tiercel.node.client.receiving import SEND_S, receive
from tiercel.node.client.tickets import TicketTable
from tiercel.node.codec import Answer, Event, decode_for_client, encode
from tiercel.node.endpoint import LocalEndpoint
from tiercel.node.events import Bye, Cancel, CancelCopy, Copy, Done, Ended, Left, SourceFree
from tiercel.node.joining import Join, Joined, Refused
from tiercel.node.protocol import MAGIC, MESSAGE_BYTES_MAX, PROTOCOL_VERSION, Kind, Message, MessageError
from tiercel.ranks import sockets
from tiercel.tiers.memory import region_of
from tiercel.transfer import Devices, GpuCopySettings

NOTHING_KNOWN = BoardFacts(0, PrefillCurve(), {})

SILENCE_S = 2.0
"""How long a node may leave unanswered what it answers at once, a lookup; then it counts as gone."""

CALL_S = 5.0
"""Longest wait for the answer to other calls."""

_END_S = 5.0
"""Longest wait for a copy in progress when ending."""

_BATCH = 256
"""Numbers in one datagram of those that nobody needs any more."""


class Link:
    """A connection. Thread-safe.

    Attributes:
        epoch: its number among this client's connections, from 1.
        reads: loads from the node's host memory that need not be asked for.
        alive: whether nobody has noticed its end.
        left: says on a later connection that nothing is under way any more of this one.
        roots: root keys that the node gave, by namespace.
    """

    def __init__(self, endpoint: LocalEndpoint, joined: joining.Joined, tickets: TicketTable, epoch: int) -> None:
        """Take what was joined. `listen` starts the rest."""
        self.epoch = epoch
        self.alive = True
        self.reason = ""
        self.roots: dict[str, bytes] = {}
        self.regions, self.facts = joined.regions, joined.facts
        self._board = joined.board
        self._endpoint = endpoint
        self.left = Left(joined.welcome.client, joined.welcome.token)
        self._join = Join(joined.welcome.client, joined.welcome.token)
        self._socket = joined.connection
        self._sending = threading.Lock()
        self._waking = threading.RLock()  # taken by destructors, on whatever thread they run
        self._tickets = tickets
        self._pool = CallPool(self._connect, joined.welcome.calls_max)
        block_bytes = self.facts.geometry.block_bytes
        self._copyists = Copyists(tickets, self.regions, block_bytes, self._answer, self.lose)
        self.reads = HostReads(
            tickets,
            self.regions[0],  # the host tier's, if there is one
            self._end_read,
            block_bytes=block_bytes,
            config=self.facts.config,
            on_defect=self.lose,
        )
        self._unwanted: dict[Kind, deque[int]] = {Kind.RELEASE: deque(), Kind.FORGET: deque()}
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def devices(self, settings: GpuCopySettings, note: Callable[[str], None]) -> Devices:
        """Return what reaches this process's blocks; its GPUs pin the node's memory."""
        return Devices([region_of(region) for region in self.regions], settings, note=note)

    def costs(self) -> BoardFacts:
        """What the node's board says of costs; nothing, once the link is closed."""
        try:
            return self._board.facts()
        except ValueError:  # of a page that is not mapped any more
            return NOTHING_KNOWN

    # ── what is sent ─────────────────────────────────────────────────────────────────────────────────────────────────

    def tell(self, message: Message) -> None:
        """Send a message that has no answer. If it cannot be delivered the connection has ended, which its listener tells."""
        self._send(encode(message))

    def tell_cancelled(self, ticket: int) -> None:
        """Tell that nobody waits for a ticket any more."""
        self.tell(Cancel(ticket))

    def call(self, message: Message, timeout_s: float) -> Answer:
        """Ask, and return the answer.

        Raises:
            NodeGoneError: the node is gone, or does not answer.
            TiercelError, ValueError, TypeError: what the node answers that it failed with.
        """
        with self.lent(timeout_s) as call:
            answer = ask(call, message, timeout_s)
        return checked(answer)

    @contextmanager
    def lent(self, timeout_s: float) -> Iterator[NodeCall]:
        """Lend a call connection. An OSError of the body ends the link, but for a short patience.

        Raises:
            NodeGoneError: there is none, or the body met an OSError.
            ThrottledError: all were in use all the time.
        """
        if not self.alive:
            raise NodeGoneError(self.reason)
        try:
            self.flush()
            with self._pool.call(timeout_s) as call:
                yield call
        except OSError as error:
            reason = str(error) or type(error).__name__
            if not isinstance(error, TimeoutError) or timeout_s >= SILENCE_S:
                self.lose(reason)
            raise NodeGoneError(reason) from error

    def root(self, namespace: str) -> bytes:
        """Return a namespace's root key. Raises as `call`."""
        root = self.roots.get(namespace)
        if root is None:
            answer = self.call(OpenNamespace(namespace), CALL_S)
            assert isinstance(answer, Root), f"OpenNamespace was answered with {type(answer).__name__}"
            root = self.roots[namespace] = answer.root
        return root

    def discard_lookup(self, lookup: int) -> None:
        """Have the node told that a lookup is not wanted any more, as `discard`."""
        self.discard(Kind.RELEASE, lookup)

    def release_lookup(self, lookup: int) -> None:
        """Tell the node that a lookup is not wanted any more."""
        self._unwanted[Kind.RELEASE].append(lookup)
        self.flush()

    def discard(self, kind: Kind, number: int) -> None:
        """Have the node told that a lookup or a sequence is not wanted any more. Destructors call it."""
        self._unwanted[kind].append(number)
        if self.alive:
            self._wake()

    def flush(self) -> None:
        """Tell the node what is not wanted any more."""
        for kind, form in ((Kind.RELEASE, "Q"), (Kind.FORGET, "I")):
            unwanted = self._unwanted[kind]
            while unwanted:
                numbers: list[int] = []
                with suppress(IndexError):  # others may flush, too
                    while len(numbers) < _BATCH:
                        numbers.append(unwanted.popleft())
                if numbers:
                    self._send(
                        MAGIC + bytes((PROTOCOL_VERSION, kind)) + struct.pack(f"<{len(numbers)}{form}", *numbers)
                    )

    def _send(self, data: bytes) -> None:
        if not self.alive:
            return
        try:
            with self._sending:
                sockets.send(self._socket, data, SEND_S)
        except OSError as error:
            self.lose(f"it does not read what it is sent: {error}")

    def _answer(self, number: int, failure: str) -> None:
        self.tell(Done(number, failure))

    def _end_read(self, lookup: int, first_block: int, num_blocks: int, seconds: float) -> bool:
        with self.lent(SILENCE_S) as call:
            return call.end_read(lookup, first_block, num_blocks, seconds, SILENCE_S)

    def _connect(self, timeout_s: float) -> NodeCall:
        """Make a call connection. Raises OSError."""
        stop_at = time.monotonic() + timeout_s
        connection = self._endpoint.connect(timeout_s, lambda: not self.alive)
        if connection is None:
            raise ConnectionRefusedError("the node does not listen any more")
        with connection:
            sockets.send(connection, encode(self._join), SEND_S)
            try:
                answer = decode_for_client(receive(connection, stop_at)[0])
            except MessageError as error:
                raise ConnectionAbortedError(f"the node cannot be understood: {error}") from error
            if not isinstance(answer, Joined):
                reason = answer.reason if isinstance(answer, Refused) else type(answer).__name__
                raise ConnectionRefusedError(f"the node refused a connection for calls: {reason}")
            return NodeCall(connection.fileno())

    # ── what is received ─────────────────────────────────────────────────────────────────────────────────────────────

    def listen(self) -> str:
        """Take what the node says until the connection ends. Returns why it did."""
        self._tickets.listened_by(threading.get_ident())
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        try:
            self._copyists.start()
            self.reads.start()
            while self.alive:
                poll.poll()
                with suppress(BlockingIOError):
                    os.eventfd_read(self._wakeup)
                self._receive()
                self.flush()
        except (OSError, MessageError, RuntimeError) as error:
            self.lose(f"{error}")
        return self.reason

    def _receive(self) -> None:
        while (data := sockets.receive(self._socket, MESSAGE_BYTES_MAX)) is not None:
            if not data:
                self.lose("it has ended")
                return
            self._handle(decode_for_client(data))

    def _handle(self, message: Event | Answer | Message) -> None:
        if isinstance(message, Copy):
            self._copyists.add(message)
        elif isinstance(message, CancelCopy):
            self._copyists.cancel(message.number)
        elif isinstance(message, SourceFree):
            self._tickets.free_source(message.ticket)
        elif isinstance(message, Ended):
            self._tickets.end(message)
        else:
            self.lose(message.reason if isinstance(message, Refused) else f"it said {type(message).__name__} unasked")

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def lose(self, reason: str) -> None:
        """Note that the connection is of no use any more, for the first reason given. Takes no time."""
        if self.alive:
            self.reason, self.alive = reason, False
            self._wake()

    def _wake(self) -> None:
        """Have the listener look around."""
        with self._waking:
            if self._wakeup >= 0:
                with suppress(BlockingIOError):  # it was told often enough
                    os.eventfd_write(self._wakeup, 1)

    def close(self, devices: Devices | None) -> bool:
        """Let go of everything, after the listener has returned, and tell the node, whether it goes on or the client does not:
        what it keeps for this connection would wait for this process's end. Idempotent.

        Args:
            devices: made by `devices`, unpinned first.

        Returns:
            False if a copy does not end: the node's memory then stays mapped until the process ends.
        """
        self._pool.close()
        drained = all([self._copyists.end(_END_S), self.reads.end(_END_S)])
        if drained:
            if devices is not None:
                devices.close()
            for region in self.regions:
                region.close()
            self._board.close()
        with self._sending:
            if self._socket.fileno() >= 0:
                with suppress(OSError):
                    if drained:
                        sockets.send(self._socket, encode(Bye()), SEND_S)
                    self._socket.shutdown(socket.SHUT_RDWR)  # children of this process may hold it, too
                self._socket.close()
        with self._waking:
            if self._wakeup >= 0:
                os.close(self._wakeup)
                self._wakeup = -1
        return drained
