"""What is known of one foreign key: its names, what it sets here, and what has to be said about it.

A dialect is a table of `ForeignKey`s and one function for what follows from several of them together. `convert` holds
the conversions that tables name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tiercel.config.notes import Note, NoteKind

Values = Mapping[str, object]
"""Values by key of ours."""

Convert = Callable[[object], dict[str, object]]
"""From a foreign value, a text where it comes from the environment, to ours by key; raises ValueError with the rule."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A conversion and the settings that it may set."""

    sets: tuple[str, ...]
    convert: Convert


@dataclass(frozen=True, kw_only=True)
class ForeignKey:
    """One key of another cache.

    Attributes:
        name: the key in files, dotted where it is nested; "" where only the environment has it.
        variables: names in the environment, the weakest first; one that ends in * stands for all that begin so.
        conversion: what it sets here; None if nothing.
        kind: of `note`.
        note: what is said whenever the key is given: why it has no effect, or what differs; "" for nothing.
        loud: whether the note belongs in the log.
        subtree: whether everything below `name` is meant.
        weight: which of two keys for one setting wins within one dialect, the heavier one.
        basic: whether the dialect's own file takes the place of this variable.
    """

    name: str
    variables: tuple[str, ...] = ()
    conversion: Conversion | None = None
    kind: NoteKind = NoteKind.IGNORED
    note: str = ""
    loud: bool = False
    subtree: bool = False
    weight: int = 0
    basic: bool = False

    @property
    def sets(self) -> tuple[str, ...]:
        """The settings that it may set."""
        return self.conversion.sets if self.conversion is not None else ()

    @property
    def outcome(self) -> str:
        """What becomes of it, in words, for the reference page."""
        if self.conversion is None:
            return f"ignored: {self.note}"
        return f"{self.kind}: {self.note}" if self.note else ""


@dataclass(frozen=True, kw_only=True)
class Inferred:
    """What follows from foreign settings together.

    Attributes:
        values: further settings, by key; whatever was given wins over them.
        notes: what to know.
    """

    values: Values = field(default_factory=dict)
    notes: Sequence[Note] = ()


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One other cache's settings.

    Attributes:
        name: as its users call it.
        about: what to know of its files and variables, for the reference page.
        prefixes: what the names of its environment variables start with.
        strong_prefix: what the names of variables that win over its files start with, "" if none do.
        file_variable: the variable that names its settings file.
        roots: top-level keys of its files whose nested keys are all its own; an unknown one below is a note.
        keys: everything known.
        infer: what follows from all values, ours and foreign, once a key of this dialect set something. It gets the
            values by key of ours.
    """

    name: str
    about: str
    prefixes: tuple[str, ...]
    strong_prefix: str
    file_variable: str
    roots: frozenset[str]
    keys: Sequence[ForeignKey]
    infer: Callable[[Values], Inferred]


def ignored(name: str, why: str, *variables: str, subtree: bool = False, loud: bool = False) -> ForeignKey:
    """Declare a key that sets nothing here."""
    return ForeignKey(name=name, variables=variables, note=why, subtree=subtree, loud=loud)


def taken(name: str, conversion: Conversion, *variables: str, weight: int = 0, differs: str = "") -> ForeignKey:
    """Declare a key that sets something here, with what differs."""
    return ForeignKey(
        name=name, variables=variables, conversion=conversion, weight=weight, kind=NoteKind.DIFFERENT, note=differs
    )
