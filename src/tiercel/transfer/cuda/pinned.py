"""Host memory that is pinned for CUDA: which ranges, and whether given blocks lie in them. Used by `copier`."""

import threading
from collections.abc import Callable

import numpy as np

from tiercel import _native
from tiercel.errors import DeviceError
from tiercel.tiers.base import Addresses

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


class PinnedHost:
    """Ranges pinned in this process, for all of its GPUs. Thread-safe; `pin` and `close` wait for each other."""

    def __init__(self, chunk_bytes: int) -> None:
        """Pin nothing yet.

        Args:
            chunk_bytes: how much is pinned at once, rounded down to whole units of what is pinned.
        """
        self._chunk_bytes = chunk_bytes
        self._lock = threading.Lock()
        self._chunks: list[_native.PinnedMemory] = []
        self._ranges: dict[int, int] = {}
        self._starts = np.empty(0, np.uint64)
        self._stops = np.empty(0, np.uint64)

    def pin(
        self,
        device: _native.CudaDevice,
        address: int,
        num_bytes: int,
        *,
        unit_bytes: int,
        progress: Progress | None = None,
    ) -> None:
        """Pin a range, once however often it is asked for.

        Args:
            device: whose context does it; all GPUs of the process can use the memory.
            address: start of the range, a multiple of the page.
            num_bytes: its length.
            unit_bytes: size of a slot: no chunk's border lies within one, since a copy may not cross a border.
            progress: called after each chunk.

        Raises:
            DeviceError: the memory cannot be pinned. What was pinned of this range is unpinned.
        """
        with self._lock:
            if self._ranges.get(address) == num_bytes:
                return
            step = max(1, self._chunk_bytes // unit_bytes) * unit_bytes
            pinned: list[_native.PinnedMemory] = []
            try:
                for offset in range(0, num_bytes, step):
                    length = min(step, num_bytes - offset)
                    pinned.append(_native.PinnedMemory(device, address + offset, length))
                    if progress is not None:
                        progress(offset + length, num_bytes)
            except BaseException as error:
                for chunk in pinned:
                    chunk.close()
                if isinstance(error, RuntimeError):
                    raise DeviceError(
                        f"{num_bytes} bytes of host memory cannot be pinned ({error}): raise the limit of locked memory "
                        f"(ulimit -l, LimitMEMLOCK, --ulimit memlock) or make the host tier smaller"
                    ) from error
                raise
            self._chunks += pinned
            self._ranges[address] = num_bytes
            self._index()

    def covers(self, addresses: Addresses, num_bytes: int) -> bool:
        """Whether every block of num_bytes at these addresses is pinned."""
        starts, stops = self._starts, self._stops
        if not len(starts):
            return not len(addresses)
        at = np.searchsorted(starts, addresses, side="right")
        inside = addresses + np.uint64(num_bytes) <= stops[at - 1]
        return bool((inside & (at > 0)).all())

    def close(self) -> None:
        """Unpin everything. Idempotent. No transfer may be under way."""
        with self._lock:
            chunks, self._chunks = self._chunks, []
            self._ranges.clear()
            self._index()
        for chunk in chunks:
            chunk.close()

    def _index(self) -> None:
        ranges = sorted(self._ranges.items())
        self._starts = np.array([start for start, _ in ranges], np.uint64)
        self._stops = np.array([start + length for start, length in ranges], np.uint64)
