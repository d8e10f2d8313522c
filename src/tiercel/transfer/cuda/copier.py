"""Copies of one GPU's blocks to and from host memory: what makes `EngineBlocks` on a GPU a `tiers.base.BlockMemory`.

Pinned host memory is reached by the GPU itself, through a kernel or the copy engine. Memory that is not pinned is reached
through a staging buffer that is, in two halves: while the GPU works on one, the processor copies the other.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from tiercel import _native
from tiercel.errors import DeviceError
from tiercel.layout import EngineBlocks, EngineMemory
from tiercel.tiers.base import Addresses
from tiercel.transfer.cuda.nvrtc import copy_kernels
from tiercel.transfer.cuda.options import BlockShape, CopyWay, CudaCopyOptions
from tiercel.transfer.cuda.pinned import PinnedHost
from tiercel.transfer.cuda.staging import Staging, Start

_NATIVE_WAYS = {
    CopyWay.KERNEL: _native.CudaWay.KERNEL,
    CopyWay.COPY_ENGINE: _native.CudaWay.COPY_ENGINE,
    CopyWay.STAGED: _native.CudaWay.STAGED,
}

Started = Callable[[int, _native.CudaTransfer], None]
"""Told of each transfer that was started, with its number of blocks."""


@dataclass(frozen=True)
class _Program:
    """A memory's description on the device, and who moves it."""

    native: _native.CudaProgram
    load_way: CopyWay
    store_way: CopyWay


@contextmanager
def _named_failures(what: str) -> Iterator[None]:
    """Turn the driver's errors into ours."""
    try:
        yield
    except RuntimeError as error:
        raise DeviceError(f"{what}: {error}") from error


class CudaCopier:
    """Moves the blocks of engine memories on one GPU. Thread-safe."""

    def __init__(
        self,
        ordinal: int,
        options: CudaCopyOptions,
        pinned: PinnedHost,
        *,
        reserve_bytes: int,
        note: Callable[[str], None],
    ) -> None:
        """Open the device, compile its kernels if they are not kept, make streams and warm the memory pool.

        Args:
            ordinal: number of the device among those that the process sees.
            options: how to copy.
            reserve_bytes: device memory to take now for what copies need beside the blocks.
            pinned: where memory lies that this GPU reaches by itself.
            note: told of every slower way that is taken.

        Raises:
            DeviceError: the driver, the device or the compiler cannot be used.
        """
        self._pinned = pinned
        self._note = note
        self._options = options
        with _named_failures(f"GPU {ordinal}"):
            self.device = _native.CudaDevice(ordinal)
            if not self.device.shares_host_addresses and options.needs_kernels:
                raise DeviceError(
                    f"{self.device.name}: its kernels cannot reach pinned host memory here; use the copy engine in both "
                    f"directions (CopyWay.COPY_ENGINE)"
                )
            self.pool = _native.CudaMemoryPool(
                self.device, reserve_bytes=reserve_bytes, release_threshold_bytes=options.pool_release_bytes
            )
            self._native = _native.CudaCopier(
                self.pool,
                copy_kernels(self.device.capability) if options.needs_kernels else b"",
                _native.CudaCopierOptions(
                    num_ctas_gather=options.num_ctas_d2h,
                    num_ctas_scatter=options.num_ctas_h2d,
                    num_ctas_staged=options.num_ctas_staged,
                    num_streams=options.num_streams,
                    batch_copies=options.batch_copies,
                    scratch_bytes=options.scratch_bytes,
                ),
            )
        self._lock = threading.Lock()
        self._programs: WeakKeyDictionary[EngineMemory, _Program] = WeakKeyDictionary()
        self._staging: Staging | None = None

    @property
    def options(self) -> CudaCopyOptions:
        """How it copies."""
        return self._options

    def attach(self, memory: EngineMemory) -> None:
        """Put a memory's description on the device, which its first copy would do otherwise. Raises DeviceError."""
        self._program(memory)

    def gather(self, blocks: EngineBlocks, targets: Addresses) -> None:
        """Copy every block to its target address, in slot format, after the blocks' event. Blocks; releases the GIL.

        Raises:
            ValueError: not one target for each block.
            DeviceError: the device failed; the targets are undefined.
        """
        program = self._program(blocks.memory)
        start = self._starter(self._native.start_gather, program, program.store_way, blocks, None)
        self._copy(Staging.gather, blocks, targets, start)

    def scatter(self, blocks: EngineBlocks, sources: Addresses, started: Started | None = None) -> None:
        """Copy every block from its source address; as `gather`.

        Args:
            started: called with each transfer before it is waited for.

        Raises:
            ValueError: not one source for each block, or the memory stands for several elements at once.
            DeviceError: the device failed; the blocks are undefined.
        """
        if not blocks.memory.writable:
            raise ValueError("the engine's memory is a broadcast array: it cannot be loaded into")
        program = self._program(blocks.memory)
        start = self._starter(self._native.start_scatter, program, program.load_way, blocks, started)
        self._copy(Staging.scatter, blocks, sources, start)

    def wait_ready(self, blocks: EngineBlocks, timeout_s: float) -> bool:
        """Wait until the blocks' event has passed. Returns False if it has not after so long. Releases the GIL.

        Raises:
            DeviceError: the device failed.
        """
        with _named_failures(f"{blocks.memory.device}, waiting for the engine"):
            return self.device.wait_event(blocks.after_event, timeout_s)

    def _starter(
        self,
        native_start: Callable[..., _native.CudaTransfer],
        program: _Program,
        way: CopyWay,
        blocks: EngineBlocks,
        started: Started | None,
    ) -> Start:
        def start(ids: NDArray[np.int64], slots: Addresses) -> _native.CudaTransfer:
            transfer = native_start(program.native, ids, slots, _NATIVE_WAYS[way], blocks.after_event)
            if started is not None:
                started(len(ids), transfer)
            return transfer

        return start

    def _copy(
        self,
        staged: Callable[[Staging, EngineBlocks, Addresses, Start], None],
        blocks: EngineBlocks,
        addresses: Addresses,
        start: Start,
    ) -> None:
        """Copy between blocks and host memory, pinned or not."""
        memory = blocks.memory
        with _named_failures(f"{memory.device}, copying to or from the host"):
            if self._pinned.covers(addresses, memory.geometry.block_bytes):
                start(blocks.ids, addresses).wait()
            else:
                staged(self._staging_for(memory), blocks, addresses, start)

    def close(self) -> None:
        """Unpin and release staging buffers. Idempotent. No copy may be under way, and none may follow."""
        with self._lock:
            if self._staging is not None:
                self._staging.close()
                self._staging = None

    def _program(self, memory: EngineMemory) -> "_Program":
        with self._lock:
            program = self._programs.get(memory)
            if program is None:
                program = self._make_program(memory)
                self._programs[memory] = program
            return program

    def _make_program(self, memory: EngineMemory) -> "_Program":
        with _named_failures(memory.device):
            native = self._native.program(memory.pieces, memory.geometry.block_bytes)
            has_batches = _native.cuda_has_batched_copies()
        held_bytes = int((memory.pieces[:, 3] * memory.pieces[:, 6] * memory.pieces[:, 8]).sum())
        shape = BlockShape(
            run_bytes=held_bytes / native.num_runs, block_bytes=held_bytes, stageable=native.is_stageable
        )
        program = _Program(native, self._options.load_way(shape), self._options.store_way(shape))
        if not has_batches and {program.load_way, program.store_way} != {CopyWay.KERNEL}:
            self._note(
                "the NVIDIA driver has no cuMemcpyBatchAsync (12.8): the copy engine is called once for each run"
            )
        return program

    def _staging_for(self, memory: EngineMemory) -> Staging:
        with self._lock:
            if self._staging is None:
                self._note(
                    f"blocks on {memory.device} go to and from host memory that is not pinned through a buffer of "
                    f"{self._options.staging_bytes >> 20} MiB"
                )
                self._staging = Staging(self.device, memory.geometry.block_bytes, self._options.staging_bytes)
            self._staging.check_size(memory.geometry.block_bytes)
            return self._staging


class CudaBlocks:
    """Blocks in GPU memory; a `BlockMemory`."""

    __slots__ = ("_blocks", "_copier", "_started")

    def __init__(self, blocks: EngineBlocks, copier: CudaCopier, started: Started | None = None) -> None:
        """Say who copies them, and who is told when a load's copy was started."""
        self._blocks = blocks
        self._copier = copier
        self._started = started

    @property
    def num_blocks(self) -> int:
        return self._blocks.num_blocks

    @property
    def addresses(self) -> None:
        return None

    def gather(self, targets: Addresses) -> None:
        """Copy every block to its target address. Raises as `CudaCopier.gather`."""
        self._copier.gather(self._blocks, targets)

    def scatter(self, sources: Addresses) -> None:
        """Copy every block from its source address. Raises as `CudaCopier.scatter`."""
        self._copier.scatter(self._blocks, sources, self._started)

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until the engine is done with them. Returns and raises as `CudaCopier.wait_ready`."""
        return self._copier.wait_ready(self._blocks, timeout_s)

    def slice(self, start: int, stop: int) -> "CudaBlocks":
        """The blocks [start, stop), without copying."""
        return CudaBlocks(self._blocks.slice(start, stop), self._copier, self._started)
