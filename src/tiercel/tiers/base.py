"""The seam every tier implements: six methods over opaque slots.

A tier moves bytes between its slots and memory. It knows nothing of keys' meaning, sequences or policy; the control
half decides which slots are used and a tier does as told. `transfer` calls it from worker threads; wrappers (`faulty`,
`throttled`) implement the same methods around another tier. `tests/conformance` holds every tier to this page.

A slot's life, as the tier sees it:

    void --reserve--> reserved --write--> written --free--> void
                          └───────free────────────────────┘

Duties of the caller: reserve a slot before writing it; never run two calls that touch the same slot at once, except
reads with reads; keep memory valid until the call returns.
Duties of the tier: block until the outcome of every block is known; report each block by itself; never return `OK` for
bytes that are not the bytes last written to that slot; after a failure leave all other slots as they were.
"""

import enum
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tiercel.tiers._numbered import NumberedType

Slots = NDArray[np.uint32]
"""Slot numbers: uint32[num_blocks], C-contiguous."""

Addresses = NDArray[np.uint64]
"""Host addresses of contiguous blocks: uint64[num_blocks], C-contiguous."""

Statuses = NDArray[np.uint8]
"""One `BlockStatus` per block: uint8[num_blocks]."""


class TierName(enum.IntEnum, metaclass=NumberedType):
    """The tiers in order of speed; smaller is faster."""

    GPU = 0
    HOST = 1
    DISK = 2
    REMOTE = 3


class BlockStatus(enum.IntEnum, metaclass=NumberedType):
    """How a read or a write of one block ended."""

    OK = 0
    MISSING = 1
    """The slot holds no written block."""
    CORRUPT = 2
    """The bytes do not match their checksum; they were not delivered as good."""
    IO_ERROR = 3
    """The device or the operating system failed the transfer."""
    NO_SPACE = 4
    """The device is full."""
    CANCELLED = 5
    """Not started: the ticket was cancelled or its deadline passed."""


@dataclass(frozen=True, kw_only=True)
class BlockLabels:
    """Names under which a tier that survives restarts records consecutive blocks of one sequence. Opaque to the tier.

    Attributes:
        parent: name of the block before the first one, 16 bytes.
        names: uint8[num_blocks, 16], C-contiguous; each block is the next one's parent.
    """

    parent: bytes
    names: NDArray[np.uint8]


class UnsettledError(Exception):
    """A copy was waited for no longer, but may still write to its targets. Slots and buffers that it was given stay out of use
    until it has settled. Never leaves `transfer`.

    Attributes:
        settled: done when nobody writes to the targets any more.
    """

    def __init__(self, message: str, settled: "Future[None]") -> None:
        super().__init__(message)
        self.settled = settled


class BlockMemory(Protocol):
    """Blocks in memory that a tier copies to or from. Implemented by the host arena and by an engine's KV memory."""

    @property
    def num_blocks(self) -> int: ...

    @property
    def addresses(self) -> Addresses | None:
        """Where each block lies, if every block is contiguous in host memory and has whole 4096-byte pages to itself,
        else None. A tier may then move whole pages: what follows a block in its last page is undefined after a read."""
        ...

    def gather(self, targets: Addresses) -> None:
        """Copy every block to its target address, in slot format. Blocks; releases the GIL.

        Raises:
            DeviceError: whoever copies failed. Targets are undefined, and nobody writes to them any more.
            UnsettledError: somebody may still write to the targets.
        """

    def scatter(self, sources: Addresses) -> None:
        """Copy every block from its source address, in slot format. Blocks; releases the GIL.

        Raises:
            DeviceError: whoever copies failed. The blocks are undefined.
        """

    def slice(self, start: int, stop: int) -> "BlockMemory":
        """The blocks [start, stop) of this memory, without copying."""
        ...


@dataclass(frozen=True, kw_only=True)
class TierStats:
    """Counters of one tier since it was opened. Bytes are payload bytes of blocks that ended `OK`."""

    num_slots: int
    block_bytes: int
    blocks_read: int = 0
    blocks_written: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    read_seconds: float = 0.0
    write_seconds: float = 0.0
    blocks_corrupt: int = 0
    io_errors: int = 0
    out_of_service: str = ""
    """Why the tier refuses reads or writes now, or ""."""
    num_outages: int = 0
    """How often it began to refuse them."""
    journal_refusals: Mapping[str, int] = field(default_factory=dict)
    """What its journal could not do, by act: put, free, sync, checkpoint."""


class Tier(Protocol):
    """A place that stores blocks of `block_bytes` in `num_slots` slots."""

    @property
    def name(self) -> TierName: ...

    @property
    def num_slots(self) -> int: ...

    @property
    def block_bytes(self) -> int: ...

    def reserve(self, slots: Slots) -> None:
        """Claim void or written slots for writing; what they held is void from now on.

        Raises:
            TierFailedError: the tier is out of service. No slot changed.
        """

    def write(self, slots: Slots, source: BlockMemory, labels: BlockLabels) -> Statuses:
        """Write one block to each reserved slot and report each outcome.

        A block that is `OK` is readable from now on; a tier that survives restarts has recorded it under its label.
        A block that is not `OK` leaves its slot void.

        Raises:
            TierFailedError: the tier is out of service. Every slot of the call is void.
        """
        ...

    def read(self, slots: Slots, target: BlockMemory) -> Statuses:
        """Read one block from each slot into memory and report each outcome.

        Memory of a block that is not `OK` is undefined.

        Raises:
            TierFailedError: the tier is out of service.
        """
        ...

    def free(self, slots: Slots) -> None:
        """Make slots void. Idempotent, no I/O. A later read reports `MISSING`, after an orderly restart too; after a kill the
        block may be back, as what it was."""

    def stats(self) -> TierStats:
        """Counters so far. Never blocks on I/O."""
        ...

    def close(self) -> None:
        """Release what is held. Idempotent; waits for calls in progress; later calls raise CacheClosedError."""
