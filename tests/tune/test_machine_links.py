"""From measured figures to links: the right depth, in between sizes, several directories, host memory with and without a GPU."""

import msgspec
import pytest

from tests.helpers.machine_samples import KIB, MIB, directory, disk_figure, figure, gpu, machine
from tiercel.errors import ConfigError
from tiercel.tiers.base import TierName
from tiercel.tune.machine_links import CacheDepth, link_of, transfer_cost_of

DISK, HOST = TierName.DISK, TierName.HOST


def test_a_measured_size_has_the_rate_that_was_measured_at_the_depth_the_cache_reaches() -> None:
    figures = tuple(disk_figure(MIB, depth, rate) for depth, rate in ((1, 1e9), (8, 3e9), (64, 4e9), (256, 9e9)))
    found = machine(directories=(directory(figures=figures),))
    assert link_of(found, DISK, "read", MIB).bytes_per_s == 4e9  # two calls of 32 blocks
    shallow = CacheDepth(chunk_bytes=4 * MIB)
    assert link_of(found, DISK, "read", MIB, depth=shallow).bytes_per_s == 3e9
    assert link_of(found, DISK, "read", MIB, depth=CacheDepth(requests_max=2)).bytes_per_s == 1e9


def test_a_depth_below_all_that_was_measured_takes_the_least() -> None:
    found = machine(directories=(directory(figures=(disk_figure(MIB, 16, 2e9), disk_figure(MIB, 32, 3e9))),))
    assert link_of(found, DISK, "read", MIB, depth=CacheDepth(requests_max=4)).bytes_per_s == 2e9


def test_one_block_takes_as_long_as_it_was_measured_to_take_alone() -> None:
    figures = (disk_figure(MIB, 1, 0.5e9, latency_s=2e-3), disk_figure(MIB, 64, 4e9, latency_s=20e-3))
    link = link_of(machine(directories=(directory(figures=figures),)), DISK, "read", MIB)
    assert link.latency_s + MIB / link.bytes_per_s == pytest.approx(2e-3)


def test_a_latency_is_never_negative() -> None:
    figures = (disk_figure(MIB, 1, 1e9, latency_s=1e-6), disk_figure(MIB, 64, 1e9))
    assert link_of(machine(directories=(directory(figures=figures),)), DISK, "read", MIB).latency_s == 0.0


def test_between_sizes_rates_lie_between_and_grow_with_the_size() -> None:
    rates = [link_of(machine(), DISK, "read", size).bytes_per_s for size in (64 * KIB, 128 * KIB, 256 * KIB, MIB)]
    assert rates[0] == pytest.approx(8e8)
    assert rates[-1] == pytest.approx(8e9)
    assert rates == sorted(rates)
    assert rates[2] == pytest.approx((8e8 * 8e9) ** 0.5)  # half way by the logarithm


def test_below_the_smallest_size_operations_a_second_stay_and_above_the_largest_the_rate() -> None:
    assert link_of(machine(), DISK, "read", 16 * KIB).bytes_per_s == pytest.approx(8e8 / 4)
    assert link_of(machine(), DISK, "read", 64 * MIB).bytes_per_s == pytest.approx(8e9)


def test_reads_and_writes_have_figures_of_their_own() -> None:
    figures = (disk_figure(MIB, 8, 3e9), disk_figure(MIB, 8, 1e9, operation="write"))
    found = machine(directories=(directory(figures=figures),))
    assert link_of(found, DISK, "read", MIB).bytes_per_s == 3e9
    assert link_of(found, DISK, "write", MIB).bytes_per_s == 1e9


def test_stripes_go_at_the_pace_of_the_slowest() -> None:
    fast = directory("/a", (disk_figure(MIB, 8, 3e9, latency_s=MIB / 3e9),))
    slow = directory("/b", (disk_figure(MIB, 8, 1e9, latency_s=4e-3),))
    link = link_of(machine(directories=(fast, slow)), DISK, "read", MIB)
    assert link.bytes_per_s == 2e9
    assert link.latency_s == pytest.approx(4e-3 - MIB / 1e9)


def test_host_memory_without_a_gpu_is_the_copy_of_all_threads() -> None:
    link = link_of(machine(), HOST, "read", MIB, piece_bytes=4 * KIB)
    assert link.bytes_per_s == machine().copy_bytes_per_s.value


def test_host_memory_with_a_gpu_is_its_fastest_copy_of_such_pieces() -> None:
    found = machine(gpus=(gpu(),))
    assert link_of(found, HOST, "read", MIB).bytes_per_s == 55e9
    assert link_of(found, HOST, "write", MIB).bytes_per_s == 54e9
    assert link_of(found, HOST, "read", MIB, piece_bytes=4 * KIB).bytes_per_s == pytest.approx(9e9)
    assert link_of(found, HOST, "read", MIB, piece_bytes=2 * MIB).bytes_per_s == pytest.approx(44e9)


def test_copies_of_pieces_are_never_faster_than_the_contiguous_one() -> None:
    slow = msgspec.structs.replace(gpu(), h2d_bytes_per_s=figure(30e9))
    found = machine(gpus=(slow,), directories=())
    assert link_of(found, HOST, "read", MIB, piece_bytes=32 * KIB).bytes_per_s == 30e9


def test_a_transfer_cost_is_the_link_of_reads() -> None:
    cost, link = transfer_cost_of(machine(), DISK, MIB), link_of(machine(), DISK, "read", MIB)
    assert (cost.latency_s, cost.bytes_per_s, cost.queue_wait_s) == (link.latency_s, link.bytes_per_s, 0.0)


def test_what_was_not_measured_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match="tiercel probe --directory"):
        link_of(machine(directories=()), DISK, "read", MIB)
    with pytest.raises(ConfigError, match="no write of /ssd"):
        link_of(machine(directories=(directory(figures=(disk_figure(MIB, 1, 1e9),)),)), DISK, "write", MIB)
    with pytest.raises(ValueError, match="says nothing of this tier"):
        link_of(machine(), TierName.REMOTE, "read", MIB)
    with pytest.raises(ValueError, match="must be positive"):
        link_of(machine(), DISK, "read", 0)
