"""What the kernel tells, read from a made-up /proc and /sys."""

import os
from pathlib import Path

import pytest

from tiercel.tune.machine import HugePages
from tiercel.tune.probe import facts


def put(root: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_the_processor_is_named_and_where_the_kernel_does_not_its_architecture(tmp_path: Path) -> None:
    put(tmp_path, proc__cpuinfo="processor\t: 0\nmodel name\t: A Processor 9000\nmodel name\t: another\n")
    assert facts.cpu_model(tmp_path) == "A Processor 9000"
    assert facts.cpu_model(tmp_path / "nothing") == os.uname().machine


def test_numa_nodes_are_counted_and_are_one_where_there_are_none(tmp_path: Path) -> None:
    assert facts.numa_nodes(tmp_path) == 1
    for name in ("node0", "node1", "possible"):
        (tmp_path / "sys/devices/system/node" / name).mkdir(parents=True)
    assert facts.numa_nodes(tmp_path) == 2


def test_huge_pages_are_told_as_the_kernel_has_them(tmp_path: Path) -> None:
    assert facts.hugepages(tmp_path) is None
    put(tmp_path, proc__meminfo="MemTotal: 9 kB\nHugePages_Total: 8\nHugePages_Free: 3\nHugepagesize: 2048 kB\n")
    put(tmp_path, sys__kernel__mm__transparent_hugepage__shmem_enabled="always [advise] never\n")
    assert facts.hugepages(tmp_path) == HugePages(page_bytes=2 << 20, total=8, free=3, transparent_shared="advise")


def test_a_filesystem_is_that_of_the_innermost_mount(tmp_path: Path) -> None:
    inner = tmp_path.resolve() / "a b"
    inner.mkdir()
    escaped = str(inner).replace(" ", "\\040")
    lines = [
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw",
        f"2 1 8:2 / {escaped} rw shared:1 - xfs /dev/sdb rw",
        f"3 1 8:3 / {escaped} rw - btrfs /dev/sdc rw",
        f"4 1 8:4 / {escaped}c rw - tmpfs none rw",
    ]
    put(tmp_path, proc__self__mountinfo="\n".join(lines))
    assert facts.filesystem_of(tmp_path, tmp_path) == "ext4"
    assert facts.filesystem_of(inner, tmp_path) == "btrfs"
    assert facts.filesystem_of(inner, tmp_path / "nothing") == "unknown"


def test_a_mount_point_may_have_any_letters(tmp_path: Path) -> None:
    place = tmp_path / "größe der platte"
    place.mkdir()
    point = str(place).replace(" ", r"\040")
    put(tmp_path, proc__self__mountinfo=f"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / {point} rw - xfs /dev/b rw")
    assert facts.filesystem_of(place, tmp_path) == "xfs"


def block_device(root: Path, name: str, *, number: str = "", **texts: str) -> Path:
    """A folder of /sys/block, by its number if it has one."""
    folder = root / "sys/block" / name
    put(folder, size="2048\n", **texts)
    if number:
        link = root / "sys/dev/block" / number
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder)
    return folder


@pytest.fixture
def number(tmp_path: Path) -> str:
    device = tmp_path.stat().st_dev
    return f"{os.major(device)}:{os.minor(device)}"


def test_of_a_partition_the_disk_is_told(tmp_path: Path, number: str) -> None:
    block_device(tmp_path, "nvme0n1", device__model="A Disk 1TB  \n", queue__rotational="0\n")
    block_device(tmp_path, "nvme0n1/nvme0n1p2", number=number, partition="2\n")
    found = facts.storage_device_of(tmp_path, tmp_path)
    assert found is not None
    assert (found.name, found.model, found.rotational) == ("nvme0n1", "A Disk 1TB", False)
    assert found.capacity_bytes == 2048 * 512
    assert found.wear == ""


def test_a_mapped_device_is_told_by_the_one_disk_below_it_and_not_if_there_are_two(tmp_path: Path, number: str) -> None:
    mapped = block_device(tmp_path, "dm-0", number=number)
    disk = block_device(tmp_path, "mmcblk0", queue__rotational="1\n", device__life_time="0x01 0x02\n")
    (mapped / "slaves").mkdir()
    (mapped / "slaves/mmcblk0").symlink_to(disk)
    found = facts.storage_device_of(tmp_path, tmp_path)
    assert found is not None
    assert (found.name, found.rotational, found.wear) == ("mmcblk0", True, "life_time 0x01 0x02")
    (mapped / "slaves/other").symlink_to(block_device(tmp_path, "other"))
    assert facts.storage_device_of(tmp_path, tmp_path) is None


def test_a_filesystem_without_a_device_has_none(tmp_path: Path) -> None:
    assert facts.storage_device_of(tmp_path, tmp_path / "nothing") is None


def test_this_machine_answers(tmp_path: Path) -> None:
    assert facts.cpu_model()
    assert facts.usable_cores() >= 1
    assert facts.memory_bytes() > 1 << 20
    assert facts.filesystem_of(tmp_path) != "unknown"
    facts.storage_device_of(tmp_path)
