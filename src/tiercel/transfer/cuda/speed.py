"""Rates of one GPU's copies, contiguous and scattered, with nothing but what copies need: no engine, no PyTorch.

Buffers are taken once, half of them for each direction, so that both can run at once. `tune.probe` repeats these calls and
says what they are worth.
"""

import time
from contextlib import suppress
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from tiercel import _native
from tiercel.errors import DeviceError
from tiercel.transfer.cuda.nvrtc import copy_kernels
from tiercel.transfer.cuda.options import CudaCopyOptions
from tiercel.transfer.cuda.pinned import PinnedHost

COPY_BYTES = 256 << 20
"""What each copy moves: far more than a GPU's caches hold."""

_PIECES_PER_BLOCK = 64
"""As of a model of 32 layers, K and V apart."""


class CopyDirection(Enum):
    """Which way bytes go: loads come from the host, stores go to it."""

    H2D = 0
    D2H = 1


def count_gpus() -> int:
    """Return how many GPUs this process sees.

    Raises:
        DeviceError: NVIDIA's driver is missing, too old or unusable.
    """
    count = 0
    try:
        _native.cuda_driver_version()
        with suppress(ValueError):  # the first number that names no device
            while True:
                _native.CudaDevice(count)
                count += 1
    except RuntimeError as error:
        raise DeviceError(str(error)) from error
    return count


class CopySpeed:
    """One GPU with memory to copy between. For one thread."""

    def __init__(self, ordinal: int) -> None:
        """Open the device, take twice `COPY_BYTES` on it and in the host, and pin that.

        Raises:
            DeviceError: the device has no room, or host memory cannot be pinned.
            OSError: the host has no room.
        """
        self._options = CudaCopyOptions()
        self._pinned = PinnedHost(2 * COPY_BYTES)
        try:
            self._device = _native.CudaDevice(ordinal)
            self._pool = _native.CudaMemoryPool(self._device, reserve_bytes=64 << 20, release_threshold_bytes=128 << 20)
            self._buffers = [_native.CudaMemory(self._pool, COPY_BYTES) for _ in CopyDirection]
        except RuntimeError as error:
            raise DeviceError(f"GPU {ordinal}: {error}") from error
        self._arena = _native.Arena(2 * COPY_BYTES)
        self._arena.prefault(0, self._arena.num_bytes)
        self._pinned.pin(self._device, self._arena.address, self._arena.num_bytes, unit_bytes=COPY_BYTES)
        self._copiers: dict[int, _native.CudaCopier] = {}

    @property
    def name(self) -> str:
        return self._device.name

    @property
    def memory_bytes(self) -> int:
        return self._device.memory_bytes

    @property
    def kernel_problem(self) -> str:
        """Why kernels cannot copy here, "" if they can."""
        if not self._device.shares_host_addresses:
            return "its kernels cannot reach pinned host memory here"
        try:
            copy_kernels(self._device.capability)
        except DeviceError as error:
            return str(error)
        return ""

    def contiguous(self, direction: CopyDirection) -> float:
        """Bytes a second of one copy of `COPY_BYTES` by the copy engine, by the GPU's clock. Raises DeviceError."""
        return self._bytes_per_s([self._start(direction, COPY_BYTES, 1, num_ctas=0)])

    def both(self) -> float:
        """Bytes a second of one such copy each way at the same time, both together, by the host's clock. Raises DeviceError."""
        started = time.perf_counter()
        transfers = [self._start(direction, COPY_BYTES, 1, num_ctas=0) for direction in CopyDirection]
        self._bytes_per_s(transfers)
        return 2 * COPY_BYTES / (time.perf_counter() - started)

    def scattered(self, direction: CopyDirection, piece_bytes: int, num_ctas: int) -> float:
        """Bytes a second of blocks of 64 pieces each, in random order on both sides, by the GPU's clock.

        Args:
            piece_bytes: length of a piece, a divisor of `COPY_BYTES` / 64.
            num_ctas: thread blocks of the kernel that copies; 0 for the copy engine.

        Raises:
            DeviceError: the device failed, or there are no kernels (`kernel_problem`).
        """
        return self._bytes_per_s([self._start(direction, piece_bytes, _PIECES_PER_BLOCK, num_ctas=num_ctas)])

    def close(self) -> None:
        """Unpin the host memory and give back the GPU's. Once only."""
        self._copiers.clear()
        self._pinned.close()
        self._arena.close()
        self._buffers.clear()

    def _start(
        self, direction: CopyDirection, piece_bytes: int, num_pieces: int, *, num_ctas: int
    ) -> _native.CudaTransfer:
        block_bytes = piece_bytes * num_pieces
        num_blocks = COPY_BYTES // block_bytes
        random = np.random.default_rng(0)
        ids = random.permutation(num_blocks).astype(np.int64)
        base = self._arena.address + direction.value * COPY_BYTES
        slots = (base + random.permutation(num_blocks) * block_bytes).astype(np.uint64)
        way = _native.CudaWay.KERNEL if num_ctas else _native.CudaWay.COPY_ENGINE
        try:
            copier = self._copier(num_ctas)
            program = copier.program(self._pieces(direction, piece_bytes, num_pieces, num_blocks), block_bytes)
            start = copier.start_scatter if direction is CopyDirection.H2D else copier.start_gather
            return start(program, ids, slots, way=way)
        except RuntimeError as error:
            raise DeviceError(f"{self.name}: {error}") from error

    def _pieces(
        self, direction: CopyDirection, piece_bytes: int, num_pieces: int, num_blocks: int
    ) -> NDArray[np.int64]:
        """Memory of an engine: each piece's blocks one behind another, as `CopyProgram` has it."""
        base = self._buffers[direction.value].address
        rows = [
            [base + i * num_blocks * piece_bytes, piece_bytes, i * piece_bytes, 1, 0, 0, 1, 0, piece_bytes]
            for i in range(num_pieces)
        ]
        return np.array(rows, np.int64)

    def _copier(self, num_ctas: int) -> _native.CudaCopier:
        copier = self._copiers.get(num_ctas)
        if copier is None:
            options = _native.CudaCopierOptions(
                num_ctas_gather=max(1, num_ctas),
                num_ctas_scatter=max(1, num_ctas),
                num_ctas_staged=self._options.num_ctas_staged,
                num_streams=1,
                batch_copies=self._options.batch_copies,
                scratch_bytes=self._options.scratch_bytes,
            )
            cubin = copy_kernels(self._device.capability) if num_ctas else b""
            copier = self._copiers[num_ctas] = _native.CudaCopier(self._pool, cubin, options)
        return copier

    def _bytes_per_s(self, transfers: list[_native.CudaTransfer]) -> float:
        try:
            seconds = [transfer.wait() / 1e3 for transfer in transfers]
        except RuntimeError as error:
            raise DeviceError(f"{self.name}: {error}") from error
        return COPY_BYTES / max(seconds)
