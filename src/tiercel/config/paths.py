"""Paths as people write them in settings."""

import os
from pathlib import Path

from tiercel.config.messages import problem


def is_path_text(text: str) -> bool:
    """Whether the operating system could take a text as a path."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can write
        return False


def expanded(entry: str) -> Path:
    """Return a path with ~ replaced. Raises ConfigError where there is no such home."""
    try:
        return Path(entry).expanduser()
    except RuntimeError as error:
        raise problem("ssd_cache_dir", entry, "names a home directory that does not exist", "write it out") from error
