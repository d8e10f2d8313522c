"""Host memory that several processes map is pinned by each for itself, and given back however a process ends."""

import contextlib
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from tests.gpu.conftest import DEVICE, WAYS, Gpu
from tests.helpers.copy_cases import bytes_at, check_gather, check_scatter, random_case, slot_stride
from tiercel.layout import BlockGeometry, EngineMemory
from tiercel.transfer.cuda import CudaCopyOptions

NUM_BYTES = 64 << 20

PEER = """
import mmap, os, sys, time
import numpy as np
from tiercel import _native
from tiercel.transfer.cuda import PinnedHost

mapping = mmap.mmap(int(sys.argv[1]), int(sys.argv[2]))
address = np.frombuffer(mapping, np.uint8).ctypes.data
pinned = PinnedHost(16 << 20)
pinned.pin(_native.CudaDevice(0), address, len(mapping), unit_bytes=1 << 20)
print("pinned", flush=True)
time.sleep(60)
"""


@pytest.fixture
def arena() -> Iterator[tuple[int, mmap.mmap, int]]:
    """A shared file in memory, as the host tier's: its descriptor, a mapping of it, and where that lies."""
    descriptor = os.memfd_create("tiercel-test")
    os.ftruncate(descriptor, NUM_BYTES)
    mapping = mmap.mmap(descriptor, NUM_BYTES)
    view = np.frombuffer(mapping, np.uint8)
    yield descriptor, mapping, view.ctypes.data
    os.close(descriptor)


def peer(descriptor: int) -> subprocess.Popen[str]:
    """Another process that has mapped and pinned the same memory."""
    arguments = [sys.executable, "-c", PEER, str(descriptor), str(NUM_BYTES)]
    with contextlib.ExitStack() as ended:
        process = subprocess.Popen(arguments, pass_fds=[descriptor], stdout=subprocess.PIPE, text=True)
        ended.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "pinned\n"
        ended.pop_all()
    return process


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_peer_that_dies_while_it_has_the_same_memory_pinned_disturbs_nobody(
    make_gpu: Callable[[CudaCopyOptions], Gpu], arena: tuple[int, mmap.mmap, int], end: signal.Signals
) -> None:
    descriptor, _, address = arena
    gpu = make_gpu(WAYS["kernel"])
    gpu.pinned.pin(gpu.copier.device, address, NUM_BYTES, unit_bytes=1 << 20)
    case = random_case(4, "one tensor, layer first", large=True)
    placed, stride = case.memory(DEVICE), slot_stride(case)
    slots = bytes_at(address, NUM_BYTES)[: (len(case.ids) + 1) * stride].reshape(-1, stride)
    with peer(descriptor) as process:
        check_gather(case, gpu.reach(placed.blocks()), slots)
        process.send_signal(end)
        assert process.wait(30) == -end
        check_gather(case, gpu.reach(placed.blocks()), slots)
        check_scatter(case, placed, gpu.reach(placed.blocks()), slots)
        assert not gpu.notes, "the memory counts as pinned"
    with peer(descriptor) as again:
        again.kill()


def test_what_was_unpinned_can_be_pinned_again(
    make_gpu: Callable[[CudaCopyOptions], Gpu], arena: tuple[int, mmap.mmap, int]
) -> None:
    _, _, address = arena
    for _ in range(3):
        gpu = make_gpu(WAYS["kernel"])
        gpu.pinned.pin(gpu.copier.device, address, NUM_BYTES, unit_bytes=1 << 20)
        gpu.pinned.close()
        assert not gpu.pinned.covers(np.array([address], np.uint64), 4096)


@pytest.mark.parametrize("way", WAYS)
def test_neighbouring_slots_on_both_sides_of_a_border_between_pinned_chunks_come_and_go(
    way: str, make_gpu: Callable[[CudaCopyOptions], Gpu]
) -> None:
    torch = pytest.importorskip("torch")
    gpu = make_gpu(replace(WAYS[way], pin_chunk_bytes=16 << 10))
    geometry = BlockGeometry(
        model_id="neighbours",
        tokens_per_block=16,
        num_layers=1,
        kv_parts=1,
        num_kv_heads=1,
        head_size=128,
        dtype="bfloat16",
    )
    tensor = torch.randint(-99, 99, (64, 16, 128), device=DEVICE).to(torch.bfloat16)
    stored = tensor.clone()
    memory = EngineMemory.from_arrays(geometry, [tensor], axes="block token dim")
    blocks = gpu.reach(memory.blocks(range(64)))
    slots = gpu.slots(64, geometry.block_bytes)
    addresses = slots.ctypes.data + np.arange(64, dtype=np.uint64) * np.uint64(geometry.block_bytes)
    blocks.gather(addresses)
    assert slots.tobytes() == stored.view(torch.uint8).cpu().numpy().tobytes()
    tensor.zero_()
    torch.cuda.synchronize()
    blocks.scatter(addresses)
    assert torch.equal(tensor, stored)
