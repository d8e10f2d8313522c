"""What can be held of GPU copies on a machine without a GPU: choices, kept kernels, and messages."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.small_engine import MODEL, config
from tiercel import Cache, EngineMemory, _native
from tiercel.errors import DeviceError
from tiercel.transfer.cuda import CopyWay, CudaCopyOptions, PinnedHost, nvrtc


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


@pytest.mark.parametrize(
    ("options", "run_bytes", "loads", "stores"),
    [
        ({}, 4 << 10, False, False),
        ({}, 32 << 10, False, True),
        ({}, 64 << 10, True, True),
        ({"way_h2d": CopyWay.KERNEL}, 1 << 20, False, True),
        ({"way_d2h": CopyWay.COPY_ENGINE}, 256, False, True),
    ],
)
def test_who_moves_the_bytes_follows_the_length_of_runs_unless_it_is_said(
    options: dict[str, Any], run_bytes: int, loads: bool, stores: bool
) -> None:
    chosen = CudaCopyOptions(**options)
    assert (chosen.loads_through_engine(run_bytes), chosen.stores_through_engine(run_bytes)) == (loads, stores)
    assert chosen.needs_kernels


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
