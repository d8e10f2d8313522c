"""Whether this machine has the memory and the disk space that settings ask for, looked at before anything is allocated.

`probe_memory` and `probe_disk` ask the operating system; `require_fit` compares; `check_resources` does both.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tiercel.config.cache import CacheConfig
from tiercel.config.model import ModelConfig
from tiercel.config.mounts import memory_place
from tiercel.config.resolved import DeviceRoom, ResolvedConfig, Room
from tiercel.config.sizes import format_bytes
from tiercel.errors import ConfigError

SET_FOLDER_GLOB = "tiercel-v*-{}"
"""Folders of the disk tier in a cache directory, by the first 16 hex digits of their fingerprint."""


@dataclass(frozen=True, kw_only=True)
class MemoryProbe:
    """Host memory that can still be taken, and what limits it."""

    available_bytes: int
    limited_by: str


@dataclass(frozen=True, kw_only=True)
class DiskProbe:
    """Disk space that one directory's files can take, what they hold already included.

    Attributes:
        directory: the directory, which need not exist yet.
        device: number of its file system; directories of one device share the free space.
        free_bytes: free to an unprivileged process.
        own_bytes: already held by the disk tier's files there.
    """

    directory: Path
    device: int
    free_bytes: int
    own_bytes: int


def check_resources(model: ModelConfig, config: CacheConfig, *, fingerprint: bytes | None = None) -> ResolvedConfig:
    """Return the settings in numbers if this machine can hold them.

    Blocks for a few file reads; creates nothing.

    Args:
        model: the model.
        config: the settings.
        fingerprint: of the blocks to be stored; what the disk tier's files of this fingerprint hold already counts as
            room. Without it, what its files of any fingerprint hold.

    Raises:
        ConfigError: memory or disk space does not suffice; the message names a capacity that fits.
    """
    memory = probe_host_memory(config)
    disks = [probe_disk(path, fingerprint) for path in config.ssd_cache_dirs] if config.enable_ssd else []
    resolved = config.resolve(model, room_of(memory, disks))
    require_fit(resolved, memory, disks)
    return resolved


def room_of(memory: MemoryProbe, disks: Sequence[DiskProbe]) -> Room:
    """Return what shares such as "80%" are taken of.

    Args:
        memory: the host's memory.
        disks: one per directory of the disk tier, in order.
    """
    devices = []
    for device in dict.fromkeys(disk.device for disk in disks):
        shared = [disk for disk in disks if disk.device == device]
        own_bytes = sum(disk.own_bytes for disk in shared)  # counted, or a restart would find less room than was there
        devices.append(
            DeviceRoom(num_dirs=len(shared), num_bytes=shared[0].free_bytes + own_bytes, has_journal=disks[0] in shared)
        )
    return Room(memory_bytes=memory.available_bytes, memory_text=memory.limited_by, devices=devices)


def probe_room(config: CacheConfig) -> Room:
    """Return what this machine has for the tiers of some settings. Blocks for a few file reads.

    Raises:
        ConfigError: a directory cannot be looked at.
    """
    disks = [probe_disk(path) for path in config.ssd_cache_dirs] if config.enable_ssd else []
    return room_of(probe_host_memory(config), disks)


def require_fit(resolved: ResolvedConfig, memory: MemoryProbe, disks: Sequence[DiskProbe]) -> None:
    """Compare what settings take with what there is.

    Args:
        resolved: the settings in numbers.
        memory: the host's memory.
        disks: one per directory of the disk tier, in order.

    Raises:
        ConfigError: something does not fit.
    """
    if resolved.host_bytes > memory.available_bytes:
        there = f"{format_bytes(memory.available_bytes)} are available ({memory.limited_by})"
        fitting = memory.available_bytes * 9 // 10 // resolved.slot_bytes
        raise _too_large("num_cpu_blocks", resolved, resolved.host_bytes, there, fitting)
    for device in dict.fromkeys(disk.device for disk in disks):
        shared = [disk for disk in disks if disk.device == device]
        has_journal = disks[0] in shared
        journal_bytes = resolved.journal_bytes if has_journal else 0
        fixed_bytes = 2 * resolved.journal_checkpoint_bytes if has_journal else 0
        needed = resolved.directory_bytes * len(shared) + journal_bytes
        room = shared[0].free_bytes + sum(disk.own_bytes for disk in shared)
        if needed > room:
            names = ", ".join(str(disk.directory) for disk in shared)
            per_block = (needed - fixed_bytes) / resolved.num_ssd_blocks
            fitting = int((room * 0.95 - fixed_bytes) / per_block)
            there = f"{format_bytes(room)} are there (free space and our own files in {names})"
            raise _too_large("num_ssd_blocks", resolved, needed, there, fitting, fixed_bytes)


def _too_large(
    key: str, resolved: ResolvedConfig, needed: int, there: str, fitting: int, fixed_bytes: int = 0
) -> ConfigError:
    value = getattr(resolved.config, key)
    journal = f", lower journal_checkpoint_bytes (the journal takes {format_bytes(fixed_bytes)} beside the blocks)"
    remedy = (
        f'set {key} to {fitting} or "{fitting * resolved.slot_bytes // 2**20}MiB", or less'
        if fitting * resolved.slot_bytes >= 2**20
        else f"less than 1 MiB would fit; free some{journal if fixed_bytes else ''}, or turn the tier off"
    )
    return ConfigError(f"{key} = {value!r}: takes {format_bytes(needed)}, and {there}; {remedy}")


def probe_disk(directory: Path, fingerprint: bytes | None = None) -> DiskProbe:
    """Return the disk space of a directory, or of the nearest parent that exists.

    Raises:
        ConfigError: the place cannot be looked at.
    """
    try:
        existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
        space = os.statvfs(existing)
        if existing.is_dir() and not os.access(existing, os.W_OK | os.X_OK):
            read_only = ", which is on a file system mounted read-only" if space.f_flag & os.ST_RDONLY else ""
            raise _unusable(directory, f"{existing} may not be written to{read_only}")
        if not space.f_blocks:
            raise _unusable(directory, f"the file system at {existing} has no room for files")
        folders = SET_FOLDER_GLOB.format("*" if fingerprint is None else fingerprint.hex()[:16])
        own = [path.stat() for path in directory.glob(f"{folders}/*")]
        return DiskProbe(
            directory=directory,
            device=existing.stat().st_dev,
            free_bytes=space.f_bavail * space.f_frsize,
            own_bytes=sum(found.st_blocks * 512 for found in own),
        )
    except OSError as error:
        raise _unusable(directory, str(error.strerror)) from error


def _unusable(directory: Path, reason: str) -> ConfigError:
    return ConfigError(f"ssd_cache_dir = {str(directory)!r}: {reason}; name a directory of yours")


def probe_host_memory(config: CacheConfig) -> MemoryProbe:
    """Return the memory that a cache's host tier can take: what this process can still take, or less where `cpu_arena_dir` has
    less. What the arena there takes already is counted, or a restart would find less room than was there.

    Raises:
        ConfigError: the directory is not on a tmpfs, or cannot be looked at.
    """
    memory = probe_memory()
    if config.arena_directory is None:
        return memory
    place = memory_place("cpu_arena_dir", config.arena_directory)
    probes = (
        MemoryProbe(available_bytes=memory.available_bytes + place.own_bytes, limited_by=memory.limited_by),
        MemoryProbe(
            available_bytes=place.free_bytes + place.own_bytes, limited_by=f"the size of the tmpfs of {place.directory}"
        ),
    )
    return min(probes, key=lambda probe: probe.available_bytes)


def probe_memory(root: Path = Path("/")) -> MemoryProbe:
    """Return the memory that this process can still take: the machine's, or less where a control group limits it.

    Args:
        root: where /proc and /sys are looked for.
    """
    probes = [MemoryProbe(available_bytes=_meminfo_available(root), limited_by="MemAvailable of the machine")]
    probes += _cgroup_probes(root)
    return min(probes, key=lambda probe: probe.available_bytes)


def _meminfo_available(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    raise ConfigError(
        "num_cpu_blocks: /proc/meminfo does not say MemAvailable; this kernel is too old, use Linux 3.14 or newer"
    )


def _cgroup_probes(root: Path) -> list[MemoryProbe]:
    """Return what each control group around this process still allows, version 2 and version 1."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except FileNotFoundError:  # a kernel without control groups limits nothing
        return []
    probes = []
    for line in lines:
        _, controllers, inner = line.split(":", 2)
        if controllers == "":
            mount, files = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mount = root / "sys/fs/cgroup/memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = mount / inner.lstrip("/")
        # Inside a container the path named may lie outside what is mounted; the mount's root is then our own group.
        for folder in (group, *group.parents):
            if folder.is_relative_to(mount) and (probe := _cgroup_probe(folder, *files)) is not None:
                probes.append(probe)
    return probes


def _cgroup_probe(folder: Path, limit_name: str, usage_name: str, cache_name: str) -> MemoryProbe | None:
    try:
        limit = (folder / limit_name).read_text().strip()
        if limit == "max":
            return None
        usage = int((folder / usage_name).read_text())
        stat = (folder / "memory.stat").read_text()
    except FileNotFoundError:  # not a group with a memory limit
        return None
    reclaimable = next((int(line.split()[1]) for line in stat.splitlines() if line.split()[0] == cache_name), 0)
    return MemoryProbe(
        available_bytes=max(0, int(limit) - usage + reclaimable), limited_by=f"{folder / limit_name} = {limit}"
    )
