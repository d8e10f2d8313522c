"""Collector: the machine, its kernel's settings and the limits of a process started as this one was."""

import ctypes
import errno
import mmap
import os
import platform
import resource
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tiercel.config.resources import probe_memory
from tiercel.tiers.build import has_io_uring, processor_features
from tiercel.tune.doctor.facts import SystemFacts

_IO_URING_SETUP = 425  # the same number on every architecture
_IO_URING_PARAMS_BYTES = 120
_T = TypeVar("_T")

_CAP_IPC_LOCK = 14


def collect_system(root: Path = Path("/")) -> SystemFacts:
    """Look at the machine. Makes nothing that outlives the call.

    Args:
        root: where /proc, /sys and /dev are looked for.
    """
    memory = probe_memory(root)
    allowed = expand_list(_field(root / "proc/self/status", "Mems_allowed_list")) & _with_memory(root)
    huge_pages = root / "sys/kernel/mm/hugepages/hugepages-2048kB"
    huge_choices = root / "sys/kernel/mm/transparent_hugepage"
    return SystemFacts(
        kernel=platform.release(),
        num_cores=len(os.sched_getaffinity(0)),
        cpu_quota_cores=cpu_quota(root),
        numa_nodes=len(_with_memory(root)),
        numa_nodes_allowed=len(_bound_nodes(root) or allowed) or 1,
        memory_bytes=memory.available_bytes,
        memory_limited_by=memory.limited_by,
        io_uring_built=has_io_uring(),
        io_uring_error=_io_uring_error(),
        io_uring_disabled=_number(root / "proc/sys/kernel/io_uring_disabled"),
        processor_features=processor_features(),
        private_huge_pages=chosen(_text(huge_choices / "enabled")),
        shared_huge_pages=chosen(_text(huge_choices / "shmem_enabled")),
        huge_pages_free=_number(huge_pages / "free_hugepages") or 0,
        memlock_bytes=_soft_limit(resource.RLIMIT_MEMLOCK),
        memlock_applies=not int(_field(root / "proc/self/status", "CapEff") or "0", 16) >> _CAP_IPC_LOCK & 1,
        open_files=_soft_limit(resource.RLIMIT_NOFILE),
        address_space_bytes=_soft_limit(resource.RLIMIT_AS),
        memfd_error=_memfd_error(),
        shm_bytes=_size_of(root / "dev/shm"),
        num_gpus=len(list((root / "dev").glob("nvidia[0-9]*"))),
        cuda_driver_error=_cuda_driver_error(),
    )


def cpu_quota(root: Path) -> float | None:
    """Return how many cores the control groups around this process give it, None if they give all."""
    quotas: list[float] = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, inner = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        group = mount / inner.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(mount) and (quota := _quota_of(folder)) is not None:
                quotas.append(quota)
    return min(quotas, default=None)


def _quota_of(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    if not quota:
        quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    if not quota.isdecimal() or not period.strip().isdecimal():  # "max", -1, or no such file
        return None
    return int(quota) / int(period)


def chosen(line: str) -> str:
    """Return the word in brackets of a kernel setting such as "always [advise] never", "" if there is none."""
    return line.partition("[")[2].partition("]")[0]


def expand_list(text: str) -> set[int]:
    """Return the numbers of a kernel's list such as "0-3,8"."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdecimal():
            numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def _with_memory(root: Path) -> set[int]:
    return expand_list(_text(root / "sys/devices/system/node/has_memory")) or {0}


def _bound_nodes(root: Path) -> set[int]:
    """Return the nodes that numactl bound this process's memory to, none if it did not: only its mappings tell."""
    policies = (line.split()[1] for line in _text(root / "proc/self/numa_maps").splitlines() if " " in line)
    return expand_list(next(policies, "").removeprefix("bind:"))


def _io_uring_error() -> str:
    """Ask the kernel for the smallest ring; return how it refuses, or ""."""
    libc = ctypes.CDLL(None, use_errno=True)
    parameters = (ctypes.c_uint8 * _IO_URING_PARAMS_BYTES)()
    ring: int = libc.syscall(ctypes.c_long(_IO_URING_SETUP), ctypes.c_uint(1), parameters)
    if ring < 0:
        code = ctypes.get_errno()
        return f"{errno.errorcode.get(code, str(code))}, {os.strerror(code).lower()}"
    os.close(ring)
    return ""


def _memfd_error() -> str:
    try:
        descriptor = os.memfd_create("tiercel-doctor")
    except OSError as failure:
        return failure.strerror or str(failure)
    try:
        os.ftruncate(descriptor, mmap.PAGESIZE)
        mmap.mmap(descriptor, mmap.PAGESIZE).close()
    except OSError as failure:
        return failure.strerror or str(failure)
    finally:
        os.close(descriptor)
    return ""


def _cuda_driver_error() -> str:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as failure:
        return str(failure)
    return ""


def _soft_limit(kind: int) -> int | None:
    soft = resource.getrlimit(kind)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def _size_of(path: Path) -> int | None:
    return _or_none(lambda: os.statvfs(path).f_blocks * os.statvfs(path).f_frsize)


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    """Return a file's text, "" if the kernel has no such file or does not show it."""
    return _or_none(lambda: path.read_text(encoding="utf-8", errors="replace").strip()) or ""


def _field(path: Path, name: str) -> str:
    lines = (line.partition(":") for line in _text(path).splitlines())
    return next((value.strip() for key, _, value in lines if key == name), "")


def _or_none(ask: Callable[[], _T]) -> _T | None:
    try:
        return ask()
    except OSError:  # what the kernel does not tell is not known, and no check needs it
        return None
