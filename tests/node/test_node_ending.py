"""A node that is told to end before it serves: at once, whatever it waits for, and nothing stays that others stumble over."""

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.raw_client import WAIT_S
from tests.helpers.seeds import chosen_seed
from tests.helpers.small_engine import MODEL, config
from tiercel.node.asking import ask_node
from tiercel.node.calls import AskStatus, Status
from tiercel.node.endpoint import SOCKET_NAME, LocalEndpoint
from tiercel.node.server.facts import document

COMMAND = (sys.executable, "-c", "import sys; from tiercel.cli import main; sys.exit(main())", "node", "run")
PROMPT_S = 10.0
CODES = [(signal.SIGTERM, 0), (signal.SIGINT, 130)]


class Starting:
    """A node that starts, with an arena that another process has mapped: it waits for that one before it serves."""

    def __init__(self, tmp_path: Path, arena: Path, **settings: object) -> None:
        self.endpoint = LocalEndpoint(tmp_path / "node")
        self.socket = self.endpoint.directory / SOCKET_NAME
        self.file = tmp_path / "node.json"
        given = {"cpu_arena_dir": str(arena), "cpu_arena_wait_s": 60.0, "cpu_hugepages": False, **settings}
        self.file.write_text(
            json.dumps(document(MODEL, config(tmp_path / "disk", host=16, disk=64, **given)), default=list)
        )
        arena.mkdir(mode=0o700, exist_ok=True)
        self.held = os.open(arena / "arena", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self.held, fcntl.LOCK_EX)

    def start(self, *prefix: str) -> subprocess.Popen[str]:
        command = [*prefix, *COMMAND, "--config", str(self.file), "--endpoint", str(self.endpoint)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_for_the_socket(self) -> None:
        stop_at = time.monotonic() + WAIT_S
        while not self.socket.exists():
            assert time.monotonic() < stop_at
            time.sleep(0.01)

    def let_go(self) -> None:
        os.close(self.held)


def ended(process: subprocess.Popen[str], number: int) -> tuple[int, str, str]:
    """Send a signal; the exit code and what was printed, if it came promptly."""
    process.send_signal(number)
    try:
        output, errors = process.communicate(timeout=PROMPT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, output, errors


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_signal_ends_a_node_that_waits_before_it_serves(
    tmp_path: Path, arena_directory: Path, number: int, code: int
) -> None:
    starting = Starting(tmp_path, arena_directory)
    process = starting.start()
    starting.wait_for_the_socket()
    assert ended(process, number)[:2] == (code, "")
    assert not starting.socket.exists()
    starting.let_go()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a PID namespace here")
def test_the_first_process_of_a_container_takes_signals_before_it_serves(tmp_path: Path, arena_directory: Path) -> None:
    starting = Starting(tmp_path, arena_directory)
    process = starting.start("unshare", "--pid", "--fork", "--kill-child")
    starting.wait_for_the_socket()
    (node,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(node), signal.SIGTERM)
    try:
        process.communicate(timeout=PROMPT_S)
    finally:
        process.kill()
    assert process.returncode == 0
    assert not starting.socket.exists()
    starting.let_go()


def test_a_node_that_was_ended_at_any_moment_of_its_start_can_be_started_again(
    tmp_path: Path, arena_directory: Path
) -> None:
    generator = random.Random(chosen_seed())
    starting = Starting(tmp_path, arena_directory)
    starting.let_go()
    for _ in range(4):
        process, (number, code) = starting.start(), generator.choice(CODES)
        time.sleep(generator.uniform(0.0, 1.5))
        returned, _, errors = ended(process, number)
        assert returned in (code, -number), errors  # -number: it came before this package's first line
        assert not starting.socket.exists()
    process = starting.start()
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ready: ")
    answer = ask_node(starting.endpoint, AskStatus())
    assert isinstance(answer, Status)
    assert ended(process, signal.SIGTERM)[0] == 0


def test_a_node_that_waits_for_the_users_of_its_arena_names_them_and_the_bound(
    tmp_path: Path, arena_directory: Path
) -> None:
    starting = Starting(tmp_path, arena_directory, cpu_arena_wait_s=0.5)
    process = starting.start()
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ready: ")
    _, _, errors = ended(process, signal.SIGTERM)
    starting.let_go()
    (line,) = (line for line in errors.splitlines() if "waiting up to 0.5 s" in line)
    assert f"process {os.getpid()} (" in line
    assert str(arena_directory) in line
