"""What a drive may be written in its life, as data sheets say it."""

import math
import re
from collections.abc import Iterable

from tiercel.errors import ConfigError
from tiercel.tune.machine import Machine

_WARRANTY_DAYS = 5 * 365
"""Days that a rating in drive writes a day holds for, where the data sheet says nothing else."""

_FORM = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(TBW|PBW|DWPD)\s*", re.IGNORECASE)


def parse_endurance(text: str, drive_bytes: int | None = None) -> float:
    """Return bytes that a drive may be written.

    Args:
        text: "1400TBW", "3.5PBW", or drive writes a day over five years, "1DWPD".
        drive_bytes: capacity of the drives, for DWPD.

    Raises:
        ConfigError: it is none of these, or DWPD of a drive of unknown size.
    """
    found = _FORM.fullmatch(text)
    value = float(found[1]) if found else math.nan
    if found is None or not value > 0:
        raise ConfigError(f"endurance = {text!r}: must be a data sheet's figure such as 1400TBW, 3.5PBW or 1DWPD")
    unit = found[2].upper()
    if unit != "DWPD":
        return value * (1e15 if unit == "PBW" else 1e12)
    if not drive_bytes:
        raise ConfigError(
            f"endurance = {text!r}: drive writes a day need the drive's size, which the machine's file does not tell; "
            f"give the figure in TBW"
        )
    return value * drive_bytes * _WARRANTY_DAYS


def bytes_of_drives(machine: Machine, directories: Iterable[str]) -> int:
    """Return the capacity of the drives under a disk tier's directories, each drive once; 0 if the machine's file has none.

    Args:
        directories: paths of the tier. If none of them was measured, the first that was stands for them, as for their links.
    """
    named = set(directories)
    chosen = [found for found in machine.directories if found.path in named] or machine.directories[:1]
    drives = {
        found.path if found.device is None else found.device.name: (found.device or found).capacity_bytes
        for found in chosen
    }
    return sum(drives.values())
