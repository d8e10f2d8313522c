"""`tiercel node status` and whoever else asks a node from outside: bounded, told what to do, and hardly seen by the node."""

import logging
import signal
import socket
import time
from contextlib import ExitStack, suppress
from threading import Thread

import pytest

from tests.helpers.node_client import NodeProcess, meeting_place, node, until
from tests.helpers.small_engine import config
from tiercel import DeadlineError, StatusError, cli, connect
from tiercel.node.asking import ask_node
from tiercel.node.calls import AskStatus, Status
from tiercel.node.endpoint import SOCKET_NAME, LocalEndpoint, parse_endpoint

BOUND_S = 3.0


def local(endpoint: str) -> LocalEndpoint:
    where = parse_endpoint(endpoint)
    assert isinstance(where, LocalEndpoint)
    return where


def test_who_asks_is_not_among_the_clients() -> None:
    with node(config(host=16)) as (_, endpoint), connect(endpoint, name="engine"):
        answer = ask_node(local(endpoint), AskStatus())
        assert isinstance(answer, Status)
        assert [client.name for client in answer.clients] == ["engine"]


def test_a_remote_node_is_not_asked_without_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["node", "status", "--endpoint", "tcp://127.0.0.1:7070"]) == 2
    assert "tcp://127.0.0.1:7070: give --keys FILE" in capsys.readouterr().err


def test_a_node_without_clients_shows_no_empty_table(capsys: pytest.CaptureFixture[str]) -> None:
    with node(config(host=16)) as (_, endpoint):
        assert cli.main(["node", "status", "--endpoint", endpoint]) == 0
    shown = capsys.readouterr().out
    assert "clients: 0\nmoves under way" in shown


def test_a_probe_leaves_no_line_in_the_nodes_log_and_a_client_does(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tiercel.node")
    with node(config(host=16)) as (server, endpoint):
        caplog.clear()
        for _ in range(3):
            ask_node(local(endpoint), AskStatus())
        assert until(lambda: not server.status().clients)
        assert caplog.messages == []
        with connect(endpoint, name="engine"):
            assert until(lambda: any("engine" in text and "has come" in text for text in caplog.messages))
        assert until(lambda: any("engine" in text and "has left" in text for text in caplog.messages))


def test_a_node_that_was_stopped_is_told_from_one_that_is_not_there() -> None:
    with meeting_place() as endpoint, NodeProcess(endpoint, config(host=16)) as stopped, ExitStack() as waiting:
        stopped.signal(signal.SIGSTOP)
        with pytest.raises(DeadlineError, match=f"{endpoint} did not answer in 0.5 s: process {stopped.pid} .*SIGSTOP"):
            ask_node(local(endpoint), AskStatus(), timeout_s=0.5)
        while not local(endpoint).is_crowded():
            one = waiting.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            one.setblocking(False)
            with suppress(BlockingIOError):  # the look for it waits there, too
                one.connect(str(local(endpoint).directory / SOCKET_NAME))
        started = time.monotonic()
        with pytest.raises(DeadlineError, match=f"{endpoint} did not answer .* takes no connections"):
            ask_node(local(endpoint), AskStatus(), timeout_s=0.5)
        with pytest.raises(DeadlineError, match=f"{endpoint} took no connection in 0.2 s"):
            connect(endpoint, wait_s=0.2)
        assert time.monotonic() - started < BOUND_S
        stopped.kill()
    with pytest.raises(StatusError, match="no node runs"):
        ask_node(local(endpoint), AskStatus())
    assert not local(endpoint).is_crowded()


def test_a_node_that_ends_while_it_is_asked_is_named() -> None:
    with meeting_place() as endpoint, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(local(endpoint).directory / SOCKET_NAME))
        listener.listen(1)
        listener.settimeout(BOUND_S)

        def hang_up() -> None:
            listener.accept()[0].close()

        thread = Thread(target=hang_up)
        thread.start()
        with pytest.raises(StatusError, match=f"{endpoint} ended while it was asked"):
            ask_node(local(endpoint), AskStatus())
        thread.join()
