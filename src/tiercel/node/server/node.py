"""A node: a cache of its own, and everything that serves it to other processes.

with NodeServer(model, config, parse_endpoint("ipc:///run/tiercel")) as node:
    node.wait()
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, final

from tiercel._native import NodeFront, NodeFrontLimits
from tiercel.cache import ServedCache
from tiercel.cache.opening import Progress
from tiercel.config import CacheConfig, ModelConfig
from tiercel.config.messages import problem
from tiercel.config.paths import expanded
from tiercel.errors import ConfigError
from tiercel.layout import SlotOrder
from tiercel.node.board import BoardWriter
from tiercel.node.calls import Status
from tiercel.node.endpoint import Endpoint, Listener, LocalEndpoint
from tiercel.node.namespaces import KEYGEN_SECRET, Namespaces, read_secret
from tiercel.node.protocol import SEQUENCE_BLOCKS_MAX
from tiercel.node.server.admission import Door
from tiercel.node.server.remote import open_remote_door, remote_keys
from tiercel.node.server.service import Service

if TYPE_CHECKING:
    from tiercel.node.remote import RemoteDoor

_log = logging.getLogger(__name__)

_CLOSE_S = 5.0
_EMPTY_S = 2.0
"""How long nobody may be here before a node ends that is to end with its last client: engines restart."""

_LOOK_S = 0.5
_KEYS_MAX = 16 * SEQUENCE_BLOCKS_MAX


@final
class NodeServer:
    """A running node. Use as a context manager, or call `close`. Thread-safe."""

    def __init__(
        self,
        model: ModelConfig,
        config: CacheConfig,
        endpoint: Endpoint,
        *,
        progress: Progress | None = None,
        order: SlotOrder = "token_head",
        on_place: Callable[[Listener], None] = lambda _: None,
    ) -> None:
        """Take the place, open the cache and serve it. Returns when clients can come.

        Args:
            model, config, progress, order: as of `Cache.open`.
            endpoint: a directory of this host.
            on_place: told the place when it is taken, before the cache is opened.

        Raises:
            ConfigError: an endpoint is another's or cannot be used, or a setting does not fit. The cache was not touched.
            TierError, OSError: as of `Cache.open`. Nothing stays allocated.
        """
        if not isinstance(endpoint, LocalEndpoint):
            raise ConfigError(
                f"{endpoint}: a node's clients share its memory, so it listens on this host: ipc:///DIRECTORY"
            )
        self.endpoint = endpoint
        self._lifetime = config.node_lifetime
        self._stopping = threading.Event()
        secret, keys = _secret(config), remote_keys(config)
        with ExitStack() as opened:
            listener = Listener(endpoint)
            opened.callback(listener.close)
            on_place(listener)
            remote = None
            if config.node_remote_endpoint is not None and keys is not None:
                remote = open_remote_door(config.node_remote_endpoint, keys)
                opened.callback(remote.close)
            self.cache = ServedCache.open(model, config, progress=progress, order=order, shares_memory=True)
            opened.callback(self.cache.close)
            board = BoardWriter()
            opened.callback(board.close)
            front = NodeFront(listener.socket.fileno(), self.cache.index, _limits(self.cache))
            opened.callback(front.close)
            door = Door(self.cache, front, board, model, order)
            namespaces = Namespaces(self.cache.fingerprint, secret, config.node_namespaces)
            for tenant in config.tenant_list:
                for namespace in tenant.namespaces:
                    self.cache.assign_root(namespaces.root_of(namespace), namespace)
            self._service = Service(self.cache, front, door, board, namespaces)
            opened.callback(self._service.close, "the node ends", _CLOSE_S)
            if remote is not None:
                self._serve_remote(remote)
                opened.callback(remote.close)  # before its calls find a service that ends
            self.cache.tell_node(self._service.counts)
            opened.callback(listener.withdraw)
            self._opened = opened.pop_all()
        _log.info("a node serves %s at %s", model.model_id, endpoint)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the node is to end: `stop` was called, its last client has left it and it is to end with it, or it met a
        defect. Returns False at the time."""
        stop_at = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._is_over():
            left_s = _LOOK_S if stop_at is None else min(_LOOK_S, stop_at - time.monotonic())
            if left_s <= 0:
                return False
            self._stopping.wait(left_s)
        return True

    @property
    def failed(self) -> bool:
        """Whether it met a defect, and serves nobody any more."""
        return self._service.ended.is_set() and not self._stopping.is_set()

    def stop(self) -> None:
        """Let `wait` return. Takes no time, and may be called in a signal's handler."""
        self._stopping.set()

    def status(self) -> Status:
        """What the node says of itself."""
        return self._service.status()

    def close(self) -> None:
        """Let the clients go, close the cache behind its checkpoint, and give up the place. Idempotent; bounded."""
        self._stopping.set()
        self._opened.close()

    def __enter__(self) -> "NodeServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve_remote(self, remote: "RemoteDoor") -> None:
        service = self._service
        remote.serve(lambda client, _, call: service.answer(client, call))
        service.count_remote(lambda: asdict(remote.counts))

    def _is_over(self) -> bool:
        if self._stopping.is_set() or self._service.ended.is_set():
            return True
        return self._lifetime == "end_with_last_client" and self._service.roll.empty_s > _EMPTY_S


def _limits(cache: ServedCache) -> NodeFrontLimits:
    config = cache.config
    return NodeFrontLimits(
        tokens_per_block=cache.geometry.tokens_per_block,
        origin=cache.origin,
        clients=config.node_clients_max + 1,
        connections=config.node_clients_max * (config.node_calls_max + 1) + config.node_clients_max,
        lookups=config.node_lookups_max,
        sequences=config.node_sequences_max,
        keys=_KEYS_MAX,
        read_tier=cache.read_tier,
    )


def _secret(config: CacheConfig) -> bytes:
    """Read the secret. Raises ConfigError if there is none where namespaces are bound."""
    if config.node_secret_file is not None:
        return read_secret(expanded("node_secret_file", config.node_secret_file))
    if config.node_namespaces is not None:
        reason = "binds nobody without node_secret_file: any client could compute the keys of any namespace"
        raise problem("node_namespaces", dict(config.node_namespaces), reason, f"make one with `{KEYGEN_SECRET}`")
    return b""
