"""Sizes as people write them: "64GiB", "64 GB", "512MiB"."""

import re
from fractions import Fraction

from tiercel.config.messages import problem

UNIT_BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
"""Bytes of each unit, upper case: powers of ten without the i, powers of two with it."""

_SIZE = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([A-Za-z%]*)", re.ASCII)
_FORM = 'a size is a number and a unit, such as "64GiB" (2**30) or "64GB" (10**9)'


def parse_size(key: str, text: str, origin: str = "") -> int:
    """Return a written size in bytes, rounded down.

    Raises:
        ConfigError: the text is no size; a percentage is none here.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise problem(key, text, _FORM, "write it so", origin)
    number, unit = match.groups()
    if unit == "%":
        raise problem(key, text, "only the capacity of a tier can be a share of what there is", "write a size", origin)
    if not unit:
        hint = f'write "{number}B" for bytes, or the bare number where it counts blocks'
        raise problem(key, text, _FORM, hint, origin)
    factor = UNIT_BYTES.get(unit.upper())
    if factor is None:
        hint = f'write "{number}{unit}iB" or "{number}{unit}B"' if unit.upper() + "IB" in UNIT_BYTES else "use B to TiB"
        raise problem(key, text, _FORM, hint, origin)
    whole, _, decimals = number.partition(".")
    scale: int = 10 ** len(decimals)
    return int(whole + decimals) * factor // scale


def size_in_bytes(key: str, value: int | str) -> int:
    """Return a size that is written, or a number of bytes already, in bytes. Raises as `parse_size`."""
    return parse_size(key, value) if isinstance(value, str) else value


def is_share(value: object) -> bool:
    """Whether a capacity is written as a share, such as "80%"; whether it is a valid one, `parse_share` says."""
    return isinstance(value, str) and value.rstrip().endswith("%")


def parse_share(key: str, text: str, origin: str = "") -> Fraction:
    """Return a written percentage as a share of 1, exactly.

    Raises:
        ConfigError: it is no percentage above 0 and up to 100.
    """
    match = _SIZE.fullmatch(text.strip())
    share = Fraction(match[1]) / 100 if match is not None and match[2] == "%" else None
    if share is None or not 0 < share <= 1:
        raise problem(key, text, "a share is above 0% and at most 100%", 'write one such as "80%"', origin)
    return share


def format_bytes(num_bytes: int) -> str:
    """Return bytes in the largest binary unit that leaves at least 1, such as "1.50 GiB"."""
    value = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.2f} {unit}"
        value /= 1024
    return f"{value:.2f} TiB"
