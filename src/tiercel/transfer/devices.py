"""Makes an engine's blocks reachable for tiers, whatever device they lie on.

Host memory is what it is. For a GPU, `transfer.cuda` is imported when the first memory on one is seen, its kernels are
compiled and the host memory that tiers copy from and to is pinned: seconds for a large arena, so an engine attaches its
memory before it serves. Owned by `cache`.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tiercel.config import CacheConfig
from tiercel.config.sizes import size_in_bytes
from tiercel.errors import CacheClosedError
from tiercel.layout import EngineBlocks, EngineMemory
from tiercel.tiers.base import BlockMemory
from tiercel.tiers.host import Progress
from tiercel.tiers.memory import MemoryRegion
from tiercel.transfer.layers import LayerArrivals, LayeredTarget, layers_per_group
from tiercel.transfer.remote import RemoteBlocks
from tiercel.transfer.sides import EngineSide

if TYPE_CHECKING:
    from tiercel.transfer.cuda import CudaBlocks, CudaCopier, CudaCopyOptions, PinnedHost
    from tiercel.transfer.cuda.copier import Started

_HOST = "cpu"


@dataclass(frozen=True, kw_only=True)
class GpuCopySettings:
    """How GPUs copy, as settings have it; None takes what was measured (`transfer.cuda.CudaCopyOptions`).

    Attributes:
        engine_h2d: whether the copy engine loads, or else a kernel; engine_d2h the same for stores.
        num_sms_h2d: multiprocessors of a kernel that loads; num_sms_d2h the same for stores.
        pool_reserve_bytes: GPU memory taken at the start.
        pool_release_bytes: GPU memory kept while unused.
    """

    engine_h2d: bool | None = None
    engine_d2h: bool | None = None
    num_sms_h2d: int | None = None
    num_sms_d2h: int | None = None
    pool_reserve_bytes: int | None = None
    pool_release_bytes: int | None = None

    @classmethod
    def from_config(cls, config: CacheConfig) -> "GpuCopySettings":
        """Take what the settings say."""
        reserve, release = config.gpu_pool_reserve_bytes, config.gpu_pool_release_bytes
        return cls(
            engine_h2d=config.use_ce_transfer_h2d,
            engine_d2h=config.use_ce_transfer_d2h,
            num_sms_h2d=config.transfer_sms_h2d,
            num_sms_d2h=config.transfer_sms_d2h,
            pool_reserve_bytes=None if reserve is None else size_in_bytes("gpu_pool_reserve_bytes", reserve),
            pool_release_bytes=size_in_bytes("gpu_pool_release_bytes", release),
        )

    def options(self) -> "CudaCopyOptions":
        """These settings as CUDA copies take them."""
        from tiercel.transfer.cuda import CopyWay, CudaCopyOptions

        ways = {None: CopyWay.AUTO, True: CopyWay.COPY_ENGINE, False: CopyWay.KERNEL}
        given = {
            "num_ctas_h2d": self.num_sms_h2d,
            "num_ctas_d2h": self.num_sms_d2h,
            "pool_reserve_bytes": self.pool_reserve_bytes,
            "pool_release_bytes": self.pool_release_bytes,
        }
        known = {name: value for name, value in given.items() if value is not None}
        return CudaCopyOptions(way_h2d=ways[self.engine_h2d], way_d2h=ways[self.engine_d2h], **known)


class GpuPoolUse(NamedTuple):
    """Memory that copies take on one GPU beside the blocks: lent and held, now and at most."""

    device: str
    used_bytes: int
    used_bytes_high: int
    held_bytes: int
    held_bytes_high: int


class Devices:
    """The GPUs that one cache copies from and to. Thread-safe."""

    def __init__(
        self, regions: Sequence[MemoryRegion], settings: GpuCopySettings, *, note: Callable[[str], None]
    ) -> None:
        """Touch no device.

        Args:
            regions: the host memory that is to be pinned: the host tier's arena, the disk tier's buffers.
            settings: how to copy.
            note: told of every slower way that is taken.
        """
        self._regions = tuple(regions)
        self._settings = settings
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
            options: how to copy; by default, as the device was first attached, and then as the settings have it.
            progress: called while host memory is pinned.

        Raises:
            DeviceError: the device, its driver or its compiler cannot be used, or host memory cannot be pinned.
            ValueError: the device was attached with other options.
        """
        if memory.device != _HOST:
            self._copier(memory, options, progress).attach(memory)

    def reach(self, blocks: EngineBlocks | RemoteBlocks, *, layer_blocks: int | None = None) -> EngineSide:
        """Return blocks as plans take them. Attaches their device if nobody did. Raises as `attach` does.

        Args:
            layer_blocks: make the layers of that many leading blocks, which are to be loaded, known one by one.

        Raises:
            ValueError: layers are wanted of blocks that other processes hold.
        """
        if isinstance(blocks, RemoteBlocks):
            if layer_blocks is not None:
                raise ValueError("by_layer: blocks in other processes are not loaded layer by layer; leave it out")
            return EngineSide(blocks.reach(), blocks.memory.on_gpu)
        layers = None if layer_blocks is None else self._layered(blocks.slice(0, layer_blocks))
        if blocks.memory.device == _HOST:
            return EngineSide(blocks, layers=layers)
        memory = self._on_gpu(blocks)
        return EngineSide(memory, on_gpu=True, layers=layers, ready=memory.wait_ready if blocks.after_event else None)

    def _layered(self, blocks: EngineBlocks) -> LayeredTarget:
        geometry = blocks.memory.geometry
        group_layers = layers_per_group(geometry.num_layers, blocks.num_blocks * geometry.block_bytes)
        arrivals = LayerArrivals(geometry.num_layers, group_layers, blocks.num_blocks)
        groups: list[BlockMemory] = []
        shares: list[int] = []
        for group in range(arrivals.num_groups):
            start, stop = arrivals.layers_of(group)
            part = blocks.layers(start, stop)
            on_gpu = blocks.memory.device != _HOST
            groups.append(self._on_gpu(part, arrivals.starter(group)) if on_gpu else part)
            shares.append((stop - start) * (geometry.block_bytes // geometry.num_layers))
        return LayeredTarget(tuple(groups), tuple(shares), arrivals)

    def _on_gpu(self, blocks: EngineBlocks, started: "Started | None" = None) -> "CudaBlocks":
        from tiercel.transfer.cuda import CudaBlocks

        return CudaBlocks(blocks, self._copier(blocks.memory, None, None), started)

    def pools(self) -> list[GpuPoolUse]:
        """What copies take on each GPU beside the blocks."""
        copiers = list(self._copiers.items())  # without the lock, which is held for seconds while memory is pinned
        return [GpuPoolUse(device, **copier.pool.use()) for device, copier in copiers]

    def close(self) -> None:
        """Unpin everything and let go of the devices. Idempotent. No copy may be under way."""
        with self._lock:
            self._closed = True
            for copier in self._copiers.values():
                copier.close()
            self._copiers.clear()
            if self._pinned is not None:
                self._pinned.close()

    def _copier(
        self, memory: EngineMemory, options: "CudaCopyOptions | None", progress: Progress | None
    ) -> "CudaCopier":
        device = memory.device
        with self._lock:
            if self._closed:
                raise CacheClosedError("the cache is closed")
            copier = self._copiers.get(device)
            if copier is None:
                copier = self._copiers[device] = self._open(memory, options or self._settings.options(), progress)
            elif options is not None and options != copier.options:
                raise ValueError(f"{device} was attached with {copier.options}; it cannot be changed to {options}")
            return copier

    def _open(self, memory: EngineMemory, options: "CudaCopyOptions", progress: Progress | None) -> "CudaCopier":
        from tiercel.transfer.cuda import CudaCopier, PinnedHost

        geometry = memory.geometry
        reserve_bytes = options.reserve_bytes(num_layers=geometry.num_layers, kv_parts=geometry.kv_parts)
        pinned = self._pinned or PinnedHost(options.pin_chunk_bytes)
        ordinal = int(memory.device.partition(":")[2])
        copier = CudaCopier(ordinal, options, pinned, reserve_bytes=reserve_bytes, note=self._note)
        total, before = sum(region.num_bytes for region in self._regions), 0
        try:
            for region in self._regions:
                report = None if progress is None else _shifted(progress, before, total)
                pinned.pin(
                    copier.device, region.address, region.num_bytes, unit_bytes=region.unit_bytes, progress=report
                )
                before += region.num_bytes
        except BaseException:
            if self._pinned is None:
                pinned.close()
            raise
        self._pinned = pinned
        return copier


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _: progress(before + done, total)
