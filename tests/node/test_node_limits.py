"""What a node may open, where it can be, and how much of what all share one client can take."""

import errno
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.raw_client import WAIT_S, RawClient, ask, dial
from tests.helpers.small_engine import MODEL, config
from tiercel import BlockGeometry, ConfigError, DeviceError
from tiercel.node.codec import encode
from tiercel.node.endpoint import Listener, LocalEndpoint, parse_endpoint
from tiercel.node.events import NoteText
from tiercel.node.joining import Hello, Refused
from tiercel.node.server import NodeServer
from tiercel.node.server.descriptors import descriptors_needed
from tiercel.node.server.exits import ExitWatch
from tiercel.node.server.labels import ClientNotes
from tiercel.node.server.starting import DOCUMENT_NAME, start_node
from tiercel.telemetry.logs import NOTES_MAX

GEOMETRY = BlockGeometry.from_model(MODEL, tokens_per_block=16)

RAISE = """
import resource, sys
from tiercel.node.server.descriptors import raise_descriptor_limit
print(raise_descriptor_limit(int(sys.argv[1])))
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def raised(soft: int, hard: int, needed: int) -> tuple[str, list[int]]:
    """What a process with these limits says, and its limits afterwards."""
    ulimit = f'ulimit -S -n {soft} && ulimit -H -n {hard} && exec "$@"'
    command = ["sh", "-c", ulimit, "sh", sys.executable, "-c", RAISE, str(needed)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=WAIT_S).stdout
    text, limits = told.rstrip("\n").split("\n")
    return text, [int(number) for number in limits.split()]


def test_the_soft_limit_of_open_files_is_raised_to_what_is_needed_and_never_lowered() -> None:
    assert raised(300, 2000, 1500) == ("", [1500, 2000])
    assert raised(1000, 2000, 500) == ("", [1000, 2000])


def test_a_hard_limit_in_the_way_is_named_with_the_remedy() -> None:
    text, limits = raised(300, 900, 1500)
    assert limits == [900, 900]
    assert "hard limit is 900" in text
    assert "LimitNOFILE=1500" in text


@contextmanager
def open_files(soft: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_node_that_was_started_with_few_descriptors_has_what_its_clients_need(tmp_path: Path) -> None:
    settings = config(tmp_path / "disk", host=16, disk=64, cpu_hugepages=False, node_clients_max=7)
    with open_files(300):
        process = start_node(MODEL, settings, LocalEndpoint(tmp_path / "node"), timeout_s=WAIT_S)
    try:
        soft, _ = resource.prlimit(process, resource.RLIMIT_NOFILE)
        assert soft == descriptors_needed(settings)
    finally:
        os.kill(process, 15)
        os.waitpid(process, 0)


STARVED = """
import json, os, resource, signal, sys
from pathlib import Path
from tests.helpers.small_engine import MODEL, config
from tiercel.node.asking import ask_node
from tiercel.node.calls import AskStats
from tiercel.node.endpoint import LocalEndpoint
from tiercel.node.server.starting import start_node
resource.setrlimit(resource.RLIMIT_NOFILE, (600, 600))
endpoint = LocalEndpoint(Path(sys.argv[1]))
process = start_node(MODEL, config(host=16, cpu_hugepages=False), endpoint, timeout_s=20)
try:
    print(json.loads(ask_node(endpoint, AskStats()).snapshot)["notes"])
finally:
    os.kill(process, signal.SIGTERM)
    os.waitpid(process, 0)
"""


def test_a_node_whose_hard_limit_is_too_low_says_so_in_its_notes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARVED, str(tmp_path / "node")]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "RLIMIT_NOFILE's hard limit is 600" in told
    assert f"LimitNOFILE={descriptors_needed(config(host=16))}" in told


def num_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_process_that_cannot_be_watched_for_want_of_a_descriptor_is_no_process_that_is_not_there() -> None:
    exits = ExitWatch()
    with open_files(3), pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        exits.watch(os.getpid(), lambda: None)
    watched = exits.watch(os.getpid(), lambda: None)
    assert watched is not None
    exits.forget(watched)
    exits.close()


def test_a_watch_that_fails_leaves_no_descriptor_behind() -> None:
    exits = ExitWatch()
    exits.close()
    before = num_open()
    with pytest.raises(ValueError, match="closed"):
        exits.watch(os.getpid(), lambda: None)
    assert num_open() == before


def test_a_client_whose_process_cannot_be_watched_is_refused_and_the_next_one_comes_in(tmp_path: Path) -> None:
    with NodeServer(MODEL, config(host=16), LocalEndpoint(tmp_path / "node")) as node:
        before = num_open()
        with dial(node.endpoint.directory) as stranger:
            while num_open() < before + 2:  # it was accepted
                time.sleep(0.005)
            with open_files(3):
                refused = ask(stranger, Hello("raw", None))
        assert isinstance(refused, Refused)
        assert "cannot watch this client's process" in refused.reason
        assert node.status().clients == []
        with RawClient(node.endpoint.directory, GEOMETRY):
            assert len(node.status().clients) == 1


def test_one_client_cannot_take_the_notes_of_all_others(tmp_path: Path) -> None:
    with NodeServer(MODEL, config(host=16), LocalEndpoint(tmp_path / "node")) as node:
        with RawClient(node.endpoint.directory, GEOMETRY, "loud") as loud:
            for number in range(2 * NOTES_MAX):
                loud.events.send(encode(NoteText(f"complaint {number}", "complaint")))
            loud.root()  # asked after it said all that
        with RawClient(node.endpoint.directory, GEOMETRY, "quiet") as quiet:
            quiet.events.send(encode(NoteText("one thing", "thing")))
            quiet.root()
            while not any(note.startswith("quiet") for note in node.cache.stats().notes):
                assert quiet.root()
        notes = [note for note in node.cache.stats().notes if note.startswith("loud: ")]
        assert len(notes) == 8
        assert "more notes than are kept" in notes[-1]


def test_all_clients_together_leave_room_for_the_nodes_own_notes() -> None:
    notes = ClientNotes()
    texts = {notes.of(f"client {number}", f"text {at}") for number in range(100) for at in range(3)}
    assert len(texts) < NOTES_MAX - 8


def test_a_place_that_cannot_be_a_nodes_is_named_with_the_remedy() -> None:
    endpoint = parse_endpoint("ipc:///proc/nope")
    with pytest.raises(ConfigError, match=r"ipc:///proc/nope: a node cannot be there .*name a directory"):
        NodeServer(MODEL, config(host=16), endpoint)
    assert isinstance(endpoint, LocalEndpoint)
    with pytest.raises(ConfigError, match="ipc:///proc/nope"):
        start_node(MODEL, config(host=16), endpoint)


def test_a_start_where_another_node_runs_leaves_its_settings_alone(tmp_path: Path) -> None:
    endpoint = LocalEndpoint(tmp_path / "node")
    listener = Listener(endpoint)
    (endpoint.directory / DOCUMENT_NAME).write_text("the other's")
    with pytest.raises(DeviceError, match="another node runs"):
        start_node(MODEL, config(host=16), endpoint, timeout_s=WAIT_S)
    assert (endpoint.directory / DOCUMENT_NAME).read_text() == "the other's"
    assert not list(endpoint.directory.glob(f"*-{DOCUMENT_NAME}"))
    listener.close()
