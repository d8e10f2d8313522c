"""Enumerations whose members are compared with arrays and written into them: `TierName` and `BlockStatus`.

When numpy meets an object that it does not know, it asks the object's type for `__array__` and its like, and takes every
exception for "no". In Python 3.11 a question to an enumeration's type runs Python code (`EnumType.__getattr__`), in which a
signal's handler may run, and what that raises, a KeyboardInterrupt say, is gone. Types made here answer without Python code.
docs/decisions/2026-11-22-signals-and-enumerations.md tells how that was found.
"""

import enum
from typing import TYPE_CHECKING


class NumberedType(enum.EnumType):
    """The type of enumerations that numpy may be given members of."""

    if not TYPE_CHECKING:  # type checkers would take it to mean that every name exists
        __getattr__ = object.__getattribute__
