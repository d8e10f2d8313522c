"""Paths as people write them in settings."""

import os
from pathlib import Path

from tiercel.config.messages import problem


def is_path_text(text: str) -> bool:
    """Whether a text can be a path: the operating system could take it, and it is UTF-8."""
    try:
        return "\0" not in utf8_path(text)
    except UnicodeError:  # half a surrogate pair, which JSON can write, or bytes of another encoding
        return False


def utf8_path(path: str | os.PathLike[str]) -> str:
    """Return a path as native code and messages take it, whatever encoding Python assumes for names of files.

    Raises:
        UnicodeError: its bytes are no UTF-8.
    """
    return os.fsencode(path).decode()


def expanded(key: str, entry: str) -> Path:
    """Return the path that a setting names, with ~ replaced. Raises ConfigError where there is no such home."""
    try:
        return Path(entry).expanduser()
    except RuntimeError as error:
        raise problem(key, entry, "names a home directory that does not exist", "write it out") from error
