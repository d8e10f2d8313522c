"""The status socket: a running cache tells its state to whoever may read its files, and to nobody else.

A cache with a disk tier listens in its directory, any other in a private directory of its user; a process is found by
its pid either way. A connection gets one `StatusSnapshot` as JSON and is closed: there is no request to parse. One
small thread serves one client at a time, and no client can hold it for longer than `CLIENT_TIMEOUT_S`.

Sockets are bound and reached through `/proc/self/fd`, so that the 107 bytes that Unix allows a socket's path limit the
file's name alone.
"""

import errno
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import msgspec

from tiercel.errors import StatusError, TiercelError
from tiercel.telemetry.snapshot import StatusSnapshot

SOCKET_NAME = "status.sock"
CLIENT_TIMEOUT_S = 1.0
SNAPSHOT_BYTES_MAX = 4 << 20
_BACKLOG = 8
_CACHES_PER_PROCESS_MAX = 64

_log = logging.getLogger(__name__)


def runtime_directory() -> Path:
    """Return where this user's status sockets lie: under `/run/user` if the system has it, else under `/tmp`."""
    uid = os.getuid()
    session = Path(f"/run/user/{uid}")
    return session / "tiercel" if session.is_dir() else Path(f"/tmp/tiercel-{uid}")


class StatusServer:
    """Serves snapshots on a socket from construction to `close`.

    Args:
        snapshot: returns the cache's state now; called on the server's thread. If it raises a TiercelError, because the
            cache is closing, say, the client gets nothing and the server goes on.
        path: where to listen: `SOCKET_NAME` in the disk tier's locked directory, or what the settings name. None
            listens among the sockets found by pid; otherwise a link there leads to `path`.
        runtime: directory of the sockets found by pid; by default `runtime_directory()`.

    Raises:
        OSError: the socket cannot be made; EADDRINUSE if a live process answers at its place, EEXIST if something lies
            there that is no socket. Nothing is left, and what lay there is unchanged.
        RuntimeError: the machine has no thread left. Nothing is left.
    """

    def __init__(
        self, snapshot: Callable[[], StatusSnapshot], *, path: Path | None = None, runtime: Path | None = None
    ) -> None:
        self._snapshot = snapshot
        self._owner = os.getpid()
        runtime = runtime_directory() if runtime is None else runtime
        _make_private(runtime)
        _remove_stale(runtime)
        by_pid = _free_name(runtime, self._owner)
        self._path = by_pid if path is None else path.absolute()
        self._socket = _listen(self._path)
        self._link = None if path is None else by_pid
        self._thread = Thread(target=self._serve, name="tiercel-status", daemon=True)
        try:
            if self._link is not None:
                self._link.unlink(missing_ok=True)
                self._link.symlink_to(self._path)
            self._thread.start()
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> Path:
        """Where the socket lies."""
        return self._path

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return  # close() shut the socket down
            with client, suppress(OSError, TiercelError):
                client.settimeout(CLIENT_TIMEOUT_S)
                client.sendall(msgspec.json.encode(self._snapshot()))

    def close(self) -> None:
        """Stop serving and remove the socket. Idempotent; does nothing in a forked child."""
        if self._owner != os.getpid() or self._socket.fileno() < 0:
            return
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread.ident is not None:
            self._thread.join(CLIENT_TIMEOUT_S * 2)
        self._socket.close()
        for path in (self._path, self._link):
            try:
                if path is not None:
                    path.unlink(missing_ok=True)
            except OSError as error:  # a socket that nobody answers at harms nobody; the next start replaces it
                _log.warning("cannot remove the status socket %s: %s", path, error.strerror or error)


def read_status(target: Path | str | int, *, timeout_s: float = 2.0, runtime: Path | None = None) -> StatusSnapshot:
    """Ask a running cache for its state.

    Args:
        target: a socket, a cache directory that holds one, or a process id.
        timeout_s: longest wait for each step of the conversation.
        runtime: directory of the sockets found by pid; by default `runtime_directory()`.

    Raises:
        StatusError: nobody listens there, the answer did not come in time, or it is not one that this version reads.
    """
    if isinstance(target, int):
        path = (runtime_directory() if runtime is None else runtime) / f"{target}.sock"
    else:
        path = Path(target)
        path = path / SOCKET_NAME if path.is_dir() else path
    try:
        with _connect(path, timeout_s) as connection:
            answer = _receive(connection)
    except OSError as error:
        raise StatusError(f"no running cache answers at {path}: {error.strerror or error}") from error
    try:
        return msgspec.json.decode(answer, type=StatusSnapshot)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise StatusError(
            f"the cache at {path} answered with {len(answer)} bytes that are no status: {error}"
        ) from error


def find_running(runtime: Path | None = None, *, timeout_s: float = 2.0) -> dict[Path, StatusSnapshot]:
    """Ask every cache of this user that is found by pid; what a killed process left behind is passed over.

    Args:
        runtime: directory of the sockets; by default `runtime_directory()`.
        timeout_s: longest wait for each step of each conversation.

    Returns:
        The state of each cache that answered, by its socket.
    """
    found: dict[Path, StatusSnapshot] = {}
    for path in sorted((runtime_directory() if runtime is None else runtime).glob("*.sock")):
        with suppress(StatusError):
            found[path] = read_status(path, timeout_s=timeout_s)
    return found


def _receive(connection: socket.socket) -> bytes:
    chunks: list[bytes] = []
    num_bytes = 0
    while chunk := connection.recv(1 << 16):
        chunks.append(chunk)
        num_bytes += len(chunk)
        if num_bytes > SNAPSHOT_BYTES_MAX:
            raise OSError(errno.EMSGSIZE, f"the answer is longer than {SNAPSHOT_BYTES_MAX} bytes")
    return b"".join(chunks)


@contextmanager
def _short_name(path: Path) -> Iterator[str]:
    """Give a name for a socket's path that is short wherever the path lies."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _connect(path: Path, timeout_s: float) -> socket.socket:
    path = path.resolve()  # a link's target is limited to 107 bytes too, so the link is followed here
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        with _short_name(path) as name:
            connection.connect(name)
    except OSError:
        connection.close()
        raise
    return connection


def _answers(path: Path) -> bool:
    """Say whether a live process listens at a socket."""
    try:
        _connect(path, CLIENT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _free_name(runtime: Path, pid: int) -> Path:
    """Return the first name for this process at which nobody listens; a stale socket's name counts as free."""
    for number in range(_CACHES_PER_PROCESS_MAX):
        path = runtime / (f"{pid}.sock" if number == 0 else f"{pid}-{number}.sock")
        if not _answers(path):
            return path
    raise OSError(errno.EADDRINUSE, f"this process has {_CACHES_PER_PROCESS_MAX} status sockets already", str(runtime))


def _remove_stale(runtime: Path) -> None:
    """Remove the sockets and links of processes that were killed."""
    for path in runtime.glob("*.sock"):
        pid = path.stem.partition("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            with suppress(OSError):  # another process starting now may have removed it
                path.unlink()


def _listen(path: Path) -> socket.socket:
    """Listen at `path` with mode 0600, replacing a stale socket in one step."""
    if _answers(path):
        raise OSError(errno.EADDRINUSE, "another live process serves its status there", str(path))
    if path.exists() and not path.is_socket():
        raise OSError(errno.EEXIST, "something that is no socket lies there", str(path))
    fresh = path.with_name(f".{os.getpid()}.{path.name}")
    fresh.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short_name(fresh) as name:
            listener.bind(name)
            fresh.chmod(0o600)
            listener.listen(_BACKLOG)
            fresh.rename(path)
    except OSError:
        listener.close()
        fresh.unlink(missing_ok=True)
        raise
    return listener


def _make_private(directory: Path) -> None:
    """Make a directory that only this user may enter; refuse one that somebody else made."""
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700, parents=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise OSError(errno.EPERM, "the directory for status sockets belongs to somebody else", str(directory))
    directory.chmod(0o700)
