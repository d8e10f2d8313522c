"""A node as a process: it says when it is ready, ends in order when told to, and is seen from the command line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.raw_client import WAIT_S, RawClient
from tests.helpers.small_engine import MODEL, config, tokens
from tiercel import BlockGeometry, CacheConfig, DeviceError, cli
from tiercel.node.asking import ask_node
from tiercel.node.calls import AskStatus, CountHits, Hits, Status
from tiercel.node.endpoint import SOCKET_NAME, LocalEndpoint
from tiercel.node.server.facts import document
from tiercel.node.server.starting import start_node
from tiercel.tiers.base import BlockStatus

COMMAND = (sys.executable, "-c", "import sys; from tiercel.cli import main; sys.exit(main())", "node")
GEOMETRY = BlockGeometry.from_model(MODEL, tokens_per_block=16)


class NodeProcess:
    """A node in a process of its own, whose readiness was told to a service manager."""

    def __init__(self, tmp_path: Path, **settings: object) -> None:
        self.endpoint = LocalEndpoint(tmp_path / "node")
        self.file = tmp_path / "node.json"
        self.settings: CacheConfig = config(tmp_path / "disk", host=16, disk=64, cpu_hugepages=False, **settings)
        self.file.write_text(json.dumps(document(MODEL, self.settings), default=list))
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(tmp_path / "manager.sock"))
        self.manager.settimeout(WAIT_S)
        self.process = subprocess.Popen(
            [*COMMAND, "--config", str(self.file), "--endpoint", str(self.endpoint)],
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "manager.sock")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.manager.recv(4096).startswith(b"READY=1")

    def end(self, number: int) -> tuple[int, str, str]:
        """Send a signal; the exit code and what was printed."""
        self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, output, errors

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        self.process.wait(WAIT_S)
        self.manager.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    node = NodeProcess(tmp_path)
    try:
        yield node
    finally:
        node.close()


def status(node: NodeProcess) -> Status:
    answer = ask_node(node.endpoint, AskStatus())
    assert isinstance(answer, Status)
    return answer


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_a_node_in_order(node: NodeProcess, number: int, code: int) -> None:
    with RawClient(node.endpoint.directory, GEOMETRY) as client:
        sequence, theirs = client.sequence(tokens(4, seed=1))
        client.engine.fill(sequence)
        assert set(client.wait(client.store(sequence, theirs)).statuses) == {BlockStatus.OK}
        returned, output, errors = node.end(number)
        assert client.over.wait(WAIT_S)
        assert client.reason == "the node ends"
    assert returned == code, errors
    assert "CRITICAL" not in errors
    assert output == f"ready: small at {node.endpoint}, process {node.process.pid}\n"
    assert node.manager.recv(4096) == b"STOPPING=1"
    assert not (node.endpoint.directory / SOCKET_NAME).exists()


def test_what_a_killed_node_had_on_disk_is_there_again(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path)
    with RawClient(node.endpoint.directory, GEOMETRY) as client:
        sequence, theirs = client.sequence(tokens(4, seed=2))
        client.engine.fill(sequence)
        client.wait(client.store(sequence, theirs))
        node.end(signal.SIGKILL)
        assert client.over.wait(1.0), "a client must learn of its node's death at once"
    node.close()
    (tmp_path / "manager.sock").unlink()
    again = NodeProcess(tmp_path)
    try:
        answer = ask_node(again.endpoint, CountHits("", sequence.keys().tobytes()))
        assert answer == Hits(4)
    finally:
        again.close()


def test_a_killed_clients_slots_come_back_within_two_seconds(node: NodeProcess) -> None:
    victim = os.fork()
    if victim == 0:
        client = RawClient(node.endpoint.directory, GEOMETRY, "victim")
        sequence, theirs = client.sequence(tokens(8, seed=3))
        client.engine.fill(sequence)
        client.stop()
        client.store(sequence, theirs, timeout_s=60.0)
        time.sleep(WAIT_S)
        os._exit(0)
    stop_at = time.monotonic() + WAIT_S
    while not any(one.name == "victim" and one.copies for one in status(node).clients):
        assert time.monotonic() < stop_at
        time.sleep(0.02)
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    os.waitpid(victim, 0)
    while any(one.name == "victim" for one in status(node).clients):
        assert time.monotonic() - began < 2.0
        time.sleep(0.02)


def test_a_second_node_ends_with_a_clear_message_and_leaves_the_first_alone(node: NodeProcess) -> None:
    command = [*COMMAND, "--config", str(node.file), "--endpoint", str(node.endpoint)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert second.returncode == 2
    assert f"another node runs at {node.endpoint}" in second.stderr
    assert status(node).process == node.process.pid


def test_the_command_line_shows_who_is_there(node: NodeProcess, capsys: pytest.CaptureFixture[str]) -> None:
    with RawClient(node.endpoint.directory, GEOMETRY, "engine-7"):
        assert cli.main(["node", "status", "--endpoint", str(node.endpoint)]) == 0
        shown = capsys.readouterr().out
        assert "engine-7" in shown
        assert "host-load 0" in shown
        assert cli.main(["node", "status", "--endpoint", str(node.endpoint), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert "engine-7" in [one["name"] for one in told["node"]["clients"]]
        assert [tier["name"] for tier in told["cache"]["tiers"]] == ["host", "disk"]
    assert cli.main(["node", "status", "--endpoint", f"ipc://{node.endpoint.directory}-none"]) == 1
    assert "no node runs at" in capsys.readouterr().err


def test_a_node_that_is_to_end_with_its_last_client_does(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path, node_lifetime="end_with_last_client")
    try:
        status(node)
        with RawClient(node.endpoint.directory, GEOMETRY):
            assert node.process.poll() is None
        assert node.process.wait(WAIT_S) == 0
    finally:
        node.close()


def test_a_node_is_started_in_the_background_or_says_why_not(tmp_path: Path) -> None:
    endpoint = LocalEndpoint(tmp_path / "node")
    pid = start_node(MODEL, config(host=16), endpoint)
    try:
        answer = ask_node(endpoint, AskStatus())
        assert isinstance(answer, Status)
        assert answer.process == pid
        with pytest.raises(DeviceError, match="another node runs at"):
            start_node(MODEL, config(host=16), endpoint)
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["status", "--endpoint", ""], "'' is no address of a node: give ipc:///DIRECTORY"),
        (["status", "--endpoint", "ipc:///run/x", "--keys", "k.json"], "--keys k.json: ipc:///run/x asks for none"),
        (["start", "--config", "x.yaml", "--timeout", "-3"], "--timeout -3: give seconds above 0"),
        (["start", "--config", "x.yaml", "--timeout", "nan"], "--timeout nan: give seconds above 0"),
    ],
)
def test_what_makes_no_sense_on_the_command_line_is_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert cli.main(["node", *words]) == 2
    assert told in capsys.readouterr().err
