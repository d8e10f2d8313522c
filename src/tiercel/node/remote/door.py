"""The node's side of TCP: lets in whom the keys list, and has their calls answered, without memory and without bytes of blocks.

One thread waits for everything: requests, handshakes, connections that come and go, answers that are ready. It decides nothing
slow; calls run on a few threads of their own, so that none blocks another. `requests` says what may be asked.
"""

import errno
import logging
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import Final

from tiercel.node.calls import Failed
from tiercel.node.codec import Answer
from tiercel.node.remote.gate import LOOK_MS, Gate
from tiercel.node.remote.keys import ListedClient, ServerKeys
from tiercel.node.remote.requests import Handle, answer_to, bytes_of, read_call
from tiercel.node.remote.sockets import REQUEST_BYTES, Context, Socket, check_endpoint, missing_keys, set_common, zmq

_log = logging.getLogger(__name__)

_FAULT: Final = Failed("RuntimeError", "the node failed at this; its log says how")


@dataclass(frozen=True, kw_only=True)
class DoorLimits:
    """What remote clients may take of a node.

    Attributes:
        connections_max: of all clients together, those in their handshake included.
        calls_max: of one client that are not answered yet; further ones are answered as throttled.
        unseen_bytes_max: that a connection may have sent since its last whole message. The signs of life of a connection that
            asks nothing reach this after days; it is cut then, and comes back by itself.
        threads: that calls run on.
        handshake_s: until a connection has shown its key.
        heartbeat_s: between signs of life; a connection without any for three of these is cut.
    """

    connections_max: int = 256
    calls_max: int = 16
    unseen_bytes_max: int = 8 << 20
    threads: int = 2
    handshake_s: float = 2.0
    heartbeat_s: float = 5.0


@dataclass(frozen=True, kw_only=True)
class DoorCounts:
    """What a door has seen: connections now; since it opened those refused, and messages that were malformed, not allowed or
    throttled, and answers that their client did not take."""

    connections: int
    refused: int
    declined: int
    throttled: int
    lost: int


class RemoteDoor:
    """Answers remote clients from construction to `close`.

    Args:
        endpoint: tcp://HOST:PORT; `*` for every address, or for any free port.
        keys: as `read_server_keys` returns them. None is refused, with the remedy.
        handle: answers the calls that passed; see `requests.Handle`.

    Raises:
        ConfigError: the endpoint is none of TCP, there are no keys, or others may write to the list of clients.
        OSError: nobody can listen there.
    """

    def __init__(self, endpoint: str, keys: ServerKeys | None, limits: DoorLimits, handle: Handle) -> None:
        check_endpoint(endpoint)
        if keys is None:
            raise missing_keys(endpoint)
        self._limits = limits
        self._handle = handle
        self._closing = False
        self._counts: Counter[str] = Counter()
        self._outstanding: Counter[str] = Counter()
        self._answers: deque[tuple[bytes, bytes, str, Future[Answer]]] = deque()
        self._context = zmq.Context()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self._router = _closed_socket(self._context, keys, limits)
            self._gate = Gate(
                self._context, self._router, keys.clients, limits.connections_max, limits.unseen_bytes_max
            )
            self._endpoint = _bound(self._router, endpoint)
        except BaseException:
            self._context.destroy(linger=0)
            os.close(self._wake)
            raise
        self._pool = ThreadPoolExecutor(limits.threads, "tiercel-door-call")
        self._thread = Thread(target=self._run, name="tiercel-door", daemon=True)
        self._thread.start()

    def serve(self, handle: Handle) -> None:
        """Have the calls that come from now on answered by another."""
        self._handle = handle

    @property
    def endpoint(self) -> str:
        """Where it listens, the port included."""
        return self._endpoint

    @property
    def counts(self) -> DoorCounts:
        """What it has seen so far."""
        seen = self._counts
        return DoorCounts(
            connections=self._gate.num_connections,
            refused=self._gate.num_refused,
            declined=seen["declined"],
            throttled=seen["throttled"],
            lost=seen["lost"],
        )

    def close(self) -> None:
        """Stop. Calls that run are waited for and not answered any more. Idempotent."""
        if self._closing:
            return
        self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._pool.shutdown(cancel_futures=True)
        os.close(self._wake)

    def _run(self) -> None:
        poller = zmq.Poller()
        actions: dict[object, Callable[[], None]] = {
            self._router: self._receive,
            self._wake: self._send_answers,
            **self._gate.actions,
        }
        for source in actions:
            poller.register(source, zmq.POLLIN)
        try:
            while not self._closing:
                for source, _ in poller.poll(LOOK_MS if self._gate.num_connections else None):
                    actions[source]()
                self._gate.look(time.monotonic())
        finally:
            self._gate.close()
            self._context.destroy(linger=0)

    def _receive(self) -> None:
        frames = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
        self._gate.heard(frames[-1].get(zmq.SRCFD))
        sender, parts = frames[0].bytes, [frame.bytes for frame in frames[1:]]
        name = str(frames[-1].get("User-Id"))
        client = self._gate.listing.by_name(name)
        if len(parts) != 2 or len(parts[0]) != REQUEST_BYTES:
            self._decline(
                sender, bytes(REQUEST_BYTES), Failed("ValueError", "a request is two frames: its number, the message")
            )
        elif client is None:
            self._decline(sender, parts[0], Failed("PermissionError", "this client's key is not listed any more"))
        elif self._outstanding[name] >= self._limits.calls_max:
            self._counts["throttled"] += 1
            self._send(
                sender, parts[0], Failed("ThrottledError", f"{name} has {self._limits.calls_max} calls under way")
            )
        else:
            self._take(sender, parts[0], parts[1], client)

    def _take(self, sender: bytes, request: bytes, datagram: bytes, client: ListedClient) -> None:
        call = read_call(datagram, client)
        if isinstance(call, Failed):
            self._decline(sender, request, call)
            return
        self._outstanding[client.name] += 1
        future = self._pool.submit(answer_to, client, call, self._handle)
        future.add_done_callback(partial(self._answered, sender, request, client.name))

    def _answered(self, sender: bytes, request: bytes, name: str, future: Future[Answer]) -> None:
        """Hand an answer to the door's thread; runs on the call's."""
        self._answers.append((sender, request, name, future))
        os.eventfd_write(self._wake, 1)

    def _send_answers(self) -> None:
        os.eventfd_read(self._wake)
        while self._answers:
            sender, request, name, future = self._answers.popleft()
            self._outstanding[name] -= 1
            error = future.exception()
            if error is not None:
                _log.error("a call of the remote client %s failed", name, exc_info=error)
            self._send(sender, request, _FAULT if error is not None else future.result())

    def _decline(self, sender: bytes, request: bytes, failed: Failed) -> None:
        self._counts["declined"] += 1
        self._send(sender, request, failed)

    def _send(self, sender: bytes, request: bytes, answer: Answer) -> None:
        try:
            self._router.send_multipart([sender, request, bytes_of(answer)], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            self._counts["lost"] += 1  # it is gone, or reads nothing


def _closed_socket(context: Context, keys: ServerKeys, limits: DoorLimits) -> Socket:
    router = context.socket(zmq.ROUTER)
    set_common(router, heartbeat_s=limits.heartbeat_s, handshake_s=limits.handshake_s)
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)
    router.setsockopt(zmq.CURVE_SERVER, 1)
    router.setsockopt(zmq.CURVE_SECRETKEY, keys.secret_key.encode())
    router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    router.setsockopt_string(zmq.ZAP_DOMAIN, "tiercel")
    return router


def _bound(router: Socket, endpoint: str) -> str:
    """Listen. Returns where, the port included."""
    try:
        # ZeroMQ looks through the machine's addresses by it, and aborts the process if it may not.
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE).close()
    except OSError as error:
        raise PermissionError(errno.EPERM, "sockets of the family AF_NETLINK are not allowed", endpoint) from error
    try:
        router.bind(endpoint)
    except zmq.ZMQError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), endpoint) from error
    return router.getsockopt_string(zmq.LAST_ENDPOINT)
