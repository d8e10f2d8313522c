"""Makes an engine's blocks reachable for tiers, whatever device they lie on.

Host memory is what it is. For a GPU, `transfer.cuda` is imported when the first memory on one is seen, its kernels are
compiled and the host tier's arena is pinned: seconds for a large arena, so an engine attaches its memory before it serves.
Owned by `cache`.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from tiercel.errors import CacheClosedError
from tiercel.layout import EngineBlocks, EngineMemory
from tiercel.tiers.base import BlockMemory
from tiercel.tiers.host import HostTier, Progress

if TYPE_CHECKING:
    from tiercel.transfer.cuda import CudaCopier, CudaCopyOptions, PinnedHost

_HOST = "cpu"


class Devices:
    """The GPUs that one cache copies from and to. Thread-safe."""

    def __init__(self, host: HostTier | None, *, note: Callable[[str], None]) -> None:
        """Touch no device.

        Args:
            host: the tier whose arena is to be pinned, if there is one.
            note: told of every slower way that is taken.
        """
        self._host = host
        self._note = note
        self._lock = threading.Lock()
        self._copiers: dict[str, CudaCopier] = {}
        self._pinned: PinnedHost | None = None
        self._closed = False

    def attach(
        self, memory: EngineMemory, options: "CudaCopyOptions | None" = None, progress: Progress | None = None
    ) -> None:
        """Prepare the device that a memory lies on. Blocks; nothing to do for host memory and for what is attached.

        Args:
            memory: an engine's memory.
            options: how to copy; by default, as the device was first attached.
            progress: called while the host tier is pinned.

        Raises:
            DeviceError: the device, its driver or its compiler cannot be used, or the host tier cannot be pinned.
            ValueError: the device was attached with other options.
        """
        if memory.device != _HOST:
            self._copier(memory.device, options, progress).attach(memory)

    def reach(self, blocks: EngineBlocks) -> BlockMemory:
        """Return blocks as tiers take them. Attaches their device if nobody did. Raises as `attach` does."""
        if blocks.memory.device == _HOST:
            return blocks
        from tiercel.transfer.cuda import CudaBlocks

        return CudaBlocks(blocks, self._copier(blocks.memory.device, None, None))

    def close(self) -> None:
        """Unpin everything and let go of the devices. Idempotent. No copy may be under way."""
        with self._lock:
            self._closed = True
            for copier in self._copiers.values():
                copier.close()
            self._copiers.clear()
            if self._pinned is not None:
                self._pinned.close()

    def _copier(self, device: str, options: "CudaCopyOptions | None", progress: Progress | None) -> "CudaCopier":
        from tiercel.transfer.cuda import CudaCopier, CudaCopyOptions, PinnedHost

        with self._lock:
            if self._closed:
                raise CacheClosedError("the cache is closed")
            copier = self._copiers.get(device)
            if copier is not None:
                if options is not None and options != copier.options:
                    raise ValueError(f"{device} was attached with {copier.options}; it cannot be changed to {options}")
                return copier
            options = options or CudaCopyOptions()
            pinned = self._pinned or PinnedHost(options.pin_chunk_bytes)
            copier = CudaCopier(int(device.partition(":")[2]), options, pinned, note=self._note)
            if self._host is not None:
                arena = self._host.arena
                pinned.pin(
                    copier.device,
                    arena.address,
                    arena.num_bytes,
                    unit_bytes=self._host.stride_bytes,
                    progress=progress,
                )
            self._pinned = pinned
            self._copiers[device] = copier
            return copier
