"""What the node knows of this client's sequences: their numbers, and how many of their keys it has. Used by `client` only.

Keys go to the node once, ahead of the call that needs them and on its connection. A sequence that the node has dropped is opened
anew, with all its keys. Entries go when their sequences do.
"""

import itertools
import struct
import threading
import weakref
from collections.abc import Callable
from typing import ClassVar, Final

from tiercel._native import NodeFound
from tiercel.hashing import Sequence
from tiercel.node.calls import Failed
from tiercel.node.client.calls import NodeGoneError, ask
from tiercel.node.client.link import SILENCE_S, Link
from tiercel.node.codec import Answer
from tiercel.node.protocol import MAGIC, PROTOCOL_VERSION, Kind, Message

UNKNOWN_SEQUENCE: Final = "unknown sequence"
"""What the node's answer begins with to the store of a sequence that it has dropped meanwhile."""

_UNKNOWN_STATE: Final = 1
"""The same of a lookup."""

_OPEN: Final = MAGIC + bytes((PROTOCOL_VERSION, Kind.OPEN))
_NUMBERS: Final = 2**32
_NAMESPACES_MAX: Final = 4096
_numbers = itertools.count(1)


class KnownSequence:
    """What the node knows of a sequence."""

    def __init__(self, namespace: str) -> None:
        """namespace: whose root it begins with."""
        self.epoch = 0
        """The connection that the number belongs to; 0 for none."""
        self.number = 0
        """The node's number of it."""
        self._num_keys = 0
        self._namespace = namespace
        self._lock = threading.Lock()

    def look_up(self, link: Link, sequence: Sequence, limit_blocks: int | None, engine_blocks: int) -> NodeFound:
        """Ask what is stored of its leading blocks. Raises NodeGoneError, ThrottledError."""
        self._check_root(link, sequence)
        with self._lock, link.lent(SILENCE_S) as call:
            for again in (False, True):
                self._number_it(link, anew=again)
                found = call.lookup(sequence, self.number, self._num_keys, limit_blocks, engine_blocks, SILENCE_S)
                if found.state != _UNKNOWN_STATE:
                    break
            self._num_keys = found.num_known
        return found

    def ask_store(
        self, link: Link, sequence: Sequence, stop: int, make: Callable[[int], Message], timeout_s: float
    ) -> Answer:
        """Send the keys of the blocks before `stop`, and ask for a store of them. Raises as `look_up`.

        Args:
            make: makes the call, of the sequence's number.
        """
        self._check_root(link, sequence)
        with self._lock, link.lent(timeout_s) as call:
            for again in (False, True):
                self._number_it(link, anew=again)
                if not self._num_keys:
                    call.send(_OPEN + struct.pack("<I", self.number) + sequence.root)
                call.send_keys(sequence, self.number, min(self._num_keys, stop), stop)
                answer = ask(call, make(self.number), timeout_s)
                if not (isinstance(answer, Failed) and answer.text.startswith(UNKNOWN_SEQUENCE)):
                    break
            self._num_keys = max(self._num_keys, stop)
        return answer

    def _check_root(self, link: Link, sequence: Sequence) -> None:
        if link.root(self._namespace) != sequence.root:
            raise NodeGoneError(
                f"the keys of namespace {self._namespace!r} are others since the node was restarted with another secret"
            )

    def _number_it(self, link: Link, *, anew: bool) -> None:
        """Give the sequence a new number if the node does not know it: it is opened by that, and all its keys are sent."""
        if anew or self.epoch != link.epoch:
            self.epoch, self.number, self._num_keys = link.epoch, next(_numbers) % _NUMBERS, 0


class SequenceTable:
    """The sequences that one client uses. Thread-safe."""

    _namespaces: ClassVar[dict[bytes, str]] = {}
    """Of each root key that any client in this process was given, the namespace, so that they may share sequences."""

    def __init__(self, common_root: bytes, forget: Callable[[int, int], None]) -> None:
        """Know none.

        Args:
            common_root: of the namespace "", by which sequences of caches in process are known.
            forget: told (epoch, number) of a sequence that is gone; called by its weak reference, on any thread.
        """
        self._common_root = common_root
        self._forget = forget
        self._known: dict[int, tuple[KnownSequence, weakref.ref[Sequence]]] = {}

    def enter(self, sequence: Sequence, namespace: str) -> None:
        """Know a new sequence."""
        known = self._namespaces
        known.setdefault(sequence.root, namespace)
        if len(known) > _NAMESPACES_MAX:
            known.pop(next(iter(known)), None)
        self._know(sequence, namespace)

    def find(self, sequence: Sequence) -> KnownSequence:
        """Return what is known of a sequence, which may be another cache's with the same keys. Raises ValueError for one whose
        namespace cannot be told."""
        entry = self._known.get(id(sequence))
        if entry is not None:
            return entry[0]
        namespace = "" if sequence.root == self._common_root else self._namespaces.get(sequence.root)
        if namespace is None:
            raise ValueError("the sequence was made by another cache or by hand; make it with this cache's `sequence`")
        return self._know(sequence, namespace)

    def _know(self, sequence: Sequence, namespace: str) -> KnownSequence:
        key, known = id(sequence), KnownSequence(namespace)
        return self._known.setdefault(key, (known, weakref.ref(sequence, lambda _: self._gone(key))))[0]

    def _gone(self, key: int) -> None:
        entry = self._known.pop(key, None)
        if entry is not None and entry[0].epoch:
            self._forget(entry[0].epoch, entry[0].number)
