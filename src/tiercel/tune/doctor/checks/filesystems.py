"""Checks: what lies below cache directories: filesystem, mount options, disk."""

from collections import defaultdict
from collections.abc import Iterator

from tiercel.tune.doctor.check import Seen, advice, check, fine, warning
from tiercel.tune.doctor.facts import DirectoryFacts, Facts
from tiercel.tune.doctor.findings import Group

_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "lustre", "glusterfs", "afs", "gpfs", "beegfs"}
)
_NETWORK_PREFIXES = ("fuse.", "virtiofs")
_MEMORY = frozenset({"tmpfs", "ramfs"})
_GOOD = frozenset({"ext4", "xfs"})
_VIRTUAL_DISKS = ("/dev/vd", "/dev/xvd")
_KINDS = {
    "memory": "its blocks take memory, as the host tier's would, and are gone after a restart of the machine",
    "network": "its latency and bandwidth are the network's, its locks may not hold across machines",
    "overlay": "it is a container's own layer: blocks are gone with the container, and the first writes copy files",
}


def _kind(directory: DirectoryFacts) -> str:
    name = directory.filesystem
    if name in _MEMORY:
        return "memory"
    if name in _NETWORK or name.startswith(_NETWORK_PREFIXES):
        return "network"
    return "overlay" if name in ("overlay", "aufs") else ""


@check(
    Group.FILESYSTEMS,
    why="The disk tier wants allocation ahead, O_DIRECT and a disk's own speed; ext4 and XFS on a local disk have all three.",
    remedy="put ssd_cache_dir on ext4 or XFS on a local disk; in a container on a volume",
)
def filesystem(facts: Facts) -> Iterator[Seen]:
    """The filesystem of each cache directory: a warning for one in memory, over the network or of a container's own layer,
    advice for those that are neither ext4 nor XFS."""
    for directory in facts.readable_directories:
        name, kind = directory.filesystem, _kind(directory)
        if kind:
            yield warning(directory.path, f"lies on {name} (mounted at {directory.mount_point}): {_KINDS[kind]}")
        elif name in _GOOD:
            yield fine(directory.path, f"{name} on {directory.source}")
        elif name:
            yield advice(directory.path, f"lies on {name}, which copies on write or was never measured with Tiercel")


@check(
    Group.FILESYSTEMS,
    why="Writes that wait for each sync cost the stores their bandwidth; discarding at every free makes the disk stall.",
    remedy="mount without sync, dirsync and data=journal; instead of discard run fstrim once a week (fstrim.timer)",
)
def mount_options(facts: Facts) -> Iterator[Seen]:
    """Mount options that cost: `sync`, `dirsync` and `data=journal` are warnings, continuous `discard` is advice."""
    for directory in facts.readable_directories:
        slow = [name for name in directory.options if name in ("sync", "dirsync", "data=journal")]
        discards = [name for name in directory.options if name == "discard"]
        if slow:
            yield warning(directory.path, f"{directory.mount_point} is mounted with {', '.join(slow)}")
        elif discards:
            yield advice(directory.path, f"{directory.mount_point} is mounted with discard")
        elif directory.options:
            yield fine(directory.path, "no mount option that slows it")


@check(
    Group.FILESYSTEMS,
    why="Blocks are striped over directories so that disks work side by side; on one filesystem that only makes more seams.",
    remedy="name one directory for each disk in ssd_cache_dir, and only one on each (a new set starts empty)",
)
def striping(facts: Facts) -> Iterator[Seen]:
    """Whether several directories of the settings lie on one filesystem."""
    if facts.settings is None or len(facts.settings.directories) < 2:
        return
    devices: dict[int, list[str]] = defaultdict(list)
    for directory in facts.readable_directories:
        if directory.path in facts.settings.directories:
            devices[directory.device].append(directory.path)
    for paths in devices.values():
        if len(paths) > 1:
            yield warning(paths[0], f"shares its filesystem with {', '.join(paths[1:])}")
    if devices and all(len(paths) == 1 for paths in devices.values()):
        yield fine(next(iter(devices.values()))[0], f"{len(devices)} directories on {len(devices)} filesystems")


@check(
    Group.FILESYSTEMS,
    why="A disk that turns reads scattered blocks at a hundredth of an SSD's rate: most loads lose against recompute.",
    remedy="put ssd_cache_dir on an SSD, or turn the disk tier off; load_policy: auto keeps it from doing harm",
)
def rotating_disk(facts: Facts) -> Iterator[Seen]:
    """Whether the disk below a cache directory says that it rotates; only advice for virtual disks, which often say so
    wrongly."""
    for directory in facts.readable_directories:
        if directory.rotational:
            tell = advice if directory.source.startswith(_VIRTUAL_DISKS) else warning
            yield tell(directory.path, f"{directory.source} says that it is a rotating disk")
        elif directory.rotational is False:
            yield fine(directory.path, f"{directory.source} is no rotating disk")


@check(
    Group.FILESYSTEMS,
    why="An NVMe disk orders requests better than the kernel does; a fair-queueing scheduler costs CPU and depth.",
    remedy="echo none > /sys/block/DISK/queue/scheduler (a udev rule keeps it)",
)
def disk_scheduler(facts: Facts) -> Iterator[Seen]:
    """Whether the disk below a cache directory is scheduled by bfq or cfq, or an NVMe disk by anything but none or
    mq-deadline."""
    for directory in facts.readable_directories:
        scheduler = directory.scheduler
        is_nvme = "nvme" in directory.source
        if scheduler in ("bfq", "cfq") or (is_nvme and scheduler not in ("", "none", "mq-deadline")):
            yield advice(directory.path, f"{directory.source} is scheduled by {scheduler}")
        elif scheduler:
            yield fine(directory.path, f"scheduled by {scheduler}")


@check(
    Group.FILESYSTEMS,
    why="Through the page cache the kernel reads ahead of each block what nobody asked for.",
    remedy="blockdev --setra 256 DEVICE (128 KiB)",
)
def read_ahead(facts: Facts) -> Iterator[Seen]:
    """Whether, where O_DIRECT is refused, the kernel reads more than 1 MiB ahead. With O_DIRECT it reads nothing ahead."""
    for directory in facts.readable_directories:
        ahead = directory.read_ahead_kib
        if ahead is not None and ahead > 1024 and directory.direct_io_error:
            yield advice(directory.path, f"{directory.source} reads {ahead} KiB ahead, through the page cache")
