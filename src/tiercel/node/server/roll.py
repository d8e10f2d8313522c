"""Who is here: the sessions of a node's clients, by every name that they go by, and what happens when one leaves."""

import hmac
import logging
import threading
import time
from collections.abc import Callable

from tiercel._native import NodeFront
from tiercel.cache import Ticket
from tiercel.node.joining import Refused
from tiercel.node.server.exits import ExitWatch
from tiercel.node.server.session import Session, cancel_all
from tiercel.node.server.workers import Workers

_log = logging.getLogger(__name__)

UNSEEN_EXIT_S = 0.5
"""How long after its connection's end a process that is not visible from here counts as living."""


class Roll:
    """The sessions of a node. Thread-safe."""

    def __init__(self, front: NodeFront, on_end: Callable[[], None]) -> None:
        """Start the threads. on_end: called when a client has left. Raises RuntimeError if the machine has no thread left."""
        self._front = front
        self._on_end = on_end
        self._lock = threading.Lock()
        self._by_number: dict[int, Session] = {}
        self._by_event: dict[int, Session] = {}
        self._by_call: dict[int, Session] = {}
        self._unseen: dict[int, float] = {}
        self._emptied_at: float | None = None
        self._exits = ExitWatch()
        self._enders = Workers("node-end", 2)

    def __len__(self) -> int:
        return len(self._by_number)

    def sessions(self) -> list[Session]:
        """Everybody, those that are leaving too."""
        with self._lock:
            return list(self._by_number.values())

    @property
    def empty_s(self) -> float:
        """For how long nobody has been here of those who mapped the memory; 0 if somebody is, or nobody ever was."""
        with self._lock:
            return 0.0 if self._emptied_at is None else time.monotonic() - self._emptied_at

    def enter(self, session: Session) -> None:
        """Take a client in. Raises OSError if the system has no room to watch its process; then it is not here."""
        with self._lock:
            self._by_number[session.number] = session
            self._by_event[session.connection] = session
        try:
            session.watched = self._exits.watch(session.process, lambda: self._exited(session))
        except OSError:
            with self._lock:
                del self._by_number[session.number], self._by_event[session.connection]
            raise

    def ready(self, session: Session) -> None:
        """A client has mapped the memory."""
        if not session.ready:
            _log.info("client %d, %s, process %d, has come", session.number, session.name, session.process)
        session.ready = True
        with self._lock:
            self._emptied_at = None

    def by_event(self, connection: int) -> Session | None:
        """Whose event connection it is."""
        return self._by_event.get(connection)

    def by_call(self, connection: int) -> Session | None:
        """Whose call connection it is."""
        return self._by_call.get(connection)

    def find(self, number: int, token: bytes) -> Session | None:
        """The client that knows this token, if it is here."""
        session = self._by_number.get(number)
        if session is None or session.leaving or not hmac.compare_digest(session.token, token):
            return None
        return session

    def let_go(self, number: int, token: bytes) -> None:
        """A client that knows this token was cut off, and touches nothing any more. Nothing happens if it is not here."""
        session = self._by_number.get(number)
        if session is None or not hmac.compare_digest(session.token, token):
            return
        session.said_bye = True
        if session.leaving:
            self._gone(session, "it was cut off, and has come back")
        else:
            self._front.cut(session.connection)

    def add_call(self, session: Session, connection: int, calls_max: int) -> bool:
        """Note a call connection. False if the client has enough of them."""
        with self._lock:
            if len(session.calls) >= calls_max:
                return False
            session.calls.add(connection)
            self._by_call[connection] = session
            return True

    def cancel(self, session: Session, ticket: int) -> None:
        """Cancel a client's ticket soon."""
        self._enders.put(lambda: session.cancel(ticket))

    def lost(self, connection: int, reason: str) -> None:
        """A connection has ended. Never blocks."""
        with self._lock:
            caller = self._by_call.pop(connection, None)
            if caller is not None:
                caller.calls.discard(connection)
            session = self._by_event.pop(connection, None)
        if session is not None:
            self._leave(session, reason)

    def tick(self, now_s: float) -> None:
        """Let go of what has grown old."""
        with self._lock:
            gone = [number for number, at in self._unseen.items() if at <= now_s]
            sessions = [self._by_number[number] for number in gone if number in self._by_number]
        for session in sessions:
            self._gone(session, "its connection has ended")

    def end_all(self, reason: str, timeout_s: float) -> None:
        """Cancel every ticket, tell every client that the node ends, and wait a bounded time until all that is done."""
        ended = threading.Semaphore(0)
        sessions = self.sessions()
        for session in sessions:
            self._enders.put(lambda session=session: self._dismiss(session, reason, ended))  # type: ignore[misc]
        stop_at = time.monotonic() + timeout_s
        for _ in sessions:
            ended.acquire(timeout=max(0.0, stop_at - time.monotonic()))

    def close(self) -> None:
        """Forget everybody, after the front was closed: what clients might still write to is the process's end's to free."""
        self._enders.close(1.0)
        self._exits.close()
        for session in self.sessions():
            session.copies.lose("the node has ended")

    def _dismiss(self, session: Session, reason: str, ended: threading.Semaphore) -> None:
        cancel_all(session.leave())
        session.tell(Refused(reason))
        ended.release()

    def _exited(self, session: Session) -> None:
        """A client's process has ended, though another may hold its sockets."""
        session.watched = None
        self._front.cut(session.connection)
        self.lost(session.connection, "its process has ended")
        self._gone(session, "its process has ended")

    def _leave(self, session: Session, reason: str) -> None:
        # `tiercel node status` maps nothing, and comes every few seconds where it is a probe.
        is_asker = session.said_bye and not session.ready
        level = logging.DEBUG if is_asker else logging.INFO if session.said_bye else logging.WARNING
        _log.log(level, "client %d, %s, has left: %s", session.number, session.name, reason)
        tickets = session.leave()
        session.copies.fail_all("it has left")
        self._front.drop_client(session.number)
        self._enders.put(lambda: self._take_back(session, tickets))

    def _take_back(self, session: Session, tickets: list[Ticket]) -> None:
        """Cancel the tickets of a client that has left. What it may still write to waits for its process's end."""
        cancel_all(tickets)
        if session.said_bye or not len(session.copies):
            self._gone(session, "it has left")
        elif session.watched is None:
            with self._lock:
                self._unseen[session.number] = time.monotonic() + UNSEEN_EXIT_S

    def _gone(self, session: Session, reason: str) -> None:
        """Nothing of a client touches the memory any more."""
        with self._lock:
            if self._by_number.pop(session.number, None) is None:
                return
            self._unseen.pop(session.number, None)
            if session.ready and not any(other.ready for other in self._by_number.values()):
                self._emptied_at = time.monotonic()
            watched, session.watched = session.watched, None
        session.copies.lose(reason)
        if watched is not None:
            self._exits.forget(watched)
        self._on_end()
