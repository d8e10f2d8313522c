"""Calls of clients, and what the node answers: runs each on a thread that it may hold up, and answers whatever happens."""

import logging
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec.structs import replace

from tiercel._native import NodeFront
from tiercel.cache import ServedCache
from tiercel.errors import ThrottledError, TiercelError
from tiercel.hashing import Sequence
from tiercel.node.calls import (
    AskHitCurve,
    AskStats,
    AskStatus,
    CountHits,
    Failed,
    HitCurveAnswer,
    Hits,
    Launch,
    Okay,
    OpenNamespace,
    Prefetch,
    PrefetchKeys,
    Reset,
    Root,
    Settle,
    Settled,
    Stats,
    Status,
    Store,
)
from tiercel.node.codec import Answer, Call, encode, shortened
from tiercel.node.namespaces import Namespaces
from tiercel.node.protocol import MESSAGE_BYTES_MAX
from tiercel.node.server.launching import Launching
from tiercel.node.server.session import Session
from tiercel.node.server.workers import Workers
from tiercel.telemetry.snapshot import StatusSnapshot

_log = logging.getLogger(__name__)

_SLOW_CALLS: Final = (Reset, Settle, AskStats, AskHitCurve)
"""Calls that may wait for a device, or take milliseconds: a client has one of them under way at a time."""

_NUM_THREADS, _NUM_SLOW_THREADS = 4, 4
_SETTLE_S_MAX = 60.0
_SNAPSHOT_BYTES_MAX: Final = MESSAGE_BYTES_MAX - 1024
_NOTE_MAX: Final = 200
"""Characters of a note where all of them are too long for a message."""

_NAMESPACES_MAX = 4096
"""Namespaces that one client may have opened."""


class Calls:
    """The calls of all clients. Thread-safe."""

    def __init__(
        self, cache: ServedCache, front: NodeFront, namespaces: Namespaces, status: Callable[[], Status]
    ) -> None:
        """Start the threads. status: what the node says of itself. Raises RuntimeError if the machine has no thread left."""
        self._cache = cache
        self._front = front
        self._namespaces = namespaces
        self._status = status
        self._launching = Launching(cache, front)
        self._workers = Workers("node-call", _NUM_THREADS)
        self._slow_workers = Workers("node-slow", _NUM_SLOW_THREADS)

    def take(self, session: Session, connection: int, call: Call, done: Callable[[], None]) -> None:
        """Run a call soon and answer it on its connection. Never blocks. done: called before the answer is sent."""
        is_slow = isinstance(call, _SLOW_CALLS)
        if is_slow and not session.begin_slow():
            done()
            error = ThrottledError("a reset, settle or statistics of this client is under way; wait for its answer")
            self._reply(connection, _failed(error))
            return
        workers = self._slow_workers if is_slow else self._workers
        workers.put(lambda: self._run(session, connection, call, done))

    def close(self, timeout_s: float) -> None:
        """Wait so long for the calls that were taken."""
        self._workers.close(timeout_s)
        self._slow_workers.close(timeout_s)

    def _run(self, session: Session, connection: int, call: Call, done: Callable[[], None]) -> None:
        answer: Answer = Failed("RuntimeError", "a defect in the node; its log has the trace")
        after: Callable[[], None] | None = None
        try:
            if isinstance(call, Launch | Prefetch | Store):
                answer, after = self._launching.launch(session, call)
            else:
                answer = self.answer(session.name, call)
                if isinstance(answer, Root):
                    self._note_root(session, call, answer.root)
        except (TiercelError, ValueError, TypeError, LookupError, OSError) as error:
            answer = _failed(error)
        finally:
            if isinstance(call, _SLOW_CALLS):
                session.end_slow()
            done()
            self._reply(connection, answer)
            if after is not None:
                after()

    def _reply(self, connection: int, answer: Answer) -> None:
        data = encode(answer)
        if len(data) > MESSAGE_BYTES_MAX:
            data = encode(
                Failed("DeviceError", f"the answer has {len(data)} bytes, at most {MESSAGE_BYTES_MAX} can be told")
            )
        self._front.send(connection, data)

    def answer(self, client: str, call: Call) -> Answer:
        """Answer a call that needs no memory of the client's, here and now. Raises what the cache raises.

        Args:
            client: its name, which may be bound to namespaces.
        """
        match call:
            case OpenNamespace():
                return Root(self._namespaces.root(client, call.name), self._cache.geometry.tokens_per_block)
            case CountHits():
                match = self._cache.index.match(self._named(client, call), touch=False)
                hits = Hits(match.num_blocks)
                match.release()
                return hits
            case PrefetchKeys():
                return self._prefetch_keys(client, call)
            case Reset():
                self._cache.reset()
                return Okay()
            case Settle():
                return Settled(self._cache.settle(min(call.timeout_s, _SETTLE_S_MAX)))
            case AskStatus():
                return self._status()
            case AskStats():
                return _told(self._cache.stats())
            case AskHitCurve():
                return HitCurveAnswer(msgspec.json.encode(self._cache.hit_curve(call.capacities_blocks)))
        raise AssertionError(f"nothing answers a {type(call).__name__}")

    def _note_root(self, session: Session, call: Call, root: bytes) -> None:
        assert isinstance(call, OpenNamespace)
        if session.add_namespace(call.name, _NAMESPACES_MAX):
            self._front.allow_root(session.number, root)

    def _named(self, client: str, call: CountHits | PrefetchKeys) -> Sequence:
        root = self._namespaces.root(client, call.namespace)
        sequence = Sequence.of_keys(root, self._cache.geometry.tokens_per_block, origin=self._cache.origin)
        sequence.append_keys(call.keys)
        return sequence

    def _prefetch_keys(self, client: str, call: PrefetchKeys) -> Hits:
        sequence = self._named(client, call)
        match = self._cache.index.match(sequence)
        num_blocks = match.num_blocks
        lookup = self._cache.adopt(sequence, match, range(num_blocks))
        try:
            self._cache.prefetch(lookup, timeout_s=call.timeout_s)
        except BaseException:
            lookup.release()
            raise
        return Hits(num_blocks)


def _told(stats: StatusSnapshot) -> Stats:
    """Return the cache's state as a message. Notes are cut if it would be too long: clients write them."""
    encoded = msgspec.json.encode(stats)
    if len(encoded) > _SNAPSHOT_BYTES_MAX:
        encoded = msgspec.json.encode(replace(stats, notes=tuple(note[:_NOTE_MAX] for note in stats.notes)))
    return Stats(encoded)


def _failed(error: Exception) -> Failed:
    _log.debug("a call failed: %s", error)
    return Failed(type(error).__name__, shortened(str(error)))
