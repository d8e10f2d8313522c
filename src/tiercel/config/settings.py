"""One setting: its kind, default, range, unit, meaning, and how a value is checked.

`cache.CacheConfig` declares its fields through `setting`; the loader, the explanation and the reference page read the
declarations back with `settings_of`. So a default or a range stands in one place.
"""

import dataclasses
import enum
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tiercel.config.messages import problem
from tiercel.config.paths import is_path_text
from tiercel.config.sizes import format_bytes, is_share, parse_share, parse_size
from tiercel.errors import ConfigError

FLAG_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
"""What a flag's text in the environment stands for."""


class Bindings(dict[str, tuple[str, ...]]):
    """Texts by name, as a setting's value: not to be changed, so that settings can be keys."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(sorted(self.items())))


class Kind(enum.Enum):
    """What values a setting takes."""

    FLAG = "true or false"
    COUNT = "an integer"
    POWER_OF_TWO = "a power of two"
    NUMBER = "a number"
    CHOICE = "one of"
    CAPACITY = "blocks, a size such as 64GiB, or a share such as 80%"
    SIZE = "bytes, or a size such as 64MiB"
    DIRECTORIES = 'a directory, a list of directories, or one text with ";" between them'
    TEXT = "text"
    BINDINGS = "a list of texts for each name; in the environment as JSON"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What is known of one setting.

    Attributes:
        key: the name, as in files and keywords; upper case after TIERCEL_ in the environment.
        kind: what values it takes.
        default: the value if nobody gives one.
        default_text: the default as documentation shows it.
        unit: what the number counts.
        low: least value, inclusive; of a size in bytes.
        high: greatest value, inclusive; of a size in bytes.
        choices: the allowed texts of a CHOICE.
        meaning: one line: what it does.
        measure: what to look at before changing it.
    """

    key: str
    kind: Kind
    default: object
    default_text: str
    unit: str
    low: float
    high: float
    choices: tuple[str, ...]
    meaning: str
    measure: str

    @property
    def optional(self) -> bool:
        """Whether null is a value: it is where it is the default."""
        return self.default is None

    @property
    def range_text(self) -> str:
        """The allowed values in words."""
        return f"{self._range_text}, or null" if self.optional else self._range_text

    @property
    def _range_text(self) -> str:
        kind, low, high = self.kind, self.low, self.high
        if kind is Kind.CHOICE:
            return " | ".join(self.choices)
        if kind is Kind.SIZE:
            return f"{kind.value}, {format_bytes(int(low))} to {format_bytes(int(high))}"
        if kind is Kind.CAPACITY:
            return f"{kind.value}, 1 to {high:.0f} blocks"
        if kind in (Kind.COUNT, Kind.POWER_OF_TWO, Kind.NUMBER):
            return f"{kind.value}, {low:g} to {high:g}"
        return str(kind.value)

    def check(self, value: object, origin: str = "") -> object:
        """Return the value as it is stored: a float for a number, a tuple for a list, the value itself otherwise.

        Raises:
            ConfigError: wrong type or out of range.
        """
        if value is None and self.optional:
            return None
        accepted = _CHECKS[self.kind](self, value, origin)
        if accepted is None:
            raise self.rejected(value, origin)
        return accepted

    def parse(self, text: str, origin: str) -> object:
        """Return the value that a text, such as an environment variable's, stands for.

        Raises:
            ConfigError: the text stands for no allowed value.
        """
        word = text.strip()
        if self.kind is Kind.FLAG:
            return self.check(FLAG_WORDS.get(word.lower(), text), origin)
        if self.optional and word.lower() in ("", "none", "null"):
            return None
        if self.kind in (Kind.CHOICE, Kind.DIRECTORIES, Kind.TEXT):
            return self.check(text, origin)
        if self.kind is Kind.BINDINGS:
            return self.check(_from_json(word), origin)
        number = _as_number(word)
        return self.check(text if number is None else number, origin)

    def rejected(self, value: object, origin: str) -> ConfigError:
        """Build the error for a value outside the range."""
        remedy = f"the default is {self.default_text}"
        if self.kind is Kind.POWER_OF_TWO and type(value) is int and self.low < value < self.high:
            remedy = f"use {1 << (value.bit_length() - 1)} or {1 << value.bit_length()}"
        return problem(self.key, value, f"must be {self.range_text}", remedy, origin)


def setting(
    default: object,
    meaning: str,
    *,
    kind: Kind,
    measure: str,
    unit: str = "",
    bounds: tuple[float, float] = (0, 0),
    choices: Sequence[str] = (),
    default_text: str = "",
) -> Any:
    """Declare a dataclass field that carries its description. The key is the field's name."""
    text = default_text or (
        "null" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
    )
    described = {
        "kind": kind,
        "default": default,
        "default_text": text,
        "unit": unit,
        "low": bounds[0],
        "high": bounds[1],
        "choices": tuple(choices),
        "meaning": meaning,
        "measure": measure,
    }
    return dataclasses.field(default=default, metadata=described)


def settings_of(cls: type) -> dict[str, Setting]:
    """Return the settings that a dataclass declares, by key, in order."""
    return {field.name: Setting(key=field.name, **field.metadata) for field in dataclasses.fields(cls)}


def usable_cores() -> int:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def _from_json(word: str) -> object:
    try:
        return json.loads(word)
    except ValueError:
        return word


def _as_number(word: str) -> int | float | None:
    for convert in (int, float):
        try:
            return convert(word)
        except ValueError:
            continue
    return None


def _flag(_: Setting, value: object, __: str) -> object:
    return value if isinstance(value, bool) else None


def _count(described: Setting, value: object, _: str) -> object:
    return value if type(value) is int and described.low <= value <= described.high else None


def _power_of_two(described: Setting, value: object, origin: str) -> object:
    return value if type(value) is int and _count(described, value, origin) and value & (value - 1) == 0 else None


def _number(described: Setting, value: object, _: str) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if described.low <= value <= described.high else None


def _choice(described: Setting, value: object, _: str) -> object:
    return value if isinstance(value, str) and value in described.choices else None


def _capacity(described: Setting, value: object, origin: str) -> object:
    if is_share(value):
        return value if parse_share(described.key, str(value), origin) else None
    if isinstance(value, str):
        return value if parse_size(described.key, value, origin) > 0 else None
    return _count(described, value, origin)


def _size(described: Setting, value: object, origin: str) -> object:
    num_bytes = parse_size(described.key, value, origin) if isinstance(value, str) else value
    return value if type(num_bytes) is int and described.low <= num_bytes <= described.high else None


def _directories(_: Setting, value: object, __: str) -> object:
    given = value if isinstance(value, (list, tuple)) else (value,)
    entries = tuple(os.fspath(entry) for entry in given if isinstance(entry, (str, os.PathLike)))
    if len(entries) != len(given) or not all(is_path_text(entry) for entry in entries):
        return None
    return entries if given is value else entries[0]


def _text(_: Setting, value: object, __: str) -> object:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    return text if isinstance(text, str) and text and is_path_text(text) else None


def _bindings(_: Setting, value: object, __: str) -> object:
    """A frozen mapping: settings are compared and hashed."""
    if not isinstance(value, Mapping):
        return None
    entries = {name: tuple(texts) if isinstance(texts, (list, tuple)) else None for name, texts in value.items()}
    for name, texts in entries.items():
        if not isinstance(name, str) or texts is None or not all(isinstance(text, str) for text in texts):
            return None
    return Bindings(entries)


_CHECKS: dict[Kind, Callable[[Setting, object, str], object]] = {
    Kind.FLAG: _flag,
    Kind.COUNT: _count,
    Kind.POWER_OF_TWO: _power_of_two,
    Kind.NUMBER: _number,
    Kind.CHOICE: _choice,
    Kind.CAPACITY: _capacity,
    Kind.SIZE: _size,
    Kind.DIRECTORIES: _directories,
    Kind.TEXT: _text,
    Kind.BINDINGS: _bindings,
}
