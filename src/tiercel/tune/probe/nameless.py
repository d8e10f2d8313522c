"""A file that nobody has to remove: it has no name, so the kernel takes its space back when its last user ends, however.

That is what lets a probe be stopped at any moment, `kill -9` included. Only where a filesystem cannot make such files does
one have a name, for the instant between its making and its unlinking.
"""

import errno
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)


class NamelessFile:
    """An open file in a directory, without a name there; closed, and with that gone, at the end of a `with`."""

    def __init__(self, directory: Path) -> None:
        """Make an empty file.

        Raises:
            OSError: the directory cannot be written.
        """
        self.descriptor = _open(directory)

    @property
    def path(self) -> str:
        """A path by which this process, and one that inherited the descriptor, may open it again."""
        return f"/proc/self/fd/{self.descriptor}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)


def _open(directory: Path) -> int:
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    descriptor, name = tempfile.mkstemp(prefix=".tiercel-probe-", dir=directory)
    try:
        Path(name).unlink()
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
