"""Reads other caches' keys and variables onto our settings, by their tables.

What a foreign key sets is a claim. `settle` decides between claims as the dialect itself would; between two dialects,
or two keys that its own cache would not rank, nobody can, and both are refused. `load` lets our own keys win over all.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tiercel.config.cache import SETTINGS
from tiercel.config.dialects.dynamo import DYNAMO
from tiercel.config.dialects.flexkv import FLEXKV
from tiercel.config.dialects.table import Dialect, ForeignKey
from tiercel.config.messages import nearest, problem, shown
from tiercel.config.notes import Note, NoteKind
from tiercel.config.settings import FLAG_WORDS
from tiercel.errors import ConfigError

DIALECTS: tuple[Dialect, ...] = (FLEXKV, DYNAMO)
"""Every dialect, in the order of the reference page."""

KEYS_MAX = 2000
"""Most nested keys of a foreign file: with YAML's aliases a short file can hold endless ones."""

_DEPTH_MAX = 12
_FILE_RANKS = {"default": 20, "": 21, "leader": 22}
_STRONG_RANK = 30


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What one foreign key sets.

    Attributes:
        key: our setting.
        value: its value here, checked.
        name: the foreign key or variable.
        origin: where it stands, as `LoadedConfig.sources` tells it.
        dialect: whose key it is.
        order: which claim of one dialect wins, the greater one.
    """

    key: str
    value: object
    name: str
    origin: str
    dialect: Dialect
    order: tuple[int, int]


@dataclass(kw_only=True)
class Reading:
    """What was read so far."""

    claims: list[Claim] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Given:
    """One foreign key as it was met."""

    dialect: Dialect
    known: ForeignKey
    name: str
    value: object
    place: str
    origin: str
    rank: int


def read_variables(environ: Mapping[str, str], reading: Reading, *, beside: Dialect | None = None) -> None:
    """Read every foreign variable.

    Args:
        environ: all variables.
        reading: what is added to.
        beside: the dialect whose settings file is read as well, named by its own variable.

    Raises:
        ConfigError: a known variable's value stands for nothing.
    """
    for name, text in environ.items():
        dialect = next(
            (found for found in DIALECTS if name.startswith(found.prefixes) or name in _VARIABLES[found.name]), None
        )
        if dialect is None or name == dialect.file_variable:
            continue
        known = _variable(dialect, name)
        if known is None:
            prefix = next((found for found in dialect.prefixes if name.startswith(found)), "")
            hint = nearest(name, _VARIABLES[dialect.name], prefix=prefix) or "it may belong to another program"
            reading.notes.append(
                Note(kind=NoteKind.UNKNOWN, key=name, text=f"no variable of {dialect.name} that is known here; {hint}")
            )
        elif known.basic and dialect is beside:
            why = f"{dialect.name} does not look at it when {dialect.file_variable} names a file"
            reading.notes.append(Note(kind=NoteKind.IGNORED, key=name, text=why))
        else:
            strong = dialect.strong_prefix != "" and name.startswith(dialect.strong_prefix)
            rank = next((at for at, other in enumerate(known.variables) if other == name), 0)
            _take(
                _Given(
                    dialect=dialect,
                    known=known,
                    name=name,
                    value=text,
                    place="environment",
                    origin=f"environment {name}",
                    rank=rank + (_STRONG_RANK if strong else 0),
                ),
                reading,
            )


def dialect_of(key: str) -> Dialect | None:
    """Return the dialect that a file's top-level key belongs to."""
    return next((found for found in DIALECTS if key in found.roots or key in _KEYS[found.name]), None)


def file_keys() -> list[str]:
    """Every foreign key that may stand at the top level of a file."""
    return [name for found in DIALECTS for name in (*found.roots, *_KEYS[found.name]) if "." not in name]


def read_key(key: str, value: object, origin: str, reading: Reading) -> None:
    """Read a top-level key of a file that `dialect_of` knows, with everything below it.

    Raises:
        ConfigError: a value stands for nothing, or there are too many.
    """
    dialect = dialect_of(key)
    assert dialect is not None
    profile = key if key in ("default", "leader") and key in dialect.roots else ""
    start = () if profile else (key,)
    for count, (path, found) in enumerate(_leaves(dialect, start, value)):
        if count >= KEYS_MAX:
            raise ConfigError(f"{key} (from {origin}): holds more than {KEYS_MAX} keys; give those that are needed")
        name = ".".join(path)
        known = _KEYS[dialect.name].get(name)
        if known is None:
            hint = nearest(name, _KEYS[dialect.name]) or f"no key of {dialect.name} that is known here"
            reading.notes.append(Note(kind=NoteKind.UNKNOWN, key=name or key, text=f"left out; {hint}"))
        elif found is not None:
            given = _Given(
                dialect=dialect,
                known=known,
                name=name,
                value=found,
                place=origin,
                origin=f"{origin} ({name})",
                rank=_FILE_RANKS[profile],
            )
            _take(given, reading)


def settle(claims: Sequence[Claim], reading: Reading) -> dict[str, Claim]:
    """Return the claim that wins for each setting, and note those that lose.

    Raises:
        ConfigError: two claims contradict each other, and nothing says which wins.
    """
    winners: dict[str, Claim] = {}
    for claim in sorted(claims, key=lambda claim: claim.order, reverse=True):
        winner = winners.setdefault(claim.key, claim)
        if claim.value == winner.value:
            continue
        if claim.dialect is not winner.dialect or claim.order == winner.order:
            raise ConfigError(
                f"{claim.name} and {winner.name}: ask for {claim.key} = {shown(claim.value)} and {shown(winner.value)}; "
                f"remove one of them, or set {claim.key} itself"
            )
        if claim.name != winner.name:  # or one profile of a file refines another, as it is meant to
            reading.notes.append(overruled(claim, winner.name))
    return winners


def overruled(claim: Claim, winner: str) -> Note:
    """Return the note on a claim that something else wins over."""
    text = f"asks for {claim.key} = {shown(claim.value)}, but {winner} wins; remove one of them"
    return Note(kind=NoteKind.CONTRADICTORY, key=claim.name, text=text, loud=True)


def infer(claims: Sequence[Claim], values: Mapping[str, object], reading: Reading) -> Iterator[tuple[str, object, str]]:
    """Yield what follows from dialects that set something: key, value and origin.

    Args:
        claims: what foreign keys set.
        values: every setting given so far, ours and theirs.
        reading: what notes are added to.
    """
    for dialect in DIALECTS:
        if any(claim.dialect is dialect for claim in claims):
            inferred = dialect.infer(values)
            reading.notes += inferred.notes
            yield from ((key, value, f"as {dialect.name} does") for key, value in inferred.values.items())


def _leaves(dialect: Dialect, path: tuple[str, ...], value: object) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield what stands at and below a path: known keys whole, else value by value."""
    known = _KEYS[dialect.name].get(".".join(path))
    if known is None and isinstance(value, dict) and len(path) < _DEPTH_MAX:
        for key, inner in value.items():
            yield from _leaves(dialect, (*path, str(key)), inner)
    else:
        yield path, value


def _variable(dialect: Dialect, name: str) -> ForeignKey | None:
    """Return what is known of a variable: by its name, else by the longest beginning that a table has."""
    known = _VARIABLES[dialect.name]
    begins = [pattern for pattern in known if pattern.endswith("*") and name.startswith(pattern[:-1])]
    return known.get(name) or (known[max(begins, key=len)] if begins else None)


def _take(given: _Given, reading: Reading) -> None:
    """Turn one foreign key into claims and notes."""
    known = given.known
    if known.note:
        asked = not isinstance(given.value, str) or FLAG_WORDS.get(given.value.strip().lower(), True)
        loud = known.loud and bool(given.value) and asked
        reading.notes.append(Note(kind=known.kind, key=given.name, text=known.note, loud=loud))
    if known.conversion is None:
        return
    try:
        values = known.conversion.convert(given.value)
    except ValueError as error:
        remedy = f"correct it as {given.dialect.name} would want it, or remove it"
        raise problem(given.name, given.value, str(error), remedy, given.place) from error
    for key, value in values.items():
        reading.claims.append(
            Claim(
                key=key,
                value=SETTINGS[key].check(value, given.origin),
                name=given.name,
                origin=given.origin,
                dialect=given.dialect,
                order=(known.weight, given.rank),
            )
        )


_VARIABLES = {dialect.name: {name: known for known in dialect.keys for name in known.variables} for dialect in DIALECTS}
_KEYS = {dialect.name: {known.name: known for known in dialect.keys if known.name} for dialect in DIALECTS}
