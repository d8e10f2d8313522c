"""Asks a node something from outside: without memory, one call, and gone. What the command line uses."""

import os
import select
import socket
import time
from contextlib import ExitStack

from msgspec.structs import replace

from tiercel.errors import ConfigError, DeadlineError, StatusError
from tiercel.node.calls import Status
from tiercel.node.codec import Answer, Call, ToClient, decode_for_client, encode
from tiercel.node.endpoint import LocalEndpoint
from tiercel.node.events import Bye
from tiercel.node.joining import Hello, Join, Joined, Refused, Welcome
from tiercel.node.protocol import MESSAGE_BYTES_MAX, REGIONS_MAX, Message, MessageError
from tiercel.ranks import sockets

_NAME = "tiercel"
_SEND_S = 1.0


def ask_node(endpoint: LocalEndpoint, call: Call, *, timeout_s: float = 5.0) -> Answer:
    """Ask a node that runs. Whoever asks is not among the clients of a `Status`.

    Raises:
        StatusError: none listens there, it ended meanwhile, or what it says is not understood.
        ConfigError: it refused, or others may enter the directory.
        DeadlineError: it does not answer in time.
    """
    stop_at = time.monotonic() + timeout_s
    try:
        with ExitStack() as opened:
            return _ask(endpoint, call, stop_at, opened)
    except TimeoutError as error:
        raise DeadlineError(
            f"the node at {endpoint} did not answer in {timeout_s:g} s: {error}; if it was stopped (SIGSTOP, a debugger), let it "
            "go on, else look at its log and end it: engines compute meanwhile"
        ) from error
    except ConnectionError as error:
        raise StatusError(f"the node at {endpoint} ended while it was asked; ask again, or look at its log") from error


def _ask(endpoint: LocalEndpoint, call: Call, stop_at: float, opened: ExitStack) -> Answer:
    """Ask on connections that `opened` closes. Raises TimeoutError, ConnectionError, and as `ask_node`."""
    events = _connect(endpoint, opened)
    welcome = _asked(events, Hello(_NAME, None), stop_at)
    if not isinstance(welcome, Welcome):
        raise StatusError(f"the node at {endpoint} answered a {type(welcome).__name__} to a greeting")
    calls = _connect(endpoint, opened)
    joined = _asked(calls, Join(welcome.client, welcome.token), stop_at)
    if not isinstance(joined, Joined):
        raise StatusError(f"the node at {endpoint} answered a {type(joined).__name__} to a connection")
    answer = _asked(calls, call, stop_at)
    sockets.send(events, encode(Bye()), _SEND_S)
    if not isinstance(answer, Answer):
        raise StatusError(f"the node at {endpoint} answered a {type(answer).__name__} to a {type(call).__name__}")
    if isinstance(answer, Status):  # who asks is a client only for that
        return replace(answer, clients=[one for one in answer.clients if one.client != welcome.client])
    return answer


def _connect(endpoint: LocalEndpoint, opened: ExitStack) -> socket.socket:
    connection = endpoint.connect(0.0)
    if connection is None:
        if endpoint.is_crowded():
            raise TimeoutError("it takes no connections")
        raise StatusError(f"no node runs at {endpoint}; start one with `tiercel node --config FILE`")
    opened.callback(connection.close)
    return connection


def _asked(connection: socket.socket, message: Message, stop_at: float) -> ToClient:
    """Send a message and return the one that answers it; files that come along are closed."""
    sockets.send(connection, encode(message), _SEND_S)
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    if not poll.poll(max(1.0, (stop_at - time.monotonic()) * 1000)):
        raise TimeoutError(f"process {sockets.peer_process(connection)} says nothing")
    data, fds, _, _ = socket.recv_fds(connection, MESSAGE_BYTES_MAX + 1, REGIONS_MAX + 1, socket.MSG_CMSG_CLOEXEC)
    for fd in fds:
        os.close(fd)
    if not data:
        raise ConnectionResetError
    try:
        answer = decode_for_client(data)
    except MessageError as error:
        raise StatusError(f"the node sent {error}") from error
    if isinstance(answer, Refused):
        raise ConfigError(f"the node refused: {answer.reason}")
    return answer
