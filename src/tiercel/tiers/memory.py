"""Blocks in host memory, each contiguous on its own pages: what the host tier lends, and bounce buffers are made of."""

import ctypes
import mmap
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tiercel import _native
from tiercel.tiers.base import Addresses

PAGE_BYTES = 4096


def page_aligned_bytes(block_bytes: int) -> int:
    """Return the bytes that a block takes when it has whole pages to itself."""
    return -(-block_bytes // PAGE_BYTES) * PAGE_BYTES


class Arena(Protocol):
    """A tier's memory: `_native.Arena`, of one process or of all that map it, or `arena.MappedArena`, which outlives them."""

    @property
    def address(self) -> int: ...

    @property
    def num_bytes(self) -> int: ...

    @property
    def fd(self) -> int:
        """The file to map. Raises ValueError if it is of this process alone."""
        ...

    @property
    def huge(self) -> bool:
        """Whether it gets huge pages."""
        ...

    def prefault(self, start: int, stop: int) -> None:
        """Make the pages of [start, stop) resident, keeping what they hold. Raises OSError."""

    def close(self) -> None:
        """Unmap. Idempotent; after every other use."""


@dataclass(frozen=True)
class MemoryRegion:
    """Host memory of a tier that devices copy from and to: units of equal size, such as slots, one behind another."""

    address: int
    num_bytes: int
    unit_bytes: int


class SharedMemory(Protocol):
    """Memory of this process that others may map, so that they can copy blocks of theirs to and from it."""

    @property
    def address(self) -> int:
        """Where it begins in this process."""
        ...

    @property
    def num_bytes(self) -> int:
        """Its length."""
        ...

    @property
    def fd(self) -> int:
        """The file to map."""
        ...

    @property
    def resident(self) -> bool:
        """Whether its pages are there already."""
        ...

    @property
    def unit_bytes(self) -> int:
        """Size of what lies in it one behind another, such as slots."""
        ...


def region_of(memory: SharedMemory) -> MemoryRegion:
    """Return shared memory as devices take it."""
    return MemoryRegion(memory.address, memory.num_bytes, memory.unit_bytes)


@dataclass(frozen=True, eq=False)
class SharedArena:
    """Shared memory that this process made.

    Attributes:
        arena: the memory; valid as long as who made it.
        resident, unit_bytes: as of `SharedMemory`.
    """

    arena: Arena
    resident: bool
    unit_bytes: int

    @property
    def address(self) -> int:
        """Where it begins in this process."""
        return self.arena.address

    @property
    def num_bytes(self) -> int:
        """Its length."""
        return self.arena.num_bytes

    @property
    def fd(self) -> int:
        """The file to map. Who maps this very descriptor holds the lock of an arena that outlives its process."""
        return self.arena.fd


class ContiguousMemory:
    """A `BlockMemory` whose blocks lie at given addresses."""

    def __init__(
        self, addresses: Addresses, block_bytes: int, *, num_threads: int = 1, owner: object | None = None
    ) -> None:
        """Describe memory that exists.

        Args:
            addresses: uint64[num_blocks], multiples of 4096; the blocks' pages do not overlap.
            block_bytes: size of a block.
            num_threads: threads that `gather` and `scatter` may use.
            owner: what must stay alive as long as this memory is used.
        """
        self._addresses = addresses
        self._block_bytes = block_bytes
        self._num_threads = num_threads
        self._owner = owner

    @property
    def num_blocks(self) -> int:
        return len(self._addresses)

    @property
    def addresses(self) -> Addresses:
        return self._addresses

    def gather(self, targets: Addresses) -> None:
        """Copy every block to its target address."""
        _native.copy_blocks(self._addresses, targets, self._block_bytes, self._num_threads)

    def scatter(self, sources: Addresses) -> None:
        """Copy every block from its source address."""
        _native.copy_blocks(sources, self._addresses, self._block_bytes, self._num_threads)

    def slice(self, start: int, stop: int) -> "ContiguousMemory":
        """The blocks [start, stop), without copying."""
        part = self._addresses[start:stop]
        return ContiguousMemory(part, self._block_bytes, num_threads=self._num_threads, owner=self._owner)


def allocate_memory(num_blocks: int, block_bytes: int) -> ContiguousMemory:
    """Allocate zero-filled private memory for blocks, of huge pages where the kernel gives them, as a cache's own tiers have. It
    lives as long as what is returned and its slices."""
    stride = page_aligned_bytes(block_bytes)
    mapping = mmap.mmap(-1, max(1, num_blocks) * stride, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        mapping.madvise(mmap.MADV_HUGEPAGE)
    base = np.frombuffer(mapping, dtype=np.uint8).ctypes.data
    addresses = base + np.arange(num_blocks, dtype=np.uint64) * np.uint64(stride)
    return ContiguousMemory(addresses.astype(np.uint64), block_bytes, owner=mapping)


def return_freed_memory() -> None:
    """Hand freed memory back to the system, where the C library would keep it. Milliseconds: for the end of a start."""
    _native.return_freed_memory()


def bytes_view(memory: ContiguousMemory, block: int, num_bytes: int) -> memoryview:
    """Return the bytes of one block, writable; valid while the memory lives."""
    return memoryview((ctypes.c_uint8 * num_bytes).from_address(int(memory.addresses[block]))).cast("B")
