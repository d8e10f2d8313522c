"""What a client asks and tells of the whole cache, beside its own blocks: status, notes, counts, reset. Used by `client` only."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import msgspec
from msgspec.structs import replace

from tiercel.control import HitCurve
from tiercel.errors import DeadlineError
from tiercel.node.calls import CAPACITIES_MAX, AskHitCurve, AskStats, HitCurveAnswer, Reset, Settle, Settled, Stats
from tiercel.node.client.calls import NodeGoneError
from tiercel.node.client.link import CALL_S, Link
from tiercel.node.codec import Answer, shortened
from tiercel.node.events import NoteText, Recompute
from tiercel.node.protocol import NAME_MAX, Message
from tiercel.telemetry.logs import Notes
from tiercel.telemetry.snapshot import StatusSnapshot

_RESET_S = 35.0
"""Longest wait for a reset, which itself waits for devices."""

_CAPACITY_MAX = 2**63 - 1

_SETTLE_S_MAX = 60.0
"""Longest wait that the node takes on."""


class Reports:
    """Reports of one client. Thread-safe."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in ("fallbacks", "recompute", "throttled")}
        self._notes = Notes(logging.getLogger("tiercel"), lambda kind: self._count("fallbacks", kind))
        self._slow = threading.Lock()
        self._last: StatusSnapshot | None = None

    def note_here(self, text: str, kind: str) -> None:
        """Note what concerns this process."""
        self._notes.add(text, kind=kind)

    def note(self, link: Link, text: str, kind: str) -> None:
        """Note what the node's status is to show."""
        if link.alive:
            link.tell(NoteText(shortened(text), kind[:NAME_MAX]))
        else:
            self.note_here(text, kind)

    def recompute(self, link: Link, reason: str) -> None:
        """Count what a connector gave back to its engine."""
        if link.alive:
            link.tell(Recompute(reason))
        else:
            self._count("recompute", reason)

    def missed(self, reason: str) -> None:
        """Count a call that found no node."""
        del reason  # the keeper notes why once for all of them
        self._count("fallbacks", "node_gone")

    def throttled(self, what: str) -> None:
        """Count what the node had no room for."""
        self._count("throttled", what)

    def stats(self, link: Link) -> StatusSnapshot:
        """The node's status, and what was counted and noted here while it was gone; the last one while it is."""
        try:
            answer = self._ask(link, AskStats(), CALL_S)
            assert isinstance(answer, Stats), f"AskStats was answered with {type(answer).__name__}"
            self._last = msgspec.json.decode(answer.snapshot, type=StatusSnapshot)
        except NodeGoneError as error:
            if self._last is None:
                raise DeadlineError(f"the node has ended: {error}") from error
        told = self._last
        assert told is not None
        counters = dict(told.activity.counters)
        for name, counts in self._counts.items():
            told_counts = counters[name]
            counters[name] = {**told_counts, **{kind: told_counts.get(kind, 0) + n for kind, n in counts.items()}}
        notes = tuple(dict.fromkeys((*told.notes, *self._notes.texts())))
        return replace(told, activity=replace(told.activity, counters=counters), notes=notes)

    def hit_curve(self, link: Link, capacities_blocks: Iterable[int] | None) -> HitCurve:
        """As `Cache.hit_curve`. Raises DeadlineError if the node is gone."""
        capacities = (
            None if capacities_blocks is None else [min(int(each), _CAPACITY_MAX) for each in capacities_blocks]
        )
        if capacities is not None and any(capacity < 0 for capacity in capacities):
            raise ValueError(f"capacities_blocks = {capacities}: must not be negative")
        if capacities is not None and len(capacities) > CAPACITIES_MAX:
            raise ValueError(f"{len(capacities)} capacities: ask a node for at most {CAPACITIES_MAX} at once")
        try:
            answer = self._ask(link, AskHitCurve(capacities), CALL_S)
        except NodeGoneError as error:
            raise DeadlineError(f"the node is gone: {error}") from error
        assert isinstance(answer, HitCurveAnswer), f"AskHitCurve was answered with {type(answer).__name__}"
        return msgspec.json.decode(answer.curve, type=HitCurve)

    def settle(self, link: Link, timeout_s: float) -> bool:
        """Whether nothing was under way in the node in time."""
        wait_s = max(0.0, min(timeout_s, _SETTLE_S_MAX))
        stop_at = time.monotonic() + wait_s
        try:
            with self._turn(wait_s):
                answer = link.call(Settle(max(0.0, stop_at - time.monotonic())), wait_s + CALL_S)
        except NodeGoneError:
            return False
        return isinstance(answer, Settled) and answer.settled

    def reset(self, link: Link) -> None:
        """Have everything forgotten. Raises DeadlineError if the node is gone."""
        try:
            self._ask(link, Reset(), _RESET_S)
        except NodeGoneError as error:
            raise DeadlineError(f"nothing was forgotten; reset again: {error}") from error

    def _ask(self, link: Link, message: Message, timeout_s: float) -> Answer:
        """Ask what may take long, when it is its turn."""
        with self._turn(timeout_s):
            return link.call(message, timeout_s)

    @contextmanager
    def _turn(self, timeout_s: float) -> Iterator[None]:
        """Wait for what this client asked before: the node takes one such call of a client at a time."""
        if not self._slow.acquire(timeout=timeout_s):
            raise NodeGoneError("a settle or reset of this client is not answered yet")
        try:
            yield
        finally:
            self._slow.release()

    def _count(self, name: str, kind: str) -> None:
        self._counts[name][kind] += 1
