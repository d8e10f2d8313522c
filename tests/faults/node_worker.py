"""A client of a node that works until it is killed, and checks every byte that it is given. Forked by `node_kills`.

It loads, stores, prefetches, holds lookups, cancels, leaves and comes back, and forks children that outlive it. What it did and
how long that took stands on a board in shared memory, which outlives it.
"""

import mmap
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from tests.faults.simulation_model import Engine, Flight, Model
from tiercel import BlockStatus, NodeClient, StaleTicketError, ThrottledError, Ticket, connect
from tiercel.control import Lookup
from tiercel.layout import EngineBlocks

HANG_S = 30.0
CHILD_S = 0.3
"""How long a forked child holds what it inherited."""

FIELDS = (
    "turns",
    "stored",
    "loaded",
    "calls",
    "began_at",
    "longest_call_s",
    "pausing",
    "paused",
    "leaving",
    "connected",
)


class Board:
    """What one client tells the parent, and the parent it: a number for each field, in memory of both."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._values = np.frombuffer(self._memory, np.float64, len(FIELDS))
        self._at = {name: at for at, name in enumerate(FIELDS)}

    def get(self, name: str) -> float:
        return float(self._values[self._at[name]])

    def set(self, name: str, value: float) -> None:
        self._values[self._at[name]] = value

    def add(self, name: str, value: float) -> None:
        self._values[self._at[name]] += value


class SlowBlocks:
    """Engine blocks whose copies take their time in the middle, so that a kill meets half of one."""

    addresses = None
    are_distinct = True

    def __init__(self, blocks: EngineBlocks, pause_s: float) -> None:
        self._blocks, self._pause_s = blocks, pause_s
        self.memory, self.num_blocks = blocks.memory, blocks.num_blocks

    def gather(self, targets: Any) -> None:
        self._halves(targets, lambda part, addresses: part.gather(addresses))

    def scatter(self, sources: Any) -> None:
        self._halves(sources, lambda part, addresses: part.scatter(addresses))

    def slice(self, start: int, stop: int) -> "SlowBlocks":
        return SlowBlocks(self._blocks.slice(start, stop), self._pause_s)

    def _halves(self, addresses: Any, copy: Callable[[EngineBlocks, Any], None]) -> None:
        middle = self.num_blocks // 2
        if middle:
            copy(self._blocks.slice(0, middle), addresses[:middle])
        time.sleep(self._pause_s)
        copy(self._blocks.slice(middle, self.num_blocks), addresses[middle:])


class Worker:
    """The work of one client."""

    def __init__(self, endpoint: str, name: str, model: Model, board: Board, seed: int) -> None:
        self.random = random.Random(seed)
        self.endpoint, self.name, self.model, self.board = endpoint, name, model, board
        self.client = self._connect()
        self.engine = Engine(self.client.geometry)
        self.flights: list[Flight] = []
        self.held: list[tuple[Lookup, int]] = []

    def work(self) -> None:
        """Work until killed, or told to leave."""
        acts = (self._load, self._store, self._prefetch, self._hold, self._let_go, self._cancel, self._settle_one)
        weights = (6, 5, 1, 2, 2, 1, 6)
        while not self.board.get("leaving"):
            if self.board.get("pausing"):
                self._pause()
            with self._watched():
                self.random.choices(acts, weights)[0]()
                if self.random.random() < 0.005:
                    self._fork()
                if self.random.random() < 0.005:
                    self._come_back()
            self.board.add("turns", 1)
        self._settle()
        self.client.close()

    def _connect(self) -> NodeClient:
        client = connect(self.endpoint, name=self.name, wait_s=HANG_S)
        self.board.set("connected", 1)
        return client

    @contextmanager
    def _watched(self) -> Iterator[None]:
        self.board.set("began_at", time.monotonic())
        try:
            yield
        finally:
            self.board.set("began_at", 0.0)

    def _call(self, call: Callable[[], Any]) -> Any:
        """Call the facade; None for a lookup of a node that is gone, or when there is no room."""
        started = time.monotonic()
        try:
            return call()
        except (StaleTicketError, ThrottledError):
            return None
        finally:
            took = time.monotonic() - started
            self.board.add("calls", 1)
            self.board.set("longest_call_s", max(took, self.board.get("longest_call_s")))

    def _pause(self) -> None:
        """Let go of everything, say so, and wait to be told to go on."""
        self._settle()
        self.board.set("paused", 1)
        while self.board.get("pausing"):
            time.sleep(0.001)
        self.board.set("paused", 0)

    def _blocks(self, blocks: EngineBlocks) -> Any:
        return SlowBlocks(blocks, self.random.uniform(0, 0.02)) if self.random.random() < 0.4 else blocks

    def _load(self) -> None:
        prompt, length = self.model.draw_sequence(self.random)
        what: Any = self.client.sequence(self.model.tokens(prompt, length))
        if self.held and self.random.random() < 0.3:
            what, prompt = self.held.pop(self.random.randrange(len(self.held)))
            length = what.num_blocks
        self._make_room()
        region = self.engine.take()
        timeout_s = self.random.choice((0.05, 1.0, 2.0))
        target = self._blocks(self.engine.blocks(region, length))
        self._enter(
            self._call(lambda: self.client.load(what, target, timeout_s=timeout_s)), region, prompt, store=False
        )

    def _store(self) -> None:
        self._make_room()
        prompt, length = self.model.draw_sequence(self.random)
        sequence, region = self.client.sequence(self.model.tokens(prompt, length)), self.engine.take()
        source = self._blocks(self.engine.fill(region, self.model.content(prompt, length)))
        timeout_s = self.random.choice((0.05, 1.0, 2.0))
        ticket = self._call(lambda: self.client.store(sequence, source, timeout_s=timeout_s))
        self._enter(ticket, region, prompt, store=True)

    def _prefetch(self) -> None:
        prompt, length = self.model.draw_sequence(self.random)
        sequence = self.client.sequence(self.model.tokens(prompt, length))
        self._call(lambda: self.client.prefetch(sequence, timeout_s=1.0))

    def _hold(self) -> None:
        prompt, length = self.model.draw_sequence(self.random)
        sequence = self.client.sequence(self.model.tokens(prompt, length))
        self.held.append((self._call(lambda: self.client.lookup(sequence)), prompt))

    def _let_go(self) -> None:
        if self.held:
            lookup, _ = self.held.pop(0)
            if self.random.random() < 0.5:
                self._call(lookup.release)

    def _cancel(self) -> None:
        if self.flights:
            self._call(self.random.choice(self.flights).ticket.cancel)

    def _settle_one(self) -> None:
        if self.flights:
            self._take_in(self.flights.pop(0))

    def _settle(self) -> None:
        while self.flights:
            self._settle_one()
        while self.held:
            self.held.pop()[0].release()

    def _make_room(self) -> None:
        while len(self.flights) >= 4:
            self._settle_one()

    def _enter(self, ticket: Ticket | None, region: int, prompt: int, *, store: bool) -> None:
        if ticket is None:
            self.engine.give_back(region)
            return
        flight = Flight(ticket=ticket, region=region, prompt=prompt, generation=0, store=store)
        self.flights.append(flight)

    def _take_in(self, flight: Flight) -> None:
        """Wait for a ticket and check the bytes that came."""
        statuses = flight.ticket.wait(HANG_S).statuses
        num_ok = int((statuses == BlockStatus.OK).sum())
        if flight.store:
            self.board.add("stored", num_ok)
        else:
            self.engine.check(flight, statuses, self.model)
            self.board.add("loaded", num_ok)
        self.engine.give_back(flight.region)

    def _come_back(self) -> None:
        """Leave, with tickets under way now and then, and come again."""
        if self.random.random() < 0.5:
            self._settle()
        self.board.set("connected", 0)
        self.client.close()
        self._settle()
        self.client = self._connect()

    def _fork(self) -> None:
        """Have a child that holds this process's sockets and mappings for a while."""
        if os.fork() == 0:
            if os.fork() == 0:
                time.sleep(CHILD_S)
            os._exit(0)
        os.wait()


def run_worker(endpoint: str, name: str, model: Model, board: Board, seed: int) -> NoReturn:
    """The life of a forked client; it never returns to the parent's code."""
    end_at_defects()
    signal.signal(signal.SIGTERM, lambda *_: board.set("leaving", 1))  # what it raised could be lost in a destructor
    code = 1
    try:
        worker = Worker(endpoint, name, model, board, seed)
        try:
            worker.work()
        finally:
            worker.client.close()
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it was, this process ends here
        sys.stderr.write(f"client {name}:\n{traceback.format_exc()}")
    finally:
        sys.stderr.flush()
        os._exit(code)


def end_at_defects() -> None:
    """Let no thread of this process fail in silence."""

    def fail(arguments: threading.ExceptHookArgs) -> None:
        threading.__excepthook__(arguments)
        sys.stderr.flush()
        os._exit(71)

    threading.excepthook = fail
