"""How a rejected setting is told: one shape for every message of this package."""

import difflib
from collections.abc import Iterable, Sequence

from tiercel.errors import ConfigError


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


def unknown_key(key: str, known: Iterable[str], origin: str) -> ConfigError:
    """Build the error for a key that nobody reads, with the nearest known one."""
    return ConfigError(f"{key} (from {origin}): unknown key; {nearest(key, known) or 'see docs/configuration.md'}")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "did you mean 'x'?" for the known word most like this one, or ""."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {found[0]!r}?" if found else ""


def shown(value: object) -> str:
    """Return a value as messages show it, cut at 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def require_unique(keys: Sequence[object]) -> None:
    """Refuse keys of which one is given twice. Raises ValueError."""
    repeated = next((key for index, key in enumerate(keys) if key in keys[:index]), None)
    if repeated is not None:
        raise ValueError(f"key {repeated!r} is given twice")
