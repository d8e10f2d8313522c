"""What this process and those it started have read from and written to devices, as Linux counts it."""

import os
import time
from collections.abc import Iterator
from pathlib import Path


class TreeIo:
    """Counts of this process and its living descendants. Pages from the page cache do not count as read."""

    def read_bytes(self) -> int:
        return self._sum("read_bytes")

    def written_bytes(self) -> int:
        return self._sum("write_bytes")

    def wait_for_writes(self, *, quiet_s: float, timeout_s: float) -> bool:
        """Wait until nothing was written for `quiet_s`. Returns False at `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        written, since = self.written_bytes(), time.monotonic()
        while time.monotonic() < deadline:
            time.sleep(quiet_s / 8)
            now = self.written_bytes()
            if now != written:
                written, since = now, time.monotonic()
            elif time.monotonic() - since >= quiet_s:
                return True
        return False

    def _sum(self, name: str) -> int:
        return sum(_count(pid, name) for pid in _tree(os.getpid()))


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (task / "children").read_text()
        except OSError:  # the thread has ended
            continue
        for child in children.split():
            yield from _tree(int(child))


def _count(pid: int, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:  # the process has ended
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
