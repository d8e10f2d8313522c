"""Names and notes that clients give: bounded, so that no client can fill the metrics, or take the notes of all others."""

import re
import threading
from collections import Counter
from typing import Final

from tiercel.telemetry.logs import NOTES_MAX

OTHER: Final = "other"
_LABELS_MAX = 64
_LABEL = re.compile(r"[A-Za-z0-9_.-][A-Za-z0-9_.: -]{0,63}")  # "load: IO_ERROR", as connectors say it


class Labels:
    """The names of one kind that are told as they are. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: set[str] = set()

    def of(self, text: str) -> str:
        """Return the text if it is a name, and one of the first; else `OTHER`."""
        if _LABEL.fullmatch(text) is None:
            return OTHER
        with self._lock:
            if text not in self._known and len(self._known) >= _LABELS_MAX:
                return OTHER
            self._known.add(text)
        return text


_NOTES_OF_ONE_MAX: Final = 8
_NOTES_OF_CLIENTS_MAX: Final = NOTES_MAX - 2 * _NOTES_OF_ONE_MAX
"""The node's own notes have the rest."""


class ClientNotes:
    """Which notes of clients are kept, by the client's name: it may come back under another number. Of one thread."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._nums: Counter[str] = Counter()

    def of(self, client: str, text: str) -> str:
        """Return what to note: the text with the client's name, or that there are more than are kept."""
        named = f"{client}: {text}"
        if named in self._known:
            return named
        if len(self._known) >= _NOTES_OF_CLIENTS_MAX:
            return "clients have more notes than are kept here; their logs have them"
        if self._nums[client] >= _NOTES_OF_ONE_MAX - 1:
            named = f"{client}: it has more notes than are kept here; its log has them"
            self._known.add(named)
            return named
        self._nums[client] += 1
        self._known.add(named)
        return named
