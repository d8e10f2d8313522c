"""Collector: a cache directory, the filesystem below it and the disk below that.

Whether files can be made, and with O_DIRECT, is tried with a file that never has a name (O_TMPFILE): nothing is changed.
Everything here may hang with a mount that does not answer, so it runs in a process that can be left behind.
"""

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from tiercel.config.mounts import mount_of
from tiercel.telemetry.status import SOCKET_NAME
from tiercel.tiers.inspect import FolderReport, inspect_directory
from tiercel.tune.doctor.facts import DirectoryFacts, FolderFacts

_NO_UNNAMED_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT)
"""How filesystems without O_TMPFILE refuse it."""
_PAGE_BYTES = 4096


def collect_directory(path: Path) -> Iterator[DirectoryFacts]:
    """Yield what can be seen at once, then the same with what lies in the directory, for which journals are read."""
    place = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would hide a link that leads nowhere
    try:
        existing = next(folder for folder in (place, *place.parents) if _is_there(folder))
        if not existing.is_dir():
            yield DirectoryFacts(path=str(place), problem=f"{existing} is no directory")
            return
        facts = _see(place, existing)
        yield facts
        if facts.exists:
            yield replace(facts, is_complete=True, folders=tuple(map(_see_folder, inspect_directory(place))))
    except OSError as failure:
        yield DirectoryFacts(path=str(place), problem=f"cannot be looked at: {failure.strerror or failure}")


def _is_there(path: Path) -> bool:
    """Say whether something lies there. Raises OSError if that may not be asked."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _see(place: Path, existing: Path) -> DirectoryFacts:
    found, space = existing.stat(), os.statvfs(existing)
    mount_point, filesystem, source, options = mount_of(existing.resolve(), Path("/proc/self/mountinfo").read_text())
    exists = existing == place
    rotational, scheduler, read_ahead_kib = disk_below(found.st_dev)
    return DirectoryFacts(
        path=str(place),
        exists=exists,
        is_complete=not exists,
        write_error=_write_error(existing),
        direct_io_error=_direct_io_error(existing),
        filesystem=filesystem,
        mount_point=mount_point,
        options=options,
        source=source,
        device=found.st_dev,
        free_bytes=space.f_bavail * space.f_frsize,
        total_bytes=space.f_blocks * space.f_frsize,
        free_inodes=space.f_favail,
        total_inodes=space.f_files,
        rotational=rotational,
        scheduler=scheduler,
        read_ahead_kib=read_ahead_kib,
    )


def _unnamed_file(folder: Path, flags: int) -> int:
    """Open a new file that has no name and never gets one. Raises OSError."""
    return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC | flags, 0o600)


def _write_error(folder: Path) -> str:
    try:
        os.close(_unnamed_file(folder, 0))
    except OSError as failure:
        if failure.errno not in _NO_UNNAMED_FILES:
            return (failure.strerror or str(failure)).lower()
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            return "read-only file system"
        return "" if os.access(folder, os.W_OK | os.X_OK) else "permission denied"
    return ""


def _direct_io_error(folder: Path) -> str | None:
    """Return how O_DIRECT is refused, "" if it is not, None if that cannot be tried: nothing may be opened at all."""
    data = [*folder.glob("data-*.bin"), *folder.glob("tiercel-v*/data-*.bin")]
    attempts: list[Callable[[], int]] = [lambda: _unnamed_file(folder, os.O_DIRECT)]
    attempts += [partial(os.open, path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC) for path in sorted(data)[:1]]
    for attempt in attempts:
        try:
            descriptor = attempt()
        except OSError as failure:
            if failure.errno == errno.EINVAL:
                return (failure.strerror or str(failure)).lower()
            continue
        try:
            return _direct_read_error(descriptor)
        finally:
            os.close(descriptor)
    return None


def _direct_read_error(descriptor: int) -> str:
    """Read a page, or nothing of an empty file, past the page cache; return how that is refused, or ""."""
    try:
        with mmap.mmap(-1, _PAGE_BYTES) as page:
            os.preadv(descriptor, [page], 0)
    except OSError as failure:
        return (failure.strerror or str(failure)).lower()
    return ""


def disk_below(device: int, root: Path = Path("/")) -> tuple[bool | None, str, int | None]:
    """Return whether a block device is rotational, its scheduler and its read-ahead in KiB, as far as the kernel says."""
    node = (root / f"sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    queue = next((folder / "queue" for folder in (node, node.parent) if (folder / "queue").is_dir()), None)
    if queue is None:
        return None, "", None
    rotational = (queue / "rotational").read_text().strip()
    scheduler = (queue / "scheduler").read_text().strip()
    read_ahead = (queue / "read_ahead_kb").read_text().strip()
    return rotational == "1", scheduler.partition("[")[2].partition("]")[0] or scheduler, int(read_ahead)


def _see_folder(report: FolderReport) -> FolderFacts:
    folder = Path(report.path)
    try:
        journal_bytes = sum(path.stat().st_size for path in folder.glob("journal-*.log"))
        was_killed = not report.holder and (folder / SOCKET_NAME).is_socket()
    except OSError:  # the report names the problem already
        return FolderFacts(report=report)
    return FolderFacts(report=report, journal_bytes=journal_bytes, was_killed=was_killed)
