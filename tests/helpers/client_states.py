"""Clients of a node in processes of their own, each held in one state until it is killed, stopped or told to go on."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from tests.helpers.node_client import WAIT_S
from tests.helpers.raw_client import dial
from tests.helpers.small_engine import SmallEngine, tokens
from tiercel import NodeClient, connect
from tiercel.layout import EngineBlocks
from tiercel.node.codec import encode
from tiercel.node.endpoint import LocalEndpoint, parse_endpoint
from tiercel.node.joining import Hello

NAME = "victim"
BLOCKS = 8
STORED_SEED, WRITTEN_SEED = 1, 2
"""The prompts that a client in each state has stored, and is storing."""

STATES = ("storing", "loading", "between lookup and load", "connecting", "in a call")


class HeldBlocks:
    """Engine blocks of which half is copied, and the rest when a gate opens."""

    addresses = None
    are_distinct = True

    def __init__(self, blocks: EngineBlocks, begun: threading.Event, gate: threading.Event) -> None:
        self.blocks, self.begun, self.gate = blocks, begun, gate
        self.memory, self.num_blocks = blocks.memory, blocks.num_blocks

    def gather(self, targets: Any) -> None:
        self._halves(targets, lambda part, addresses: part.gather(addresses))

    def scatter(self, sources: Any) -> None:
        self._halves(sources, lambda part, addresses: part.scatter(addresses))

    def slice(self, start: int, stop: int) -> "HeldBlocks":
        return HeldBlocks(self.blocks.slice(start, stop), self.begun, self.gate)

    def _halves(self, addresses: Any, copy: Callable[[EngineBlocks, Any], None]) -> None:
        middle = self.num_blocks // 2
        if middle:
            copy(self.blocks.slice(0, middle), addresses[:middle])
        self.begun.set()
        self.gate.wait()
        copy(self.blocks.slice(middle, self.num_blocks), addresses[middle:])


class ClientProcess:
    """A client in a state."""

    def __init__(self, endpoint: str, state: str) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.helpers.client_states"])
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_live, args=(endpoint, state, theirs), daemon=True)
        self._process.start()
        theirs.close()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.read()

    def read(self) -> Any:
        """What it says next."""
        assert self._pipe.poll(WAIT_S), "the client says nothing"
        return self._pipe.recv()

    def go_on(self) -> Any:
        """Let it go on. Returns how its ticket ended."""
        self._pipe.send(None)
        return self.read()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def __enter__(self) -> "ClientProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.close()
        self._pipe.close()


def _live(endpoint: str, state: str, pipe: Connection) -> None:
    if state == "connecting":
        where = parse_endpoint(endpoint)
        assert isinstance(where, LocalEndpoint)
        with dial(where.directory) as connection:
            connection.send(encode(Hello(NAME, None)))
            pipe.send(None)
            pipe.recv()
        return
    client = connect(endpoint, name=NAME)
    engine, begun, gate = SmallEngine(client.geometry), threading.Event(), threading.Event()
    stored = client.sequence(tokens(BLOCKS, seed=STORED_SEED))
    assert client.store(stored, engine.fill(stored)).wait(WAIT_S).ok
    lookup = client.lookup(stored)
    if state == "between lookup and load":
        assert lookup.num_blocks == BLOCKS
        pipe.send(None)
        pipe.recv()
        pipe.send(client.load(lookup, engine.blocks(0, BLOCKS)).wait(WAIT_S).num_blocks_ok)
        return
    target: Any = HeldBlocks(engine.blocks(BLOCKS, 2 * BLOCKS), begun, gate)
    if state == "loading":
        ticket = client.load(lookup, target)
    else:
        lookup.release()
        written = client.sequence(tokens(BLOCKS, seed=WRITTEN_SEED))
        ticket = client.store(written, HeldBlocks(engine.fill(written), begun, gate))  # type: ignore[arg-type]
    assert begun.wait(WAIT_S)
    if state == "in a call":
        threading.Thread(target=client.settle, args=(60.0,), daemon=True).start()
        time.sleep(0.2)
    pipe.send(None)
    pipe.recv()
    gate.set()
    result = ticket.wait(WAIT_S)
    pipe.send(result.num_blocks_ok)
    pipe.recv()
    _close(client)


def _close(client: NodeClient) -> None:
    client.close()
