"""What a user should know of settings that were taken: one note for each thing, of one of a few kinds."""

import enum
from dataclasses import dataclass


class NoteKind(enum.StrEnum):
    """Why there is a note."""

    IMPOSSIBLE = "impossible"
    IGNORED = "ignored"
    CONTRADICTORY = "contradictory"
    DIFFERENT = "means something else"
    UNKNOWN = "unknown"
    UNLIKELY = "unlikely"


NOTE_HEADINGS = {
    NoteKind.IMPOSSIBLE: "No cache can be opened with this",
    NoteKind.CONTRADICTORY: "Given twice with different values",
    NoteKind.IGNORED: "Taken without effect",
    NoteKind.DIFFERENT: "Means something else than where it comes from",
    NoteKind.UNLIKELY: "Probably not meant",
    NoteKind.UNKNOWN: "Not known to this version",
}
"""What each kind of note is about, the most pressing first."""


@dataclass(frozen=True, kw_only=True)
class Note:
    """One thing to know.

    Attributes:
        kind: why it is said.
        key: the setting, foreign key or variable that it is about.
        text: one sentence, with a remedy where there is one.
        loud: whether it belongs in the log of whoever runs a cache: what was asked for is not done, or not as asked.
    """

    kind: NoteKind
    key: str
    text: str
    loud: bool = False

    def __str__(self) -> str:
        return f"{self.key}: {self.kind}: {self.text}"
