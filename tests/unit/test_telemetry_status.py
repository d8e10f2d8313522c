"""The status socket and its client."""

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.helpers.telemetry_samples import sample_snapshot
from tiercel.errors import CacheClosedError, StatusError
from tiercel.telemetry.snapshot import StatusSnapshot
from tiercel.telemetry.status import SOCKET_NAME, StatusServer, read_status


def test_a_snapshot_arrives_as_it_was_sent_by_pid_directory_and_socket(tmp_path: Path) -> None:
    directory, runtime = tmp_path / "cache", tmp_path / "run"
    directory.mkdir()
    server = StatusServer(sample_snapshot, path=directory / SOCKET_NAME, runtime=runtime)
    try:
        expected = sample_snapshot()
        assert server.path == directory / SOCKET_NAME
        assert read_status(directory) == expected
        assert read_status(directory / SOCKET_NAME) == expected
        assert read_status(os.getpid(), runtime=runtime) == expected
    finally:
        server.close()


def test_nobody_else_may_reach_the_socket(tmp_path: Path) -> None:
    server = StatusServer(sample_snapshot, runtime=tmp_path / "run")
    try:
        assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
    finally:
        server.close()


def test_closing_ends_the_thread_and_leaves_no_file(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    directory.mkdir()
    before = threading.active_count()
    server = StatusServer(sample_snapshot, path=directory / SOCKET_NAME, runtime=tmp_path / "run")
    server.close()
    server.close()
    assert threading.active_count() == before
    assert list(directory.iterdir()) == []
    assert list((tmp_path / "run").iterdir()) == []


def test_a_path_longer_than_unix_allows_works(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120) / ("e" * 120)
    directory.mkdir(parents=True)
    server = StatusServer(sample_snapshot, path=directory / SOCKET_NAME, runtime=tmp_path / "run")
    try:
        assert read_status(directory).pid == 4242
        assert read_status(os.getpid(), runtime=tmp_path / "run").pid == 4242
    finally:
        server.close()


def test_the_socket_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / SOCKET_NAME
    code = "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, SOCKET_NAME], cwd=tmp_path, check=False)
    assert path.is_socket()
    with pytest.raises(StatusError, match="no running cache answers"):
        read_status(tmp_path)
    server = StatusServer(sample_snapshot, path=tmp_path / SOCKET_NAME, runtime=tmp_path / "run")
    try:
        assert read_status(tmp_path).pid == 4242
    finally:
        server.close()


def test_names_of_killed_processes_are_removed_and_those_of_others_stay(tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name in (f"{ended.pid}.sock", f"{ended.pid}-1.sock"):
        (runtime / name).symlink_to(tmp_path / "gone")
    for name in (f"{os.getppid()}.sock", "notes.sock"):
        (runtime / name).symlink_to(tmp_path / "elsewhere")
    server = StatusServer(sample_snapshot, runtime=runtime)
    try:
        names = {path.name for path in runtime.iterdir()}
    finally:
        server.close()
    assert names == {f"{os.getpid()}.sock", f"{os.getppid()}.sock", "notes.sock"}


def test_a_live_socket_is_not_taken_over(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    directory.mkdir()
    server = StatusServer(sample_snapshot, path=directory / SOCKET_NAME, runtime=tmp_path / "run")
    try:
        with pytest.raises(OSError, match="another live process"):
            StatusServer(sample_snapshot, path=directory / SOCKET_NAME, runtime=tmp_path / "run")
        assert read_status(directory).pid == 4242
    finally:
        server.close()


@pytest.mark.parametrize("linked", [False, True])
def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path, linked: bool) -> None:
    precious = place = tmp_path / "precious"
    precious.write_text("not yours")
    if linked:
        place = tmp_path / "link"
        place.symlink_to(precious)
    with pytest.raises(OSError, match="no socket lies there"):
        StatusServer(sample_snapshot, path=place, runtime=tmp_path / "run")
    assert place.read_text() == "not yours"
    assert list((tmp_path / "run").iterdir()) == []


def test_two_caches_of_one_process_have_a_socket_each(tmp_path: Path) -> None:
    first = StatusServer(sample_snapshot, runtime=tmp_path)
    second = StatusServer(sample_snapshot, runtime=tmp_path)
    try:
        assert first.path != second.path
        assert read_status(second.path).pid == 4242
    finally:
        first.close()
        second.close()


def test_a_cache_that_is_closing_answers_nothing_and_the_server_goes_on(tmp_path: Path) -> None:
    answers: list[StatusSnapshot] = []

    def snapshot() -> StatusSnapshot:
        if not answers:
            answers.append(sample_snapshot())
            raise CacheClosedError("closing")
        return answers[0]

    server = StatusServer(snapshot, runtime=tmp_path)
    try:
        with pytest.raises(StatusError, match="no status"):
            read_status(server.path)
        assert read_status(server.path).pid == 4242
    finally:
        server.close()


def test_a_client_that_reads_nothing_holds_the_server_for_a_bounded_time(tmp_path: Path) -> None:
    snapshot = sample_snapshot()
    large = StatusSnapshot(
        pid=1,
        version="",
        model="m" * 3_000_000,
        started_at=0.0,
        uptime_s=0.0,
        tiers=snapshot.tiers,
        activity=snapshot.activity,
    )
    server = StatusServer(lambda: large, runtime=tmp_path)
    try:
        with socket.socket(socket.AF_UNIX) as idle:
            idle.connect(os.path.relpath(server.path))
            assert read_status(server.path, timeout_s=10.0).pid == 1
    finally:
        server.close()


def test_an_answer_that_is_no_status_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        path = tmp_path / SOCKET_NAME
        listener.bind(os.path.relpath(path))
        listener.listen()

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(b'{"pid": "no number"}')

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(StatusError, match="no status"):
            read_status(tmp_path)
        thread.join()


def test_a_runtime_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="belongs to somebody else"):
        StatusServer(sample_snapshot, runtime=tmp_path / "run")
