"""Blocks, labels, memories and tiers for tests of tiers."""

import ctypes
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiercel import _native
from tiercel.tiers.arena_directory import ArenaOptions, KeptArena
from tiercel.tiers.base import Addresses, BlockLabels, BlockMemory, Slots, Tier, TierName
from tiercel.tiers.disk import DiskTier
from tiercel.tiers.disk_options import DiskOptions
from tiercel.tiers.faulty import FaultyTier, TierFaults
from tiercel.tiers.host import HostTier
from tiercel.tiers.memory import ContiguousMemory, allocate_memory, bytes_view
from tiercel.tiers.null import NullTier
from tiercel.tiers.throttled import ThrottledTier, TierLimits

Bytes = NDArray[np.uint8]
"""Content of blocks: uint8[num_blocks, block_bytes]."""

MEMORY_FOLDER = "/dev/shm"
"""A tmpfs."""

FINGERPRINT = bytes(range(32))
ODD_BLOCK_BYTES = 5000
"""Neither a page nor a multiple of a disk's sector."""


class ScatteredMemory:
    """Memory whose blocks lie as no tier would like it: like an engine's, it is only gathered and scattered."""

    def __init__(self, rows: Bytes) -> None:
        self.rows = rows

    @property
    def num_blocks(self) -> int:
        return len(self.rows)

    @property
    def addresses(self) -> Addresses | None:
        return None

    def gather(self, targets: Addresses) -> None:
        assert len(targets) == len(self.rows)
        for row, target in zip(self.rows, targets, strict=True):
            ctypes.memmove(int(target), row.tobytes(), len(row))

    def scatter(self, sources: Addresses) -> None:
        assert len(sources) == len(self.rows)
        for row, source in zip(self.rows, sources, strict=True):
            row[:] = np.frombuffer(ctypes.string_at(int(source), len(row)), dtype=np.uint8)

    def slice(self, start: int, stop: int) -> "ScatteredMemory":
        return ScatteredMemory(self.rows[start:stop])


def why_no_io_uring() -> str:
    """Why this build or this kernel has no io_uring, or ""."""
    with tempfile.TemporaryDirectory() as folder:
        files = _native.BlockFiles([f"{folder}/a"], num_slots=1, slot_bytes=4096, block_bytes=1, queue_depth=1)
        return files.engine_reason


def slots_of(*numbers: int) -> Slots:
    return np.array(numbers, dtype=np.uint32)


def random_bytes(random: np.random.Generator, num_blocks: int, block_bytes: int) -> Bytes:
    return random.integers(0, 256, (num_blocks, block_bytes), dtype=np.uint8)


def random_labels(random: np.random.Generator, num_blocks: int) -> BlockLabels:
    return BlockLabels(parent=random.bytes(16), names=random.integers(0, 256, (num_blocks, 16), dtype=np.uint8))


def memory_with(rows: Bytes, *, scattered: bool = False) -> BlockMemory:
    """Memory that holds a copy of these blocks."""
    if scattered:
        return ScatteredMemory(rows.copy())
    memory = allocate_memory(*rows.shape)
    for block, row in enumerate(rows):
        bytes_view(memory, block, len(row))[:] = row.tobytes()
    return memory


def content_of(memory: BlockMemory, block_bytes: int) -> Bytes:
    if isinstance(memory, ScatteredMemory):
        return memory.rows.copy()
    assert isinstance(memory, ContiguousMemory)
    rows = [bytes(bytes_view(memory, block, block_bytes)) for block in range(memory.num_blocks)]
    return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, block_bytes)


def store(tier: Tier, slots: Slots, rows: Bytes, labels: BlockLabels) -> list[int]:
    """Reserve and write; return the statuses."""
    tier.reserve(slots)
    statuses: list[int] = tier.write(slots, memory_with(rows), labels).tolist()
    return statuses


def load(tier: Tier, slots: Slots, *, scattered: bool = False) -> tuple[list[int], Bytes]:
    """Read into fresh memory; return the statuses and what arrived."""
    target = memory_with(np.zeros((len(slots), tier.block_bytes), dtype=np.uint8), scattered=scattered)
    statuses = tier.read(slots, target)
    return statuses.tolist(), content_of(target, tier.block_bytes)


def disk_options(directory: Path, *more: Path, num_slots: int = 16, block_bytes: int = ODD_BLOCK_BYTES) -> DiskOptions:
    return DiskOptions(
        directories=(directory, *more),
        fingerprint=FINGERPRINT,
        num_slots=num_slots,
        block_bytes=block_bytes,
        queue_depth=4,
        bounce_bytes=64 << 10,
    )


def stripe_folder(directory: Path) -> Path:
    """The tier's folder in one of its directories."""
    return directory / f"tiercel-v1-{FINGERPRINT.hex()[:16]}"


@dataclass(frozen=True, kw_only=True)
class TierKind:
    """A way to make a tier, for suites that hold every tier to the same page.

    Attributes:
        label: names the kind in a test's name.
        make: makes one with 16 slots of `ODD_BLOCK_BYTES`; a kind that needs a directory makes it in the one given.
        keeps_bytes: whether what is read is what was written, or only the states are kept.
    """

    label: str
    make: Callable[[Path], Tier]
    keeps_bytes: bool = True


def _disk(engine: str, direct: bool, num_directories: int) -> Callable[[Path], Tier]:
    def make(directory: Path) -> Tier:
        return DiskTier.open(
            DiskOptions(
                directories=[directory / str(stripe) for stripe in range(num_directories)],
                fingerprint=FINGERPRINT,
                num_slots=16,
                block_bytes=ODD_BLOCK_BYTES,
                queue_depth=4,
                engine=engine,
                direct=direct,
                bounce_bytes=64 << 10,
            )
        )

    return make


def _wrappings(kind: TierKind) -> list[TierKind]:
    """The kind itself, and inside each wrapper that does nothing."""

    def faulty(directory: Path) -> Tier:
        return FaultyTier(kind.make(directory), TierFaults())

    def throttled(directory: Path) -> Tier:
        return ThrottledTier(kind.make(directory), TierLimits())

    return [
        kind,
        TierKind(label=f"faulty-{kind.label}", make=faulty, keeps_bytes=kind.keeps_bytes),
        TierKind(label=f"throttled-{kind.label}", make=throttled, keeps_bytes=kind.keeps_bytes),
    ]


def arena_options(
    directory: Path, *, num_slots: int = 16, block_bytes: int = ODD_BLOCK_BYTES, wait_s: float = 5.0
) -> ArenaOptions:
    return ArenaOptions(
        directory=directory,
        fingerprint=FINGERPRINT,
        model_id="sample",
        num_slots=num_slots,
        block_bytes=block_bytes,
        wait_s=wait_s,
    )


def kept_host(options: ArenaOptions) -> HostTier:
    """A host tier whose arena outlives it."""
    kept = KeptArena.open(options)
    return HostTier(num_slots=options.num_slots, block_bytes=options.block_bytes, kept=kept)


def _kept_host(_: Path) -> Tier:
    """One in memory that goes with its names, so that no test has to remove it."""
    with tempfile.TemporaryDirectory(dir=MEMORY_FOLDER) as folder:
        return kept_host(arena_options(Path(folder)))


def tier_kinds() -> list[TierKind]:
    """Every tier that needs nothing but this machine, bare and wrapped."""
    kept = TierKind(label="host-kept", make=_kept_host)
    host = TierKind(label="host", make=lambda _: HostTier(num_slots=16, block_bytes=ODD_BLOCK_BYTES))
    null = TierKind(
        label="null",
        make=lambda _: NullTier(name=TierName.DISK, num_slots=16, block_bytes=ODD_BLOCK_BYTES),
        keeps_bytes=False,
    )
    disks = [
        TierKind(label=f"disk-{engine}-{'direct' if direct else 'buffered'}", make=_disk(engine, direct, 1))
        for engine in ("io_uring", "threads")
        for direct in (True, False)
    ]
    striped = TierKind(label="disk-striped", make=_disk("auto", True, 3))
    return [wrapped for kind in (host, kept, null, *disks, striped) for wrapped in _wrappings(kind)]
