"""How GPU copies are done. Made from settings by the facade, read by `copier`."""

import enum
from dataclasses import dataclass

_NUM_CTAS_MAX = 1024
_NUM_STREAMS_MAX = 64


class CopyWay(enum.Enum):
    """Who moves the bytes."""

    AUTO = "auto"
    """The copy engine if a block's runs are long enough for it, else the kernel."""
    KERNEL = "kernel"
    """A kernel: full speed from runs of any length, at the cost of multiprocessors and, for stores, of the engine's speed."""
    COPY_ENGINE = "copy_engine"
    """The copy engine: takes no multiprocessor and hardly slows the engine; needs a processor's core, and long runs."""


@dataclass(frozen=True, kw_only=True)
class CudaCopyOptions:
    """How blocks move between a GPU and the host. The defaults are measured (docs/decisions/2026-11-22-gpu-copies.md).

    Attributes:
        way_h2d: who moves a load's bytes.
        way_d2h: who moves a store's bytes.
        engine_run_bytes_h2d: mean length of a block's runs from which AUTO loads through the copy engine.
        engine_run_bytes_d2h: the same for stores, which nobody waits for: what matters is that the engine is not slowed.
        num_ctas_h2d: thread blocks of 1024 threads, each on a multiprocessor, that a load's kernel runs on.
        num_ctas_d2h: the same for a store's kernel.
        num_streams: transfers of each direction that can be under way at once.
        batch_copies: copies that the engine is given at once; the first start only when all of a batch are handed over.
        staging_bytes: pinned memory through which blocks go to and from memory that is not pinned; two halves of it.
        pin_chunk_bytes: host memory pinned at once, between two reports of progress.

    Raises:
        ValueError: a number is out of range.
        TypeError: a way is no CopyWay.
    """

    way_h2d: CopyWay = CopyWay.AUTO
    way_d2h: CopyWay = CopyWay.AUTO
    engine_run_bytes_h2d: int = 64 << 10
    engine_run_bytes_d2h: int = 32 << 10
    num_ctas_h2d: int = 4
    num_ctas_d2h: int = 2
    num_streams: int = 2
    batch_copies: int = 256
    staging_bytes: int = 64 << 20
    pin_chunk_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        ranges = {
            "engine_run_bytes_h2d": 1 << 40,
            "engine_run_bytes_d2h": 1 << 40,
            "num_ctas_h2d": _NUM_CTAS_MAX,
            "num_ctas_d2h": _NUM_CTAS_MAX,
            "num_streams": _NUM_STREAMS_MAX,
            "batch_copies": 1 << 20,
            "staging_bytes": 1 << 40,
            "pin_chunk_bytes": 1 << 40,
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

    def loads_through_engine(self, run_bytes: float) -> bool:
        """Whether the copy engine loads blocks whose runs have that mean length."""
        return _takes_engine(self.way_h2d, run_bytes, self.engine_run_bytes_h2d)

    def stores_through_engine(self, run_bytes: float) -> bool:
        """Whether the copy engine stores blocks whose runs have that mean length."""
        return _takes_engine(self.way_d2h, run_bytes, self.engine_run_bytes_d2h)


def _takes_engine(way: CopyWay, run_bytes: float, least_run_bytes: int) -> bool:
    return way is CopyWay.COPY_ENGINE or (way is CopyWay.AUTO and run_bytes >= least_run_bytes)
