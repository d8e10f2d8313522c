"""Which processes have a file open or mapped: whom the start of a cache waits for, named. Used by `arena_directory`."""

import os
from contextlib import suppress
from pathlib import Path

_USERS_MAX = 16


def users_of(fd: int) -> list[tuple[int, str]]:
    """Return (id, name) of other processes that have a file mapped or open, as far as this user may know: 16 at most.

    Reads what /proc tells of each process, which takes milliseconds; none of what it finds need still be so.
    """
    found = os.fstat(fd)
    mapped = f" {os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x} {found.st_ino} "
    users: list[tuple[int, str]] = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdecimal() or int(directory.name) == os.getpid() or len(users) == _USERS_MAX:
            continue
        with suppress(OSError):  # it has ended, or is another user's
            if mapped in (directory / "maps").read_text(errors="replace") or _opened(directory, found):
                users.append((int(directory.name), (directory / "comm").read_text(errors="replace").strip()))
    return sorted(users)


def _opened(directory: Path, wanted: os.stat_result) -> bool:
    for opened in (directory / "fd").iterdir():
        with suppress(OSError):  # it was closed meanwhile
            if os.path.samestat(opened.stat(), wanted):
                return True
    return False
