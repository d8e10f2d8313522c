"""Files that commands write for people: whole or not at all, so that a full disk costs nobody the file before it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Name a file to write, which takes the place of `path` in one step at the end, or is gone after a failure.

    What is no regular file, such as /dev/stdout, is itself what is to be written. A link stays, and its target is replaced.

    Raises:
        OSError: it cannot be written, with its name; the file is as it was.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        yield path
        return
    target = path.resolve()
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: str | Path, text: str) -> None:
    """Write a file in one step: who reads it meanwhile, and who is left after a failure, has the old one.

    Raises:
        OSError: it cannot be written, with its name; the file is as it was.
    """
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
