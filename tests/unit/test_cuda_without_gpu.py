"""What can be held of GPU copies on a machine without a GPU: choices, kept kernels, and messages."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.small_engine import MODEL, config
from tiercel import Cache, EngineMemory, _native
from tiercel.errors import DeviceError
from tiercel.transfer.cuda import CopyWay, CudaCopyOptions, PinnedHost, nvrtc
from tiercel.transfer.cuda.options import BlockShape, default_reserve_bytes


class GpuTensor:
    """What torch's tensors on a GPU offer. The address is never followed."""

    def __init__(self, shape: tuple[int, ...], device: str = "cuda:0") -> None:
        self.shape, self.dtype = shape, "torch.float16"
        self.device = type("device", (), {"type": device.partition(":")[0], "index": int(device[-1])})()

    def data_ptr(self) -> int:
        return 1 << 33

    def stride(self) -> tuple[int, ...]:
        return tuple(int(np.prod(self.shape[axis + 1 :])) for axis in range(len(self.shape)))

    def element_size(self) -> int:
        return 2


def gpu_memory(cache: Cache, device: str = "cuda:0") -> EngineMemory:
    shape = (2, 8, cache.geometry.tokens_per_block, cache.geometry.num_kv_heads, cache.geometry.head_size)
    layers = [GpuTensor(shape, device) for _ in range(cache.geometry.num_layers)]
    return EngineMemory.from_arrays(cache.geometry, layers, axes="kv block token head dim")


@pytest.fixture
def no_gpu() -> None:
    try:
        _native.cuda_driver_version()
    except RuntimeError:
        return
    pytest.skip("this machine has an NVIDIA driver: tests/gpu holds what happens with one")


@pytest.mark.usefixtures("no_gpu")
def test_memory_on_a_gpu_without_a_driver_is_refused_with_what_to_do() -> None:
    with Cache.open(MODEL, config(host=8)) as cache:
        memory = gpu_memory(cache)
        for call in (
            lambda: cache.devices.attach(memory),
            lambda: cache.store(cache.sequence(np.arange(32, dtype=np.int32)), memory.blocks([0, 1])),
        ):
            with pytest.raises(DeviceError, match=r"no NVIDIA driver.*install"):
                call()
        assert all(tier.num_writing == tier.num_pinned == 0 for tier in cache.stats().tiers)


def test_memory_on_a_gpu_is_never_touched_from_the_processor() -> None:
    with Cache.open(MODEL, config(host=8)) as cache:
        blocks = gpu_memory(cache).blocks([0, 1], after=77)
        assert blocks.addresses is None
        assert blocks.slice(0, 1).after_event == 77
        for call in (blocks.gather, blocks.scatter):
            with pytest.raises(ValueError, match="cuda:0"):
                call(np.zeros(2, np.uint64))


def test_host_memory_takes_no_event() -> None:
    with Cache.open(MODEL, config(host=8)) as cache:
        shape = (cache.geometry.num_layers, 2, 4, 16, 2, 16)
        memory = EngineMemory.from_arrays(
            cache.geometry, [np.zeros(shape, np.uint16)], axes="layer kv block token head dim"
        )
        with pytest.raises(ValueError, match="host memory has no events"):
            memory.blocks([0], after=77)


KERNEL, ENGINE, STAGED = CopyWay.KERNEL, CopyWay.COPY_ENGINE, CopyWay.STAGED


@pytest.mark.parametrize(
    ("options", "run_bytes", "block_bytes", "stageable", "ways"),
    [
        ({}, 4 << 10, 256 << 10, True, (STAGED, STAGED)),
        ({}, 4 << 10, 256 << 10, False, (KERNEL, KERNEL)),
        ({}, 256, 16 << 10, True, (KERNEL, KERNEL)),
        ({}, 32 << 10, 2 << 20, False, (KERNEL, ENGINE)),
        ({}, 64 << 10, 4 << 20, True, (ENGINE, ENGINE)),
        ({}, 32 << 10, 2 << 20, True, (KERNEL, STAGED)),
        ({}, 64 << 10, 64 << 10, True, (ENGINE, ENGINE)),
        ({}, 4 << 10, 8 << 10, True, (KERNEL, KERNEL)),
        ({}, 64 << 10, 4 << 20, False, (ENGINE, ENGINE)),
        ({}, 2 << 20, 2 << 20, True, (ENGINE, ENGINE)),
        ({"way_h2d": KERNEL}, 1 << 20, 1 << 20, True, (KERNEL, ENGINE)),
        ({"way_d2h": ENGINE}, 256, 16 << 10, True, (KERNEL, ENGINE)),
        ({"way_h2d": STAGED, "way_d2h": STAGED}, 1 << 20, 1 << 20, True, (STAGED, STAGED)),
        ({"way_h2d": STAGED, "way_d2h": STAGED}, 1 << 20, 1 << 20, False, (KERNEL, KERNEL)),
    ],
)
def test_who_moves_the_bytes_follows_the_length_of_runs_unless_it_is_said(
    options: dict[str, Any], run_bytes: int, block_bytes: int, stageable: bool, ways: tuple[CopyWay, CopyWay]
) -> None:
    chosen = CudaCopyOptions(**options)
    shape = BlockShape(run_bytes=run_bytes, block_bytes=block_bytes, stageable=stageable)
    assert (chosen.load_way(shape), chosen.store_way(shape)) == ways
    assert chosen.needs_kernels


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, CudaCopyOptions()),
        ({"use_ce_transfer_h2d": True}, CudaCopyOptions(way_h2d=ENGINE)),
        ({"use_ce_transfer_d2h": False, "transfer_sms_d2h": 3}, CudaCopyOptions(way_d2h=KERNEL, num_ctas_d2h=3)),
        ({"transfer_sms_h2d": 9}, CudaCopyOptions(num_ctas_h2d=9)),
        (
            {"gpu_pool_reserve_bytes": "1MiB", "gpu_pool_release_bytes": "2MiB"},
            CudaCopyOptions(pool_reserve_bytes=1 << 20, pool_release_bytes=2 << 20),
        ),
    ],
)
def test_settings_say_how_a_gpu_copies_when_nobody_else_does(
    settings: dict[str, Any], expected: CudaCopyOptions
) -> None:
    with Cache.open(MODEL, config(host=8, **settings)) as cache:
        assert cache.devices._settings.options() == expected


def test_the_hosts_arena_and_the_disks_buffers_are_what_is_pinned(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, host=8, disk=8)) as cache:
        arena, *buffers = cache.devices._regions
        assert (arena.num_bytes, arena.unit_bytes) == (8 * 4096, 4096)
        assert sum(region.num_bytes for region in buffers) == 128 << 20
        assert all(region.num_bytes % region.unit_bytes == region.address % 4096 == 0 for region in buffers)
    with Cache.open(MODEL, config(host=8)) as cache:
        assert len(cache.devices._regions) == 1


def test_the_pool_reserves_dynamos_lists_and_scratch_for_two_transfers_each_way() -> None:
    assert default_reserve_bytes(4, num_layers=32, kv_parts=2) == 80 << 10  # what Dynamo's defaults come to
    options = CudaCopyOptions(num_streams=2, scratch_bytes=1 << 20)
    assert options.reserve_bytes(num_layers=32, kv_parts=2) == (80 << 10) + (4 << 20)
    assert CudaCopyOptions(pool_reserve_bytes=5).reserve_bytes(num_layers=32, kv_parts=2) == 5


def test_options_out_of_range_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="num_ctas_h2d = 0"):
        CudaCopyOptions(num_ctas_h2d=0)
    with pytest.raises(ValueError, match="batch_copies"):
        CudaCopyOptions(batch_copies=True)
    with pytest.raises(TypeError, match="way_d2h"):
        CudaCopyOptions(way_d2h="kernel")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    engine = CopyWay.COPY_ENGINE
    assert not CudaCopyOptions(way_h2d=engine, way_d2h=engine).needs_kernels


def test_a_kept_kernel_is_read_whole_or_not_at_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "kernels" / "a.cubin"
    assert nvrtc._read_kept(path) is None
    nvrtc._keep(path, b"cubin" * 100)
    assert nvrtc._read_kept(path) == b"cubin" * 100
    assert [file.name for file in path.parent.iterdir()] == ["a.cubin"]
    for damaged in (b"", b"cubin", path.read_bytes()[:-1], b"C" + path.read_bytes()[1:]):
        path.write_bytes(damaged)
        assert nvrtc._read_kept(path) is None
    assert "damaged" in caplog.text


def test_a_kernel_that_cannot_be_kept_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    nvrtc._keep(tmp_path / "file" / "a.cubin", b"cubin")
    assert "cannot be kept" in caplog.text


def test_without_a_compiler_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "_SYSTEM_NAMES", ("libnvrtc-that-is-not-there.so",))
    monkeypatch.setattr(nvrtc, "_wheel_libraries", list)
    with pytest.raises(DeviceError, match=r"install tiercel\[cuda\]"):
        nvrtc.copy_kernels(90)


def test_nothing_is_pinned_before_it_is_asked_for() -> None:
    pinned = PinnedHost(1 << 20)
    assert pinned.covers(np.empty(0, np.uint64), 4096)
    assert not pinned.covers(np.array([4096], np.uint64), 4096)
    pinned.close()
