"""The node's service: who comes, what they say, who leaves. One thread takes the native front's events and never waits.

NodeFront (native) ──events──► this thread ──calls──► Calls' threads ──► the cache
                                 │ answers to copies ──► who waits for them, in the cache's lanes
                                 └ a client's end ──► a thread that cancels its tickets; its process's end frees the rest
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial

from tiercel import __version__
from tiercel._native import NodeFront
from tiercel.cache import ServedCache
from tiercel.cache.reporting import NodeCounts
from tiercel.node.board import BoardFacts, BoardWriter
from tiercel.node.calls import ClientStatus, Status
from tiercel.node.codec import Answer, Call, ToNode, decode_for_node, encode, shortened
from tiercel.node.events import Bye, Cancel, Declined, Done, Left, NoteText, Observe, Recompute
from tiercel.node.joining import Hello, Join, Joined, Ready, Refused
from tiercel.node.namespaces import Namespaces
from tiercel.node.protocol import MessageError
from tiercel.node.server.admission import Door
from tiercel.node.server.calls import Calls
from tiercel.node.server.labels import ClientNotes, Labels
from tiercel.node.server.roll import Roll
from tiercel.node.server.session import Session
from tiercel.ranks.messages import MessageError as UnaskedError
from tiercel.tiers.base import TierName

_log = logging.getLogger(__name__)

_TICK_S = 1.0
"""How often the thread looks for what has grown old, while nothing happens."""

_TIERS = {int(tier): tier for tier in TierName}


class Service:
    """Serves clients until closed."""

    def __init__(
        self, cache: ServedCache, front: NodeFront, door: Door, board: BoardWriter, namespaces: Namespaces
    ) -> None:
        """Start the threads. door: lets clients in. Raises RuntimeError if the machine has no thread left."""
        self._cache = cache
        self._front = front
        self._door = door
        self._board = board
        self._board_lock = threading.Lock()
        self._started_at = time.monotonic()
        self._num_malformed = 0
        self._remote_counts: Callable[[], dict[str, int]] = dict
        self._labels = {"recompute": Labels(), "note": Labels()}
        self._notes = ClientNotes()
        self._strangers: dict[int, int] = {}
        self._answering: set[int] = set()
        self._closing = False
        self.ended = threading.Event()
        self.roll = Roll(front, self.update_board)
        self._calls = Calls(cache, front, namespaces, self.status)
        self._thread = threading.Thread(target=self._serve, name="tiercel-node", daemon=True)
        self._thread.start()

    def status(self) -> Status:
        """What the node says of itself."""
        now = time.monotonic()
        counts = self._front.counts()
        return Status(
            version=__version__,
            process=os.getpid(),
            started_s=now - self._started_at,
            clients=[self._client_status(session, now) for session in self.roll.sessions()],
            lanes=self._cache.queue_depths(),
            refused=counts.refused + self._door.num_refused,
            malformed=counts.malformed + self._num_malformed,
            unread=counts.overflowed,
            unobserved=counts.looked_dropped,
            remote=self._remote_counts(),
        )

    def count_remote(self, counts: Callable[[], dict[str, int]]) -> None:
        """Tell from now on what the door for other machines counts."""
        self._remote_counts = counts

    def counts(self) -> NodeCounts:
        """What the cache's status and metrics tell of the node."""
        status = self.status()
        events = {name: getattr(status, name) for name in ("refused", "malformed", "unread", "unobserved")}
        remote = {f"remote_{name}": count for name, count in status.remote.items() if name != "connections"}
        return NodeCounts(len(status.clients), {**events, **remote})

    def answer(self, client: str, call: Call) -> Answer:
        """Answer a call of a client without memory; see `Calls.answer`. Thread-safe."""
        return self._calls.answer(client, call)

    def update_board(self) -> None:
        """Tell clients what loading and computing cost now."""
        costs = self._cache.costs()
        with self._board_lock:
            self._board.write(BoardFacts(costs.num_prefills, costs.prefill, costs.tiers))

    def close(self, reason: str, timeout_s: float) -> None:
        """Let nobody in any more, cancel every ticket, tell every client why, and end the threads. Bounded."""
        self._door.close()
        self.roll.end_all(reason, timeout_s)
        self._calls.close(timeout_s)
        self._closing = True
        self._front.close()
        self._thread.join(timeout_s)
        self.roll.close()

    def _serve(self) -> None:
        next_tick = time.monotonic() + _TICK_S
        try:
            while not self._closing:
                events = self._front.next(_TICK_S)
                for event in events:
                    self._take(event)
                if events:
                    self.update_board()
                now = time.monotonic()
                if now >= next_tick:
                    next_tick = now + _TICK_S
                    self.roll.tick(now)
        finally:
            self.ended.set()

    def _take(self, event: tuple[object, ...]) -> None:
        match event:
            case ("connected", int(connection), int(process)):
                self._strangers[connection] = process
            case ("message", int(connection), bytes(body)):
                try:
                    self._handle(connection, decode_for_node(body))
                except (MessageError, UnaskedError) as error:
                    self._num_malformed += 1
                    self._refuse(connection, f"it sent {error}")
            case ("left", int(connection), str(reason)):
                self._strangers.pop(connection, None)
                self._answering.discard(connection)
                self.roll.lost(connection, reason)
            case ("looked", _, sequence, limit_blocks, _, seconds, segments, num_pending):
                self._cache.note_lookup(sequence, limit_blocks, segments, num_pending, seconds)  # type: ignore[arg-type]
            case ("read", int(client), sequence, int(first), int(count), float(seconds)):
                self._cache.note_read(sequence, range(first, first + count), seconds, client=client)  # type: ignore[arg-type]
            case _:
                raise AssertionError(f"the front told {event!r}")

    def _handle(self, connection: int, message: ToNode) -> None:
        session = self.roll.by_event(connection)
        if session is not None:
            self._hear(session, message)
            return
        session = self.roll.by_call(connection)
        if session is not None:
            self._take_call(session, connection, message)
        elif connection in self._strangers and isinstance(message, Hello | Join):
            self._let_in(connection, message)
        elif connection in self._strangers:
            raise MessageError("something before it said who it is")

    def _let_in(self, connection: int, message: Hello | Join) -> None:
        process = self._strangers.pop(connection)
        if isinstance(message, Join):
            joined = self.roll.find(message.client, message.token)
            if joined is None or not self.roll.add_call(joined, connection, self._cache.config.node_calls_max):
                self._door.num_refused += 1
                self._refuse(connection, "it joins no client that is here, or one that has enough connections")
                return
            self._front.admit(connection, joined.number, True)
            self._front.send(connection, encode(Joined()))
            return
        if self._door.closed:  # as if the node had ended already: its next life may take them
            self._front.cut(connection)
            return
        reason = self._door.objection(message, len(self.roll))
        if reason:
            self._door.num_refused += 1
            self._refuse(connection, reason)
            return
        session = self._door.session(message, connection, process)
        try:
            self.roll.enter(session)
        except OSError as error:
            self._door.num_refused += 1
            self._refuse(connection, f"the node cannot watch this client's process: {error}")
            return
        self._front.admit(connection, session.number, False)
        self._door.welcome(session)

    def _take_call(self, session: Session, connection: int, message: ToNode) -> None:
        if not isinstance(message, Call):
            raise MessageError(f"a {type(message).__name__} where a call is due")
        if connection in self._answering:
            raise MessageError("a call before the last one was answered")
        self._answering.add(connection)
        self._calls.take(session, connection, message, partial(self._answering.discard, connection))

    def _hear(self, session: Session, message: ToNode) -> None:
        """Take in what a client says on its event connection."""
        match message:
            case Done():
                session.copies.answer(message.number, message.failure)
            case Cancel():
                self.roll.cancel(session, message.ticket)
            case Ready():
                self.roll.ready(session)
            case Observe():
                self._observe(session, message)
            case Declined():
                self._cache.decline([_TIERS[tier] for tier in message.tiers if tier in _TIERS])
            case Recompute():
                self._cache.observe_recompute(self._labels["recompute"].of(message.reason))
            case NoteText():
                self._cache.note(self._notes.of(session.name, message.text), kind=self._labels["note"].of(message.kind))
            case Left():
                self.roll.let_go(message.client, message.token)
            case Bye():
                session.said_bye = True
            case Refused():
                _log.warning("client %s cannot use the cache: %s", session.name, message.reason)
                self._front.cut(session.connection)
            case _:
                raise MessageError(f"a {type(message).__name__} where none is due")

    def _observe(self, session: Session, message: Observe) -> None:
        try:
            self._cache.observe_prefill(
                cached_tokens=message.cached_tokens, computed_tokens=message.computed_tokens, seconds=message.seconds
            )
        except ValueError as error:
            raise MessageError(str(error)) from error

    def _refuse(self, connection: int, reason: str) -> None:
        _log.warning("a connection is cut: %s", reason)
        self._front.send(connection, encode(Refused(shortened(reason))))
        self._front.cut(connection)

    def _client_status(self, session: Session, now: float) -> ClientStatus:
        lookups, sequences, _, outbox_bytes = self._front.client_stats(session.number)
        return ClientStatus(
            client=session.number,
            name=session.name,
            process=session.process,
            connected_s=now - session.connected_at,
            tickets=session.num_tickets,
            lookups=lookups,
            sequences=sequences,
            copies=len(session.copies),
            outbox_bytes=outbox_bytes,
            namespaces=session.num_namespaces,
        )
