"""Tests of what needs an NVIDIA GPU: `pytest tests/gpu` on a machine with one, PyTorch and tiercel[cuda]."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.copy_cases import bytes_at
from tiercel import _native
from tiercel.layout import EngineBlocks
from tiercel.transfer.cuda import CopyWay, CudaBlocks, CudaCopier, CudaCopyOptions, PinnedHost

DEVICE = "cuda:0"

WAYS = {
    "kernel": CudaCopyOptions(way_h2d=CopyWay.KERNEL, way_d2h=CopyWay.KERNEL, num_ctas_h2d=4, num_ctas_d2h=3),
    "copy engine": CudaCopyOptions(way_h2d=CopyWay.COPY_ENGINE, way_d2h=CopyWay.COPY_ENGINE, batch_copies=7),
    "staged": CudaCopyOptions(way_h2d=CopyWay.STAGED, way_d2h=CopyWay.STAGED, num_ctas_staged=2, scratch_bytes=1 << 16),
    "auto": CudaCopyOptions(
        staged_run_bytes_h2d=512,
        staged_run_bytes_d2h=1024,
        staged_block_bytes=4096,
        engine_run_bytes_h2d=1024,
        engine_run_bytes_d2h=2048,
    ),
}


def _missing() -> str | None:
    """Why these tests cannot run here, None if they can."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        return "PyTorch is not installed"
    try:
        version = _native.cuda_driver_version()
    except RuntimeError as error:
        return str(error)
    return None if torch.cuda.is_available() else f"PyTorch sees no GPU, though the driver speaks CUDA {version}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip aloud, every test of this folder by its reason, where there is no GPU."""
    here = [item for item in items if "tests/gpu/" in item.path.as_posix()]
    reason = _missing() if here else None
    if reason is not None:
        for item in here:
            item.add_marker(pytest.mark.skip(reason=f"needs an NVIDIA GPU: {reason}"))


@dataclass
class Gpu:
    """A copier, and pinned host memory for slots.

    Attributes:
        notes: what the copier said about slower ways.
    """

    copier: CudaCopier
    pinned: PinnedHost
    notes: list[str]
    arenas: list[_native.Arena]

    def reach(self, blocks: EngineBlocks) -> CudaBlocks:
        """Blocks as a tier takes them."""
        return CudaBlocks(blocks, self.copier)

    def slots(self, num_slots: int, stride: int) -> NDArray[np.uint8]:
        """Pinned memory, uint8[num_slots, stride]."""
        arena = _native.Arena(num_slots * stride, hugepages=False)
        self.pinned.pin(self.copier.device, arena.address, arena.num_bytes, unit_bytes=stride)
        self.arenas.append(arena)
        return bytes_at(arena.address, arena.num_bytes).reshape(num_slots, stride)


@pytest.fixture
def make_gpu() -> Iterator[Callable[[CudaCopyOptions], Gpu]]:
    made: list[Gpu] = []

    def make(options: CudaCopyOptions) -> Gpu:
        notes: list[str] = []
        pinned = PinnedHost(options.pin_chunk_bytes)
        copier = CudaCopier(0, options, pinned, reserve_bytes=1 << 20, note=notes.append)
        made.append(Gpu(copier, pinned, notes, []))
        return made[-1]

    yield make
    for gpu in made:
        gpu.copier.close()
        gpu.pinned.close()
        for arena in gpu.arenas:
            arena.close()


@pytest.fixture(params=WAYS)
def gpu(request: pytest.FixtureRequest, make_gpu: Callable[[CudaCopyOptions], Gpu]) -> Gpu:
    """A GPU whose blocks move by the kernel, by the copy engine, staged, and by any of them as the layout has it."""
    return make_gpu(WAYS[request.param])
