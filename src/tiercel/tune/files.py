"""Text files that commands write for people: whole or not at all, so that a full disk costs nobody the file before it."""

import os
from pathlib import Path


def write_whole(path: str | Path, text: str) -> None:
    """Write a file in one step: who reads it meanwhile, and who is left after a failure, has the old one.

    What is no regular file, such as /dev/stdout, is written as it is. A link stays, and its target is written.

    Raises:
        OSError: it cannot be written, with its name; the file is as it was.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        target.write_text(text, encoding="utf-8")
        return
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)
