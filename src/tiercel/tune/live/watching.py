"""Which cache is watched, and what becomes of that when its process goes away. Every wait is bounded by the status socket's.

| the process | what is told | what is tried |
|---|---|---|
| answers | its history | - |
| does not answer in time | the last answer, and for how long there was none | again at the next look |
| is gone | the same | its socket, and any cache of the same model that has come instead |
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tiercel.errors import StatusError
from tiercel.telemetry.snapshot import StatusSnapshot
from tiercel.telemetry.status import find_running, read_status, runtime_directory
from tiercel.tune.live.history import History

_READ_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a cache found.

    Attributes:
        history: of the process that answered last; empty before the first answer.
        silent_s: time since the last answer; 0 if it answered just now.
        reason: why it did not answer.
        number: of this cache among `count` running ones, from 1.
    """

    history: History
    silent_s: float = 0.0
    reason: str | None = None
    number: int = 1
    count: int = 1


class Watcher:
    """Follows one cache of this user at a time, across restarts of its process.

    Args:
        pid: of the cache's process; None takes the first running cache.
        runtime: directory of the sockets found by pid; by default that of this user.
        clock: monotonic seconds.
    """

    def __init__(
        self, pid: int | None = None, *, runtime: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._runtime = runtime_directory() if runtime is None else runtime
        self._clock = clock
        self._history = History()
        self._answered_at = clock()
        self._pid = pid
        self._target = None if pid is None else _followed(self._runtime / f"{pid}.sock")

    def look(self) -> Look:
        """Ask the cache once. Blocks for a few seconds at most, if a process does not answer."""
        reason: str | None = None
        if self._target is not None:
            try:
                return self._answered(read_status(self._target, timeout_s=_READ_TIMEOUT_S))
            except StatusError as error:
                reason = str(error)
        for path, snapshot in self._running().items():
            if self._is_heir(snapshot):
                self._target = path
                return self._answered(snapshot)
        return Look(self._history, self._clock() - self._answered_at, reason or "no cache of this user is running")

    def next(self) -> None:
        """Follow the next running cache from now on, if there is another one."""
        running = list(self._running())
        if running:
            place = running.index(self._target) + 1 if self._target in running else 0
            self._target = running[place % len(running)]
            self._history = History()
            self._answered_at = self._clock()

    def _answered(self, snapshot: StatusSnapshot) -> Look:
        self._history.add(snapshot)
        self._answered_at = self._clock()
        sockets = sorted({path.resolve() for path in self._runtime.glob("*.sock")})
        assert self._target is not None, "somebody answered"
        here = self._target.resolve()
        number = sockets.index(here) + 1 if here in sockets else 1
        return Look(self._history, number=number, count=max(1, len(sockets)))

    def _running(self) -> dict[Path, StatusSnapshot]:
        found = find_running(self._runtime, timeout_s=_READ_TIMEOUT_S)
        return {path.resolve(): snapshot for path, snapshot in found.items()}

    def _is_heir(self, snapshot: StatusSnapshot) -> bool:
        """Whether a cache may be shown in the place of the one that does not answer: it is younger, by time that nobody sets."""
        last = self._history.latest
        if last is None:
            return self._pid is None
        age_s = last.uptime_s + self._clock() - self._answered_at
        return snapshot.fingerprint == last.fingerprint and snapshot.uptime_s < age_s


def _followed(path: Path) -> Path:
    """Where a link leads: it goes with its process, and the socket of a disk tier's directory comes again."""
    return path.resolve() if path.is_symlink() else path
