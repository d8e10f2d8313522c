"""From values of other caches to ours. Each conversion takes a file's value or a variable's text alike."""

import math
from collections.abc import Mapping
from decimal import Decimal

from tiercel.config.dialects.table import Conversion
from tiercel.config.settings import FLAG_WORDS


def gigabytes(key: str, unit: str, switch: str, *, zero: str = "") -> Conversion:
    """Convert a capacity: above 0 sets it and turns its tier on, 0 turns the tier off.

    Args:
        key: the capacity of ours.
        unit: what a gigabyte is there, GB or GiB.
        switch: the setting that turns the tier on and off.
        zero: the rule that 0 breaks, if it does.
    """

    def convert(value: object) -> dict[str, object]:
        found = _number(value)
        if found < 0 or (found == 0 and zero):
            raise ValueError(zero or "must not be below 0")
        return {switch: True, key: f"{Decimal(str(found)):f}{unit}"} if found else {switch: False}

    return Conversion(sets=(switch, key), convert=convert)


def blocks(key: str, switch: str) -> Conversion:
    """Convert a capacity in blocks; 0 leaves it to the size."""

    def convert(value: object) -> dict[str, object]:
        found = whole(value)
        return {switch: True, key: found} if found else {}

    return Conversion(sets=(switch, key), convert=convert)


def count(key: str, *, least: int | None = None) -> Conversion:
    """Convert a whole number; one below `least` counts as `least`."""

    def convert(value: object) -> dict[str, object]:
        found = whole(value)
        return {key: found if least is None else max(least, found)}

    return Conversion(sets=(key,), convert=convert)


def number(key: str) -> Conversion:
    """Convert a number."""
    return Conversion(sets=(key,), convert=lambda value: {key: _number(value)})


def flag(key: str, *, inverted: bool = False) -> Conversion:
    """Convert true or false, also 1 and 0 and their words."""
    return when({True: {key: not inverted}, False: {key: inverted}})


def when(outcomes: Mapping[bool, Mapping[str, object]]) -> Conversion:
    """Convert true or false to what each of them sets."""
    keys = dict.fromkeys(key for values in outcomes.values() for key in values)
    return Conversion(sets=tuple(keys), convert=lambda value: dict(outcomes[_flag(value)]))


def text(key: str) -> Conversion:
    """Convert a text, or a list of them, as it is; the setting itself checks it."""
    return Conversion(sets=(key,), convert=lambda value: {key: value})


def _flag(value: object) -> bool:
    if isinstance(value, str):
        value = FLAG_WORDS.get(value.strip().lower(), value)
    if value in (0, 1) and isinstance(value, (bool, int)):
        return bool(value)
    raise ValueError("must be true or false, or 1 or 0")


def _number(value: object) -> int | float:
    found: int | float | None = None
    if isinstance(value, str) and len(value) < 40:
        try:
            found = int(value)
        except ValueError:
            try:
                found = float(value)
            except ValueError:
                found = None
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        found = value
    if found is None or abs(found) > 2**62 or not math.isfinite(found):
        raise ValueError("must be a number")
    return found


def whole(value: object) -> int:
    """Return a whole number, given as one or as its text. Raises ValueError."""
    found = _number(value)
    if found != int(found):
        raise ValueError("must be a whole number")
    return int(found)
