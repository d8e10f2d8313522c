"""How a rejected setting is told: one shape for every message of this package, unknown keywords included."""

import difflib
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from tiercel.errors import ConfigError

_SHOW = reprlib.Repr()  # bounded before it is cut: a file can nest one value in itself many times over
_SHOW.maxlevel = 3
_SHOW.maxstring = _SHOW.maxother = 200


class StrictKeywords:
    """Base of dataclasses that users build by keyword: an unknown one is an error that names the nearest known."""

    if not TYPE_CHECKING:  # type checkers read the dataclass's own __init__

        def __new__(cls, *_: Any, **given: Any) -> Any:
            """Refuse unknown keywords. Raises ConfigError."""
            known = [field.name for field in fields(cls)]
            unknown = next((key for key in given if key not in known), None)
            if unknown is not None:
                raise unknown_key(unknown, known, "keyword")
            return super().__new__(cls)


def problem(key: str, value: object, rule: str, remedy: str, origin: str = "") -> ConfigError:
    """Build the error for one rejected value.

    Args:
        key: the setting's name.
        value: what was given.
        rule: what it must be, with the range.
        remedy: what to do about it.
        origin: where the value came from, such as "environment TIERCEL_EVICT_RATIO".
    """
    source = f" (from {origin})" if origin else ""
    return ConfigError(f"{key} = {shown(value)}{source}: {rule}; {remedy}")


def unknown_key(key: object, known: Iterable[str], origin: str) -> ConfigError:
    """Build the error for a key that nobody reads, with the nearest known one."""
    return ConfigError(f"{key} (from {origin}): unknown key; {nearest(key, known) or 'see docs/configuration.md'}")


def nearest(word: object, known: Iterable[str], *, prefix: str = "") -> str:
    """Return "did you mean 'x'?" for the known word most like this one, or "".

    Args:
        word: what was given; a file's key need not be text.
        known: what might have been meant.
        prefix: what the word and whatever is worth naming begin with. It does not count as likeness.
    """
    rests = [other.removeprefix(prefix) for other in known if other.startswith(prefix)]
    found = difflib.get_close_matches(str(word).removeprefix(prefix), rests, n=1, cutoff=0.6)
    return f"did you mean {prefix + found[0]!r}?" if found else ""


def shown(value: object) -> str:
    """Return a value as messages show it, cut at 80 characters."""
    text = _SHOW.repr(value) if not isinstance(value, int) or abs(value) < 10**40 else "a number of more than 40 digits"
    return text if len(text) <= 80 else text[:77] + "..."


def require_unique(keys: Sequence[object]) -> None:
    """Refuse keys of which one is given twice. Raises ValueError."""
    repeated = next((key for index, key in enumerate(keys) if key in keys[:index]), None)
    if repeated is not None:
        raise ValueError(f"key {repeated!r} is given twice")
