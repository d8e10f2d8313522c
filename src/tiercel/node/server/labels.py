"""Names that clients give to what is counted: bounded, so that no client can fill the metrics."""

import re
import threading
from typing import Final

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
