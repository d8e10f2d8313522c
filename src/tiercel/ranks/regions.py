"""Memory that a cache shares with other processes: which address lies where in it, and another process's mapping of it.

A cache's addresses mean nothing elsewhere, so what is said of a block's place is a region and a page within it.
"""

import contextlib
import ctypes
import mmap
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiercel.tiers.base import Addresses
from tiercel.tiers.memory import PAGE_BYTES, SharedMemory

_MADV_POPULATE_WRITE = 23  # Linux 5.14; `mmap` has no name for it
_UINT32 = np.dtype("<u4")

Pages = NDArray[np.uint32]
"""Where blocks begin in a region: uint32[num_blocks], in pages."""


class RegionTable:
    """Where the shared memory of a cache lies in the cache's own process."""

    def __init__(self, memories: Sequence[SharedMemory], block_bytes: int) -> None:
        self._ranges = [(memory.address, memory.num_bytes) for memory in memories]
        self._block_bytes = block_bytes

    def locate(self, addresses: Addresses) -> tuple[int, Pages]:
        """Return the region that blocks lie in, and where. Raises ValueError if one of them is not shared whole."""
        first = int(addresses[0])
        for region, (start, num_bytes) in enumerate(self._ranges):
            if start <= first < start + num_bytes:
                offsets = addresses - np.uint64(start)
                if int(offsets.max()) + self._block_bytes > num_bytes or (offsets % np.uint64(PAGE_BYTES)).any():
                    break
                return region, (offsets // np.uint64(PAGE_BYTES)).astype(_UINT32)
        raise ValueError("blocks in memory that the cache does not share: ranks cannot reach them")


class MappedRegion:
    """A region in another process than the cache's; a `SharedMemory`. Lives until it is closed or the process ends."""

    def __init__(self, fd: int, num_bytes: int, *, resident: bool, unit_bytes: int) -> None:
        """Map a region's file, and keep a duplicate of it.

        Raises:
            ValueError: the file is shorter than the region.
            OSError: it cannot be mapped.
        """
        size = os.fstat(fd).st_size  # whole huge pages, if it is made of them
        if size < num_bytes:
            raise ValueError(f"a shared memory of {size} bytes was called {num_bytes} long")
        self._mapping = mmap.mmap(fd, size)
        self._fd = os.dup(fd)
        self.num_bytes = num_bytes
        self.resident = resident
        self.unit_bytes = unit_bytes
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._mapping))
        # Advice, both: a kernel that does not take it maps small pages, or each page when it is first touched.
        with contextlib.suppress(OSError):
            self._mapping.madvise(mmap.MADV_HUGEPAGE)
        if resident:
            with contextlib.suppress(OSError):
                self._mapping.madvise(_MADV_POPULATE_WRITE)

    @property
    def fd(self) -> int:
        """The file."""
        return self._fd

    def addresses(self, pages: bytes, block_bytes: int) -> Addresses:
        """Return where blocks lie here. pages: as in `messages.Copy`. Raises ValueError if one leaves the region."""
        offsets = np.frombuffer(pages, _UINT32).astype(np.uint64) * np.uint64(PAGE_BYTES)
        if len(offsets) and int(offsets.max()) + block_bytes > self.num_bytes:
            raise ValueError("a block that leaves the shared memory")
        return offsets + np.uint64(self.address)

    def close(self) -> None:
        """Unmap. Idempotent. No copy may be under way."""
        self._mapping.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
