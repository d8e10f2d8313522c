"""How GPU copies are done. Made from settings by the facade, read by `copier`."""

import enum
from dataclasses import dataclass

NUM_CTAS_MAX = 1024
_NUM_STREAMS_MAX = 64
_BYTES_MAX = 1 << 40
_BLOCKS_PER_TRANSFER = 16  # as Dynamo has it
_STAGED_AT_ONCE = 4  # two in each direction: as many as a cache's lanes keep under way


class CopyWay(enum.Enum):
    """Who moves the bytes."""

    AUTO = "auto"
    """The copy engine if a block's runs are long enough for it, else the kernel."""
    KERNEL = "kernel"
    """A kernel: full speed from runs of any length, at the cost of multiprocessors and, for stores, of the engine's speed."""
    COPY_ENGINE = "copy_engine"
    """The copy engine: takes no multiprocessor and hardly slows the engine; needs a processor's core, and long runs."""
    STAGED = "staged"
    """Both: the copy engine moves slots whole between host and scratch memory on the GPU, a kernel does the rest there. Runs
    of any length at the copy engine's speed. What a memory holds of a slot must have no gaps, else a kernel does it."""


@dataclass(frozen=True, kw_only=True)
class BlockShape:
    """What of a memory's blocks decides who moves them.

    Attributes:
        run_bytes: mean length of a block's runs.
        block_bytes: bytes of a block that the memory holds.
        stageable: whether they have no gaps in a slot.
    """

    run_bytes: float
    block_bytes: int
    stageable: bool


@dataclass(frozen=True, kw_only=True)
class CudaCopyOptions:
    """How blocks move between a GPU and the host. The defaults are measured (docs/decisions/2026-11-22-gpu-copies.md).

    Attributes:
        way_h2d: who moves a load's bytes.
        way_d2h: who moves a store's bytes.
        staged_run_bytes_h2d: mean length of a block's runs up to which AUTO stages loads, where there are several runs and
            they can be staged.
        staged_run_bytes_d2h: the same for stores.
        staged_block_bytes: least bytes of a block that AUTO stages: they are what the copy engine is given at once.
        engine_run_bytes_h2d: mean length of a block's runs from which AUTO loads what is not staged through the copy engine.
        engine_run_bytes_d2h: the same for stores, which nobody waits for: what matters is that the engine is not slowed.
        num_ctas_h2d: thread blocks of 1024 threads, each on a multiprocessor, that a load's kernel runs on.
        num_ctas_d2h: the same for a store's kernel.
        num_ctas_staged: the same for kernels that stay on the GPU.
        num_streams: transfers of each direction that can be under way at once.
        batch_copies: copies that the engine is given at once; the first start only when all of a batch are handed over.
        staging_bytes: pinned memory through which blocks go to and from memory that is not pinned; two halves of it.
        pin_chunk_bytes: host memory pinned at once, between two reports of progress.
        scratch_bytes: memory on the GPU of one staged transfer; two halves of it.
        pool_reserve_bytes: memory on the GPU taken at the start for tables, lists and scratch; None for what
            `default_reserve_bytes` says.
        pool_release_bytes: what of it is kept when nothing uses it.

    Raises:
        ValueError: a number is out of range.
        TypeError: a way is no CopyWay.
    """

    way_h2d: CopyWay = CopyWay.AUTO
    way_d2h: CopyWay = CopyWay.AUTO
    staged_run_bytes_h2d: int = 24 << 10
    staged_run_bytes_d2h: int = 48 << 10
    staged_block_bytes: int = 256 << 10
    engine_run_bytes_h2d: int = 64 << 10
    engine_run_bytes_d2h: int = 32 << 10
    num_ctas_h2d: int = 4
    num_ctas_d2h: int = 2
    num_ctas_staged: int = 8
    num_streams: int = 4
    batch_copies: int = 256
    staging_bytes: int = 64 << 20
    pin_chunk_bytes: int = 1 << 30
    scratch_bytes: int = 16 << 20
    pool_reserve_bytes: int | None = None
    pool_release_bytes: int = 128 << 20

    def __post_init__(self) -> None:
        ranges = {
            "staged_run_bytes_h2d": _BYTES_MAX,
            "staged_run_bytes_d2h": _BYTES_MAX,
            "staged_block_bytes": _BYTES_MAX,
            "engine_run_bytes_h2d": _BYTES_MAX,
            "engine_run_bytes_d2h": _BYTES_MAX,
            "num_ctas_h2d": NUM_CTAS_MAX,
            "num_ctas_d2h": NUM_CTAS_MAX,
            "num_ctas_staged": NUM_CTAS_MAX,
            "num_streams": _NUM_STREAMS_MAX,
            "batch_copies": 1 << 20,
            "staging_bytes": _BYTES_MAX,
            "pin_chunk_bytes": _BYTES_MAX,
            "scratch_bytes": _BYTES_MAX,
            "pool_release_bytes": _BYTES_MAX,
        }
        for name, most in ranges.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise ValueError(f"{name} = {value!r}: must be an integer from 1 to {most}")
        for name in ("way_h2d", "way_d2h"):
            if not isinstance(getattr(self, name), CopyWay):
                raise TypeError(f"{name} = {getattr(self, name)!r}: must be a CopyWay")

    @property
    def needs_kernels(self) -> bool:
        """Whether a kernel may be run."""
        return {self.way_h2d, self.way_d2h} != {CopyWay.COPY_ENGINE}

    def load_way(self, shape: BlockShape) -> CopyWay:
        """Say who loads blocks; never AUTO."""
        return self._way(self.way_h2d, self.staged_run_bytes_h2d, self.engine_run_bytes_h2d, shape)

    def store_way(self, shape: BlockShape) -> CopyWay:
        """Say who stores blocks; never AUTO."""
        return self._way(self.way_d2h, self.staged_run_bytes_d2h, self.engine_run_bytes_d2h, shape)

    def _way(self, asked: CopyWay, staged_run_bytes: int, engine_run_bytes: int, shape: BlockShape) -> CopyWay:
        if asked is CopyWay.STAGED:
            return CopyWay.STAGED if shape.stageable else CopyWay.KERNEL
        if asked is not CopyWay.AUTO:
            return asked
        short = shape.run_bytes <= min(staged_run_bytes, shape.block_bytes / 2)
        if shape.stageable and short and shape.block_bytes >= self.staged_block_bytes:
            return CopyWay.STAGED
        return CopyWay.COPY_ENGINE if shape.run_bytes >= engine_run_bytes else CopyWay.KERNEL

    def reserve_bytes(self, *, num_layers: int, kv_parts: int) -> int:
        """Device memory to take at the start: what was set, or `default_reserve_bytes`."""
        if self.pool_reserve_bytes is not None:
            return self.pool_reserve_bytes
        num_transfers = 2 * self.num_streams
        lists = default_reserve_bytes(num_transfers, num_layers=num_layers, kv_parts=kv_parts)
        return lists + _STAGED_AT_ONCE * self.scratch_bytes


def default_reserve_bytes(
    num_transfers: int, *, num_layers: int, kv_parts: int, blocks_per_transfer: int = _BLOCKS_PER_TRANSFER
) -> int:
    """Return what lists of addresses take: one for each side of each transfer under way and two to spare, of 8 bytes for each
    block, layer and K or V. The formula of NVIDIA Dynamo's KV block manager.

    Args:
        num_transfers: transfers that can be under way at once.
        blocks_per_transfer: blocks of each.
    """
    return (2 * num_transfers + 2) * blocks_per_transfer * kv_parts * num_layers * 8
