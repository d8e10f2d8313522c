"""Collector: a running cache, asked twice through its status socket, and what /proc says of its process."""

import os
import re
import time
from contextlib import suppress
from pathlib import Path

from tiercel.errors import StatusError
from tiercel.telemetry.status import SOCKET_NAME, read_status, runtime_directory
from tiercel.tune.doctor.facts import ProcessFacts

INTERVAL_S = 1.0
"""Between the two looks at a process."""
ANSWER_TIMEOUT_S = 1.5
"""Longest wait for each step of an answer."""
_BLOCK_FILE = re.compile(r"data-\d+\.bin")


def sockets(pid: int | None = None, runtime: Path | None = None) -> list[Path]:
    """List the status sockets of this user's caches by name, without touching what they lead to.

    Args:
        pid: of one process only; it may serve several caches.
        runtime: directory of the sockets; by default the user's.
    """
    pattern = re.compile(r"\d+(-\d+)?\.sock" if pid is None else rf"{pid}(-\d+)?\.sock")
    directory = runtime_directory() if runtime is None else runtime
    try:
        with os.scandir(directory) as entries:
            return sorted(directory / entry.name for entry in entries if pattern.fullmatch(entry.name))
    except FileNotFoundError:
        return []


def pid_of(socket: Path) -> int:
    """Return the process that a socket by pid is named after, 0 for another name."""
    digits = socket.stem.partition("-")[0]
    return int(digits) if digits.isdecimal() else 0


def collect_process(pid: int, socket: Path | None) -> ProcessFacts:
    """Ask a running cache twice. Blocks for the interval between the two, and longer with a process that hangs.

    Args:
        pid: the process.
        socket: where its cache answers; None if no socket bears its name.
    """
    state = _state(pid)
    if socket is None:
        return ProcessFacts(pid=pid, state=state, problem=_without_socket(pid, state))
    try:
        first = read_status(socket, timeout_s=ANSWER_TIMEOUT_S)
        started = time.monotonic()
        time.sleep(INTERVAL_S)
        second = read_status(socket, timeout_s=ANSWER_TIMEOUT_S)
    except StatusError as failure:
        reasons = {"T": "the process is stopped: kill -CONT lets it go on", "": "there is no such process any more"}
        reason = f"; {reasons[state.upper()]}" if state.upper() in reasons else ""
        return ProcessFacts(pid=pid, state=state, problem=f"{failure}{reason}")
    pid = second.pid
    return ProcessFacts(
        pid=pid,
        state=_state(pid),
        first=first,
        second=second,
        interval_s=time.monotonic() - started,
        directories=_cache_directories(pid, socket),
        open_files=_open_files(pid),
        open_files_max=_open_files_max(pid),
    )


def _without_socket(pid: int, state: str) -> str:
    if not state:
        return "there is no such process"
    try:
        owner = Path("/proc", str(pid)).stat().st_uid
    except OSError:
        return "the process has just ended"
    if owner != os.getuid():
        return f"it belongs to user {owner}, and only that user can ask it"
    return "it runs, but no cache in it serves a status socket"


def _state(pid: int) -> str:
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return line.rpartition(")")[2].split()[0]


def _cache_directories(pid: int, socket: Path) -> tuple[str, ...]:
    """Tell a cache's directories by the block files that its process has open, and by where its socket lies.

    Block files of another cache in the same process, whose folders bear another name, are left out.
    """
    target = socket.resolve()
    if target.name != SOCKET_NAME or not (target.parent / "manifest.json").exists():
        return ()
    folders = {target.parent}
    with suppress(OSError):  # another user's process: its socket is all there is
        for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - names only, nothing is followed
            with suppress(FileNotFoundError):  # closed meanwhile
                file = Path(os.readlink(f"/proc/{pid}/fd/{name}"))  # noqa: PTH115 - a name, which is not looked up
                if file.parent.name == target.parent.name and _BLOCK_FILE.fullmatch(file.name):
                    folders.add(file.parent)
    return tuple(sorted(str(folder.parent) for folder in folders))


def _open_files(pid: int) -> int | None:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - names only, nothing is followed
    except OSError:
        return None


def _open_files_max(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/limits").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = next((line.split()[3] for line in lines if line.startswith("Max open files")), "")
    return int(found) if found.isdecimal() else None
