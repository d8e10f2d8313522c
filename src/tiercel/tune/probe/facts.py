"""What the kernel says of a machine and its storage, without measuring: /proc, /sys and statvfs.

`root` is where /proc and /sys are looked for. What a kernel does not tell is empty or None, never a guess.
"""

import os
import platform
import re
from pathlib import Path

from tiercel.tune.machine import HugePages, StorageDevice

_ROOT = Path("/")
_SECTOR_BYTES = 512
_OCTAL = re.compile(r"\\([0-7]{3})")
"""How the kernel writes a blank or a backslash in a mount point."""


def cpu_model(root: Path = _ROOT) -> str:
    """Return the processor's name, or its architecture where the kernel gives no name."""
    for line in _text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0))


def memory_bytes() -> int:
    """Return the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def numa_nodes(root: Path = _ROOT) -> int:
    """Return how many NUMA nodes the kernel knows; 1 where it knows of none."""
    return max(1, len(list((root / "sys/devices/system/node").glob("node[0-9]*"))))


def hugepages(root: Path = _ROOT) -> HugePages | None:
    """Return the reserved huge pages, None for a kernel without any."""
    fields: dict[str, int] = {}
    for line in _text(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name in ("Hugepagesize", "HugePages_Total", "HugePages_Free"):
            fields[name] = int(value.split()[0])
    if len(fields) < 3:
        return None
    return HugePages(
        page_bytes=fields["Hugepagesize"] * 1024,
        total=fields["HugePages_Total"],
        free=fields["HugePages_Free"],
        transparent_shared=_chosen(_text(root / "sys/kernel/mm/transparent_hugepage/shmem_enabled")),
    )


def free_space_of(directory: Path) -> tuple[int, int]:
    """Return the bytes of a filesystem, and those free to this user. Raises OSError."""
    found = os.statvfs(directory)
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def filesystem_of(directory: Path, root: Path = _ROOT) -> str:
    """Return the type of the filesystem that a directory lies on, "unknown" where the kernel does not say."""
    place, best, kind = directory.resolve(), Path(), "unknown"
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        point = Path(_OCTAL.sub(lambda found: chr(int(found[1], 8)), before.split()[4]))
        if after and place.is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, kind = point, after.split()[0]  # of two at one point the later one hides the other
    return kind


def storage_device_of(directory: Path, root: Path = _ROOT) -> StorageDevice | None:
    """Return the block device under a directory: the whole disk of a partition, the one disk of a mapped device."""
    number = directory.stat().st_dev
    folder = (root / f"sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    if not folder.is_dir():
        return None
    if (folder / "partition").exists():
        folder = folder.parent
    parts = list((folder / "slaves").glob("*")) if (folder / "slaves").is_dir() else []
    if parts:
        if len(parts) > 1:
            return None
        below = parts[0].resolve()
        folder = below.parent if (below / "partition").exists() else below
    size = _text(folder / "size").strip()
    return StorageDevice(
        name=folder.name,
        model=_text(folder / "device/model").strip(),
        rotational=_text(folder / "queue/rotational").strip() == "1",
        capacity_bytes=int(size) * _SECTOR_BYTES if size else 0,
        wear=_wear(folder / "device"),
    )


def _wear(device: Path) -> str:
    """What eMMC (life_time, pre_eol_info) and UFS devices tell of their wear; others are only told to their own tools."""
    found: list[str] = []
    for name in ("life_time", "pre_eol_info", "health_descriptor/life_time_estimation_a"):
        text = _text(device / name).strip()
        if text:
            found.append(f"{name} {text}")
    return ", ".join(found)


def _chosen(text: str) -> str:
    """The word in brackets of a sysfs choice."""
    return text.partition("[")[2].partition("]")[0] or text.strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # not every kernel and device has every file
        return ""
