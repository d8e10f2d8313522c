"""An arena in a file, mapped: the host tier's memory where it is to outlive the process. The other kind is `_native.Arena`."""

import ctypes
import errno
import mmap
import os
from contextlib import suppress

from tiercel.tiers.memory import PAGE_BYTES

_MADV_POPULATE_WRITE = 23  # Linux 5.14; `mmap` has no name for it


class MappedArena:
    """As `memory.Arena`; closing it leaves the file."""

    def __init__(self, fd: int, num_bytes: int, *, hugepages: bool) -> None:
        """Map a file.

        Args:
            fd: the file, which is the arena's from now on; not shorter than the arena.
            num_bytes: the arena's length.
            hugepages: ask for huge pages, which the file's mount gives.

        Raises:
            OSError: it cannot be mapped; the file is closed then.
        """
        self._fd = fd
        self._num_bytes = num_bytes
        try:
            self._mapping = mmap.mmap(fd, num_bytes)
        except BaseException:
            os.close(fd)
            raise
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._mapping))
        self._huge = False
        if hugepages:
            with suppress(OSError):  # a kernel without them; `huge` tells
                self._mapping.madvise(mmap.MADV_HUGEPAGE)
                self._huge = True
        self._madvise = ctypes.CDLL(None, use_errno=True).madvise  # `mmap.madvise` would hold the interpreter up
        self._madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    @property
    def address(self) -> int:
        """Where it begins. Raises ValueError once it is closed."""
        self._require_open()
        return self._address

    @property
    def num_bytes(self) -> int:
        """Its length."""
        return self._num_bytes

    @property
    def fd(self) -> int:
        """The file. Raises ValueError once it is closed."""
        self._require_open()
        return self._fd

    @property
    def huge(self) -> bool:
        """Whether it gets huge pages."""
        return self._huge

    def prefault(self, start: int, stop: int) -> None:
        """Make the pages of [start, stop) resident, keeping what they hold. Blocks; releases the GIL.

        Raises:
            OSError: there is no memory left.
        """
        self._require_open()
        first = start // PAGE_BYTES * PAGE_BYTES
        if first == stop:
            return
        try:
            os.posix_fallocate(self._fd, first, stop - first)  # an error where a touched page would end the process
        except OSError as error:
            raise OSError(
                error.errno, f"arena of {self._num_bytes} bytes: the tmpfs has no more ({error.strerror})"
            ) from error
        if self._madvise(self._address + first, stop - first, _MADV_POPULATE_WRITE) == 0:
            return
        code = ctypes.get_errno()
        if code not in (
            errno.EINVAL,
            errno.EINTR,
            errno.EAGAIN,
        ):  # an older kernel: each page is mapped when it is touched
            raise OSError(errno.ENOMEM if code == errno.EFAULT else code, os.strerror(code))

    def close(self) -> None:
        """Unmap, and let go of the file. Idempotent."""
        if self._fd >= 0:
            self._mapping.close()
            os.close(self._fd)
            self._fd = -1

    def _require_open(self) -> None:
        if self._fd < 0:
            raise ValueError("the arena is closed")
