"""Which filesystem a path lies on, and whether that is memory."""

import os
from dataclasses import dataclass
from pathlib import Path

from tiercel.config.messages import problem

ARENA_NAME = "arena"
"""The host tier's memory in `cpu_arena_dir`."""

_MOUNTINFO = Path("/proc/self/mountinfo")


@dataclass(frozen=True, kw_only=True)
class MemoryPlace:
    """A place on a filesystem that is memory.

    Attributes:
        directory: what was asked for; it need not exist yet.
        free_bytes: what the filesystem can still take.
        own_bytes: what the arena there takes already.
        gives_huge_pages: whether the mount gives huge pages to those that ask.
    """

    directory: Path
    free_bytes: int
    own_bytes: int
    gives_huge_pages: bool


def memory_place(key: str, directory: Path) -> MemoryPlace:
    """Look at the directory that a setting names, or at the nearest parent that exists.

    Args:
        key: the setting.
        directory: where memory is to be kept.

    Raises:
        ConfigError: it is not on a tmpfs, or cannot be looked at.
    """
    try:
        existing = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
        _, filesystem, _, options = mount_of(existing.resolve(), _MOUNTINFO.read_text())
        space = os.statvfs(existing)
        own = directory / ARENA_NAME
        own_bytes = own.stat().st_blocks * 512 if own.exists() else 0
    except OSError as error:
        raise problem(
            key, str(directory), f"cannot be looked at ({error.strerror})", "name a directory of yours"
        ) from error
    if filesystem != "tmpfs":
        rule = f"must be on a tmpfs, and is on {filesystem or 'an unknown filesystem'}, which is no memory"
        raise problem(key, str(directory), rule, "name a directory below /dev/shm")
    return MemoryPlace(
        directory=directory,
        free_bytes=space.f_bavail * space.f_frsize,
        own_bytes=own_bytes,
        gives_huge_pages=any(option in ("huge=always", "huge=within_size", "huge=advise") for option in options),
    )


def mount_of(path: Path, mountinfo: str) -> tuple[str, str, str, tuple[str, ...]]:
    """Return mount point, filesystem, source and options of the mount that a path lies on.

    Args:
        path: absolute, without links.
        mountinfo: the text of /proc/self/mountinfo.
    """
    best = ("", "", "", ())  # type: tuple[str, str, str, tuple[str, ...]]
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, behind = before.split(" "), after.split(" ")
        point = _unescaped(fields[4])
        if path.is_relative_to(point) and len(point) >= len(best[0]):  # of two at one place the later one is seen
            options = dict.fromkeys((*fields[5].split(","), *behind[2].split(",")))
            best = (point, behind[0], _unescaped(behind[1]), tuple(options))
    return best


def _unescaped(text: str) -> str:
    for code, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, plain)
    return text
