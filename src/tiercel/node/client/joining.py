"""How a client joins a node: its greeting, the node's memory mapped, and what the node says of its cache. Used by `keeping`."""

import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple, cast

from tiercel import hashing
from tiercel.config import CacheConfig
from tiercel.config.document import split_content
from tiercel.errors import ConfigError, DeadlineError, DeviceError
from tiercel.layout import BlockGeometry, SlotOrder
from tiercel.node.board import BoardReader
from tiercel.node.client.receiving import SEND_S, receive
from tiercel.node.codec import decode_for_client, encode
from tiercel.node.endpoint import LocalEndpoint
from tiercel.node.joining import CacheFacts, Hello, Ready, Refused, Welcome
from tiercel.node.protocol import REGIONS_MAX, MessageError
from tiercel.ranks import sockets
from tiercel.ranks.regions import MappedRegion


class NodeFacts(NamedTuple):
    """What a client must know of the node's cache."""

    config: CacheConfig
    geometry: BlockGeometry
    fingerprint: bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Joined:
    """A client's event connection and what came with it."""

    connection: socket.socket
    welcome: Welcome
    facts: NodeFacts
    regions: tuple[MappedRegion, ...]
    board: BoardReader


def join(
    endpoint: LocalEndpoint,
    name: str,
    expected: BlockGeometry | None,
    timeout_s: float,
    give_up: Callable[[], bool] = lambda: False,
) -> Joined | None:
    """Find the node, say who this is and map what it shares. Returns None if `give_up` says so first.

    Raises:
        DeadlineError: nobody listened, or answered, in time.
        ConfigError: the node refused this client, or its directory is not safe.
        DeviceError: the node does not speak this protocol, or ended; or its memory cannot be mapped.
    """
    stop_at = time.monotonic() + timeout_s
    try:
        connection = endpoint.connect(timeout_s, give_up)
    except OSError as error:
        raise DeviceError(f"the node at {endpoint} cannot be reached: {error}") from error
    if connection is None:
        if give_up():
            return None
        if endpoint.is_crowded():
            raise DeadlineError(
                f"the node at {endpoint} took no connection in {timeout_s:.3g} s; if it was stopped (SIGSTOP, a debugger), let "
                "it go on, else look at its log and end it"
            )
        raise DeadlineError(
            f"no node listened at {endpoint} in {timeout_s:.3g} s; start one with `tiercel node --config FILE`"
        )
    with ExitStack() as undo:
        undo.callback(connection.close)
        geometry = None if expected is None else dict(expected.fingerprint_parts())
        try:
            sockets.send(connection, encode(Hello(name, geometry)), SEND_S)
            welcome, fds = _receive_welcome(connection, stop_at)
            try:
                facts = read_facts(welcome.facts)
                regions = _mapped(welcome, fds, undo)
                board = BoardReader(fds[-1])
            finally:
                for fd in fds:
                    os.close(fd)
            sockets.send(connection, encode(Ready()), SEND_S)
        except TimeoutError as error:
            raise DeadlineError(f"the node at {endpoint}: {error}") from error
        except (OSError, MessageError) as error:
            raise DeviceError(f"the node at {endpoint}: {error}") from error
        undo.pop_all()
    return Joined(connection=connection, welcome=welcome, facts=facts, regions=regions, board=board)


def read_facts(facts: CacheFacts) -> NodeFacts:
    """Read what a node says of its cache. Raises ConfigError if it is of another release."""
    settings, model = split_content({"model_config": facts.model, "cache_config": facts.config}, "the node")
    if model is None:
        raise ConfigError("the node names no model; run the same release")
    config = CacheConfig(**settings)  # type: ignore[arg-type]
    order = cast(SlotOrder, facts.order)  # checked by the geometry
    geometry = BlockGeometry.from_model(model, tokens_per_block=config.tokens_per_block, order=order)
    if hashing.fingerprint(geometry.fingerprint_parts()) != facts.fingerprint:
        raise ConfigError(
            "the node's blocks have another fingerprint than this release gives them; run the same release"
        )
    return NodeFacts(config, geometry, facts.fingerprint)


def _receive_welcome(connection: socket.socket, stop_at: float) -> tuple[Welcome, list[int]]:
    data, fds = receive(connection, stop_at, REGIONS_MAX + 1)
    try:
        message = decode_for_client(data)
        if isinstance(message, Welcome) and len(fds) == len(message.regions) + 1:
            return message, fds
        if isinstance(message, Refused):
            raise ConfigError(f"the node refused this client: {message.reason}")
        raise MessageError(f"{type(message).__name__} with {len(fds)} files instead of a welcome")
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


def _mapped(welcome: Welcome, fds: list[int], undo: ExitStack) -> tuple[MappedRegion, ...]:
    regions: list[MappedRegion] = []
    for fd, each in zip(fds, welcome.regions, strict=False):  # the last file is the board's
        try:
            region = MappedRegion(fd, each.num_bytes, resident=each.resident, unit_bytes=each.unit_bytes)
        except ValueError as error:
            raise MessageError(str(error)) from error
        regions.append(region)
        undo.callback(region.close)
    return tuple(regions)
