"""The steps over a GPU, with a device that is made up: what is asked of it, and what its faults become."""

import time

import pytest

from tiercel._native import cuda_driver_version
from tiercel.errors import DeviceError
from tiercel.transfer.cuda.speed import CopyDirection
from tiercel.tune.probe.gpu import NUM_CTAS, NUM_STEPS, PIECE_BYTES, find_gpus, probe_gpu


class FakeGpu:
    """A GPU whose rates follow from what is asked of it."""

    name = "fake"
    memory_bytes = 1 << 30

    def __init__(self, kernel_problem: str = "", fails_after: int = 10**9) -> None:
        self.kernel_problem = kernel_problem
        self.fails_after = fails_after
        self.closed = False

    def contiguous(self, direction: CopyDirection) -> float:
        return self._answer(50e9 + direction.value * 1e9)

    def both(self) -> float:
        return self._answer(60e9)

    def scattered(self, direction: CopyDirection, piece_bytes: int, num_ctas: int) -> float:
        return self._answer(piece_bytes * 1e6 + num_ctas * 1e3 + direction.value)

    def close(self) -> None:
        self.closed = True

    def _answer(self, rate: float) -> float:
        self.fails_after -= 1
        if self.fails_after < 0:
            raise DeviceError("fake: it fell off the bus")
        return rate


def test_every_way_and_piece_size_is_measured_under_its_own_name() -> None:
    gpu = FakeGpu()
    notes: list[str] = []
    titles: list[str] = []
    found = probe_gpu(lambda: gpu, lambda: 0.1, titles.append, notes, time.monotonic)
    assert found is not None
    assert (found.h2d_bytes_per_s.value, found.d2h_bytes_per_s.value) == (50e9, 51e9)
    assert found.both_bytes_per_s.value == 60e9
    assert len(found.copies) == 2 * len(PIECE_BYTES) * len(NUM_CTAS)
    for copy in found.copies:
        way = 0 if copy.direction == "h2d" else 1
        assert copy.bytes_per_s.value == copy.piece_bytes * 1e6 + copy.ctas * 1e3 + way
    assert len(titles) == NUM_STEPS
    assert notes == []
    assert gpu.closed


def test_without_kernels_the_copy_engine_is_measured_alone_and_that_is_said() -> None:
    gpu = FakeGpu(kernel_problem="no compiler")
    notes: list[str] = []
    found = probe_gpu(lambda: gpu, lambda: 0.1, lambda title: None, notes, time.monotonic)
    assert found is not None
    assert {copy.ctas for copy in found.copies} == {0}
    assert notes == ["fake: kernel copies were not measured: no compiler."]


def test_a_gpu_that_fails_is_closed_and_becomes_a_note() -> None:
    gpu = FakeGpu(fails_after=20)
    notes: list[str] = []
    assert probe_gpu(lambda: gpu, lambda: 0.1, lambda title: None, notes, time.monotonic) is None
    assert notes == ["A GPU was not measured: fake: it fell off the bus."]
    assert gpu.closed


def test_a_gpu_that_cannot_be_opened_becomes_a_note() -> None:
    notes: list[str] = []

    def refused() -> FakeGpu:
        raise DeviceError("GPU 0: no room")

    assert probe_gpu(refused, lambda: 0.1, lambda title: None, notes, time.monotonic) is None
    assert notes == ["A GPU was not measured: GPU 0: no room."]


def test_a_machine_without_a_driver_says_so() -> None:
    try:
        cuda_driver_version()
    except RuntimeError as error:
        reason = str(error)
    else:
        pytest.skip("this machine has a driver")
    notes: list[str] = []
    assert find_gpus(notes) == 0
    assert notes == [f"No GPU was measured: {reason}."]
