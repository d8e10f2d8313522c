"""Starts a node in the background, in a session of its own, and waits until it serves: for an engine that finds none."""

import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from tiercel.config import CacheConfig, ModelConfig
from tiercel.config.manager import managed_environment
from tiercel.errors import DeadlineError, DeviceError
from tiercel.node.endpoint import LocalEndpoint
from tiercel.node.server.facts import document

DOCUMENT_NAME: Final = "node.json"
LOG_NAME: Final = "node.log"
_COMMAND = (sys.executable, "-c", "import sys; from tiercel.cli import main; sys.exit(main())", "node", "run")
_LOOK_S = 0.05
_LOG_TAIL = 2000


def start_node(model: ModelConfig, config: CacheConfig, endpoint: LocalEndpoint, *, timeout_s: float = 120.0) -> int:
    """Start a node that goes on when this process ends. Its log and its settings lie in the endpoint's directory.

    Returns:
        Its process's id.

    Raises:
        DeviceError: it ended at once, because another node runs there among other reasons: the message has the end of its log.
        DeadlineError: it does not serve after that time; it was ended.
        ConfigError, OSError: the directory cannot be used.
    """
    directory = endpoint.directory
    endpoint.make()
    log = directory / LOG_NAME
    settings = directory / f"{os.getpid()}-{DOCUMENT_NAME}"  # the place may turn out to be another node's
    settings.write_bytes(msgspec.json.format(msgspec.json.encode(document(model, config))))
    with (
        _moved(settings, directory / DOCUMENT_NAME),
        tempfile.TemporaryDirectory(prefix="tiercel-") as place,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
        log.open("ab") as output,
    ):
        address = str(Path(place) / "ready.sock")
        told.bind(address)
        told.settimeout(_LOOK_S)
        process = os.posix_spawn(
            sys.executable,
            [*_COMMAND, "--config", str(settings), "--endpoint", str(endpoint)],
            managed_environment(address),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, output.fileno(), 2),
            ],
            setsid=True,
        )
        _await_ready(process, told, log, timeout_s)
    return process


@contextmanager
def _moved(settings: Path, target: Path) -> Iterator[None]:
    """Give the settings their name when the node serves; remove them if it does not."""
    try:
        yield
    except BaseException:
        settings.unlink()
        raise
    settings.replace(target)


def _await_ready(process: int, told: socket.socket, log: Path, timeout_s: float) -> None:
    stop_at = time.monotonic() + timeout_s
    while True:
        try:
            if told.recv(4096).startswith(b"READY=1"):
                return
        except TimeoutError:
            pass
        ended, code = os.waitpid(process, os.WNOHANG)
        if ended:
            tail = log.read_bytes()[-_LOG_TAIL:].decode(errors="replace").strip()
            raise DeviceError(
                f"the node ended with {os.waitstatus_to_exitcode(code)} before it served; {log} ends with: {tail}"
            )
        if time.monotonic() >= stop_at:
            os.kill(process, signal.SIGTERM)
            raise DeadlineError(f"the node does not serve after {timeout_s:g} s; see {log}")
