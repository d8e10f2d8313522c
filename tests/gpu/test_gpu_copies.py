"""Blocks in GPU memory come and go byte for byte, whatever their layout, and nothing beside them is touched."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.gpu.conftest import DEVICE, WAYS, Gpu
from tests.helpers.copy_cases import (
    LAYOUTS,
    POISON,
    CopyCase,
    PlacedMemory,
    addresses_of,
    check_gather,
    check_layers,
    check_scatter,
    random_case,
    shard_case,
    slot_stride,
    vector_case,
)
from tiercel.errors import DeviceError
from tiercel.layout import EngineMemory
from tiercel.transfer.cuda import CudaCopyOptions
from tiercel.transfer.guard import Guard, RevokedError


def check_both_ways(gpu: Gpu, case: CopyCase) -> None:
    placed = case.memory(DEVICE)
    reached = gpu.reach(placed.blocks())
    slots = gpu.slots(len(case.ids) + 1, slot_stride(case))
    check_gather(case, reached, slots)
    check_gather(case, reached, slots, offset=int(case.ids[0]) % 17)
    check_scatter(case, placed, reached, slots)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(6))
def test_random_blocks_of_any_layout_come_and_go(gpu: Gpu, layout: str, seed: int) -> None:
    check_both_ways(gpu, random_case(seed, layout))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", [100, 101])
def test_many_tiles_of_any_layout_come_and_go(gpu: Gpu, layout: str, seed: int) -> None:
    check_both_ways(gpu, random_case(seed, layout, large=True))


@pytest.mark.parametrize("num_blocks", [1, 8191, 8192, 8193, 3 * 8192 - 1])
def test_a_last_tile_that_is_full_or_one_vector_off_is_copied_to_its_end(gpu: Gpu, num_blocks: int) -> None:
    case = vector_case(num_blocks)
    placed = case.memory(DEVICE)
    slots = gpu.slots(num_blocks + 1, 16)
    check_gather(case, gpu.reach(placed.blocks()), slots)
    check_scatter(case, placed, gpu.reach(placed.blocks()), slots)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "mla"])
def test_a_tensor_parallel_rank_leaves_the_other_ranks_bytes_alone(gpu: Gpu, layout: str, seed: int) -> None:
    check_both_ways(gpu, shard_case(seed, layout))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("layout", ["apart, token first", "one tensor, block first", "shard", "mla"])
def test_host_memory_that_is_not_pinned_is_reached_through_the_staging_buffer(
    make_gpu: Callable[[CudaCopyOptions], Gpu], seed: int, layout: str
) -> None:
    case = shard_case(seed, "together, kv first") if layout == "shard" else random_case(seed, layout)
    gpu = make_gpu(CudaCopyOptions(staging_bytes=6 * slot_stride(case)))
    placed = case.memory(DEVICE)
    slots = np.empty((len(case.ids) + 1, slot_stride(case)), np.uint8)
    check_gather(case, gpu.reach(placed.blocks()), slots)
    check_scatter(case, placed, gpu.reach(placed.blocks()), slots)
    assert len(gpu.notes) == 1
    assert "not pinned" in gpu.notes[0]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("layout", [*LAYOUTS, "shard"])
def test_some_layers_of_blocks_come_and_go_by_themselves(gpu: Gpu, layout: str, seed: int) -> None:
    case = shard_case(seed, "together, kv first") if layout == "shard" else random_case(seed, layout, large=True)
    check_layers(case, case.memory(DEVICE), gpu.reach, gpu.slots(len(case.ids) + 1, slot_stride(case)))


def busy(torch: Any, seconds: float) -> None:
    """Keep the current stream busy for about that long."""
    torch.cuda._sleep(int(seconds * 1.5e9))


def test_a_store_reads_a_block_only_after_the_engine_has_written_it(gpu: Gpu) -> None:
    import torch

    case = random_case(3, "one tensor, layer first", large=True)
    placed = case.memory(DEVICE)
    (there,) = placed._on_device
    content = there.clone()
    slots = gpu.slots(len(case.ids) + 1, slot_stride(case))
    there.fill_(POISON)
    torch.cuda.synchronize()
    engine = torch.cuda.Stream()
    with torch.cuda.stream(engine):
        busy(torch, 0.2)
        there.copy_(content)
        written = torch.cuda.Event()
        written.record()
    check_gather(case, gpu.reach(placed.memory.blocks(case.ids, after=written)), slots)


def test_a_load_overwrites_a_block_only_after_the_engine_has_read_it(gpu: Gpu) -> None:
    import torch

    case = random_case(5, "together, block first", large=True)
    placed = case.memory(DEVICE)
    before = [there.clone() for there in placed._on_device]
    torch.cuda.synchronize()
    engine = torch.cuda.Stream()
    with torch.cuda.stream(engine):
        busy(torch, 0.2)
        read = [there.clone() for there in placed._on_device]
        done = torch.cuda.Event()
        done.record()
    slots = gpu.slots(len(case.ids) + 1, slot_stride(case))
    slots[...] = 1
    gpu.reach(placed.memory.blocks(case.ids, after=done)).scatter(addresses_of(slots, case))
    torch.cuda.synchronize()
    for old, seen in zip(before, read, strict=True):
        assert torch.equal(old, seen)


def test_an_event_that_was_never_recorded_is_refused() -> None:
    import torch

    placed = random_case(0, "mla").memory(DEVICE)
    with pytest.raises(ValueError, match="never recorded"):
        placed.memory.blocks([0], after=torch.cuda.Event())
    with pytest.raises(TypeError, match="no CUDA event"):
        placed.memory.blocks([0], after="event")


def test_transfers_of_many_threads_in_both_directions_do_not_mix(gpu: Gpu) -> None:
    failures: list[Exception] = []
    ended: list[CopyCase] = []
    cases = [random_case(seed, layout, large=True) for seed, layout in enumerate(LAYOUTS)]
    made = [(case, case.memory(DEVICE), gpu.slots(len(case.ids) + 1, slot_stride(case))) for case in cases]

    def work(case: CopyCase, placed: PlacedMemory, slots: np.ndarray) -> None:
        try:
            for _ in range(5):
                check_gather(case, gpu.reach(placed.blocks()), slots)
                check_scatter(case, placed, gpu.reach(placed.blocks()), slots)
        except (AssertionError, DeviceError, ValueError) as error:
            failures.append(error)
        ended.append(case)

    threads = [threading.Thread(target=work, args=each) for each in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if failures:
        raise failures[0]
    assert len(ended) == len(made)


def test_revoking_a_guard_waits_for_the_copy_in_flight_and_forbids_the_next(gpu: Gpu) -> None:
    import torch

    case = random_case(2, "one tensor, block first", large=True)
    placed = case.memory(DEVICE)
    slots = gpu.slots(len(case.ids) + 1, slot_stride(case))
    slots[...] = 7
    engine = torch.cuda.Stream()
    with torch.cuda.stream(engine):
        busy(torch, 0.3)
        event = torch.cuda.Event()
        event.record()
    guard, reached = Guard(), gpu.reach(placed.memory.blocks(case.ids, after=event))
    sources = addresses_of(slots, case)
    thread = threading.Thread(target=guard.scatter, args=(reached, sources))
    thread.start()
    time.sleep(0.05)
    guard.revoke()
    for there in placed._on_device:
        there.fill_(POISON)  # the engine has its blocks back
    torch.cuda.synchronize()
    with pytest.raises(RevokedError):
        guard.scatter(reached, sources)
    thread.join(10)
    assert all(bool((there == POISON).all()) for there in placed._on_device)


def test_a_wrong_number_of_addresses_moves_nothing(gpu: Gpu) -> None:
    case = random_case(1, "apart, head first")
    placed = case.memory(DEVICE)
    slots = gpu.slots(len(case.ids) + 2, slot_stride(case))
    slots[...] = POISON
    with pytest.raises(ValueError, match="differ in length"):
        gpu.reach(placed.blocks()).gather(addresses_of(slots, case)[:-1])
    assert (slots == POISON).all()


def test_real_bfloat16_and_float8_tensors_are_taken_and_devices_are_not_mixed(gpu: Gpu) -> None:
    import torch

    case = random_case(8, "mla")
    for dtype in (torch.bfloat16, torch.float8_e4m3fn):
        geometry = type(case.geometry)(
            model_id="m",
            tokens_per_block=16,
            num_layers=2,
            kv_parts=1,
            num_kv_heads=1,
            head_size=576,
            dtype=str(dtype).removeprefix("torch."),
        )
        tensors = [torch.zeros(4, 16, 576, dtype=dtype, device=DEVICE) for _ in range(2)]
        memory = EngineMemory.from_arrays(geometry, tensors, axes="block token dim")
        slots = gpu.slots(4, -(-geometry.block_bytes // 4096) * 4096)
        slots[...] = np.random.default_rng(1).integers(0, 256, slots.shape, np.uint8)
        addresses = (slots.ctypes.data + np.arange(4) * slots.strides[0]).astype(np.uint64)
        gpu.reach(memory.blocks(range(4))).scatter(addresses)
        got = torch.stack(tensors, 1).view(torch.uint8).reshape(4, -1).cpu().numpy()
        np.testing.assert_array_equal(got, slots[:, : geometry.block_bytes])
        with pytest.raises(ValueError, match="describe each device's memory by itself"):
            EngineMemory.from_arrays(geometry, [tensors[0], tensors[1].cpu()], axes="block token dim")


def test_pinning_the_same_memory_for_two_caches_is_refused_with_what_to_do(
    make_gpu: Callable[[CudaCopyOptions], Gpu],
) -> None:
    first, second = (make_gpu(WAYS["kernel"]) for _ in range(2))
    slots = first.slots(4, 4096)
    with pytest.raises(DeviceError, match="cannot be pinned"):
        second.pinned.pin(second.copier.device, slots.ctypes.data, slots.nbytes, unit_bytes=4096)
    assert not second.pinned.covers(np.array([slots.ctypes.data], np.uint64), 4096)
    assert first.pinned.covers(np.array([slots.ctypes.data + 4096], np.uint64), 4096)
    assert not first.pinned.covers(np.array([slots.ctypes.data + 4 * 4096], np.uint64), 4096)
