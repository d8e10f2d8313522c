"""However a read of a node's host memory ends: its ticket resolves as who ended it says, and its pins go back."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.helpers.client_states import HeldBlocks
from tests.helpers.node_client import WAIT_S, NodeProcess, meeting_place, node, until
from tests.helpers.small_engine import POISON, SmallEngine, config, tokens
from tiercel import BlockStatus, NodeClient, Outcome, StaleTicketError, Ticket, connect
from tiercel.cache import ServedCache
from tiercel.node import client as client_package
from tiercel.node.client import tickets
from tiercel.node.client.link import Link
from tiercel.node.client.pins import Epochs

BLOCKS = 4
CHUNKS = {"transfer_chunk_bytes": 4096}
"""So that each block is a chunk of its own."""


class Reader:
    """A client, its engine, and a target whose copies wait for a gate."""

    def __init__(self, client: NodeClient) -> None:
        self.client = client
        self.engine = SmallEngine(client.geometry)
        self.begun, self.gate = threading.Event(), threading.Event()
        self.held: Any = HeldBlocks(self.engine.blocks(10, 10 + BLOCKS), self.begun, self.gate)
        self.store(1)

    def store(self, seed: int) -> None:
        sequence = self.client.sequence(tokens(BLOCKS, seed=seed))
        assert self.client.store(sequence, self.engine.fill(sequence)).wait(WAIT_S).ok

    def load(self, target: Any, **settings: Any) -> Ticket:
        return self.client.load(self.client.sequence(tokens(BLOCKS, seed=1)), target, **settings)

    def begin_held(self, **settings: Any) -> Ticket:
        ticket = self.load(self.held, **settings)
        assert self.begun.wait(WAIT_S)
        return ticket

    @property
    def num_pinned(self) -> int:
        return next(tier.num_pinned for tier in self.client.stats().tiers if tier.name == "host")


@contextmanager
def reader(**settings: Any) -> Iterator[Reader]:
    with node(config(host=64, **settings)) as (_, endpoint), connect(endpoint, wait_s=WAIT_S) as client:
        made = Reader(client)
        try:
            yield made
        finally:
            made.gate.set()


def test_a_read_that_cannot_say_that_it_ended_gives_its_pins_back() -> None:
    with reader(node_calls_max=1) as made:
        ticket = made.begin_held()
        with made.client._keeper.link._pool.call(WAIT_S):  # longer than the read waits for one
            made.gate.set()
            result = ticket.wait(WAIT_S)
        assert set(result.statuses.tolist()) == {int(BlockStatus.IO_ERROR)}
        assert until(lambda: made.num_pinned == 0)


def test_a_read_that_runs_at_its_deadline_ends_as_too_late() -> None:
    with reader(**CHUNKS) as made:
        ticket = made.begin_held(timeout_s=0.05)
        opened = made.client._keeper.tickets._open[ticket.number]
        assert until(lambda: opened.guard._revoked)
        time.sleep(0.5)  # longer than the thread that serves all deadlines waits for its copies
        assert not ticket.done, "its memory is written to"
        made.gate.set()
        assert ticket.wait(WAIT_S).outcome is Outcome.DEADLINE
        assert until(lambda: made.num_pinned == 0)


def test_a_read_that_waits_has_no_longer_than_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "GRACE_S", 2 * WAIT_S)
    with reader() as made:
        held = [made.begin_held() for _ in range(2)]
        waiting = made.load(made.engine.blocks(20, 20 + BLOCKS), timeout_s=0.05)
        assert waiting.wait(WAIT_S).outcome is Outcome.DEADLINE, "the node has no say in it"
        made.gate.set()
        assert all(ticket.wait(WAIT_S).ok for ticket in held)


def test_a_read_that_runs_when_its_client_closes_resolves() -> None:
    with reader(**CHUNKS) as made:
        ticket = made.begin_held()
        closing = threading.Thread(target=made.client.close)
        closing.start()
        time.sleep(1.5)  # nobody waits for its copies any more
        assert not ticket.done, "its memory is written to"
        made.gate.set()
        assert ticket.wait(WAIT_S).outcome is Outcome.CANCELLED
        closing.join(WAIT_S)
        assert not closing.is_alive()


def test_the_node_is_not_told_of_a_cancelled_read_that_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(Link, "tell_cancelled", lambda self, ticket: told.append(ticket))
    with reader() as made:
        held = [made.begin_held() for _ in range(2)]
        waiting = made.load(made.engine.blocks(20, 20 + BLOCKS))
        waiting.cancel()
        assert waiting.wait(0).outcome is Outcome.CANCELLED
        assert told == []
        made.gate.set()
        assert all(ticket.wait(WAIT_S).ok for ticket in held)
        assert until(lambda: made.num_pinned == 0)


def test_the_wait_behind_other_reads_is_not_learnt_as_the_memorys_slowness(monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[float] = []
    note = ServedCache.note_read

    def listen(self: ServedCache, sequence: Any, blocks: range, seconds: float, *, client: int) -> None:
        noted.append(seconds)
        note(self, sequence, blocks, seconds, client=client)

    monkeypatch.setattr(ServedCache, "note_read", listen)
    with reader() as made:
        held = [made.begin_held() for _ in range(2)]
        waiting = made.load(made.engine.blocks(20, 20 + BLOCKS))
        time.sleep(1.0)
        made.gate.set()
        assert all(ticket.wait(WAIT_S).ok for ticket in (*held, waiting))
        assert until(lambda: len(noted) == 3)
        assert sum(seconds >= 1.0 for seconds in noted) == 2


def test_a_lookup_of_an_earlier_connection_finds_nothing_elses_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number means another lookup to another node; and a client that reconnects is for a moment on both sides of it."""
    back, told = threading.Event(), threading.Event()
    end = Epochs.end

    def slowly(self: Epochs) -> None:
        if self.generation:
            back.set()
            assert told.wait(WAIT_S)
        end(self)

    monkeypatch.setattr(Epochs, "end", slowly)
    with meeting_place() as endpoint:
        first = NodeProcess(endpoint, config(host=64))
        try:
            with connect(endpoint, wait_s=WAIT_S) as client:
                made = Reader(client)
                made.store(2)
                stale = client.lookup(client.sequence(tokens(BLOCKS, seed=1)))
                first.kill()
                with NodeProcess(endpoint, config(host=64)):
                    assert back.wait(WAIT_S)
                    with connect(endpoint, wait_s=WAIT_S) as other:
                        Reader(other).store(2)
                    numbers: list[int] = []
                    while not numbers or numbers[-1] < stale.pins.lookup:  # type: ignore[union-attr]
                        found = client.lookup(client.sequence(tokens(BLOCKS, seed=2)))
                        assert found.num_blocks == BLOCKS
                        numbers.append(found.pins.lookup)  # type: ignore[union-attr]
                    with pytest.raises(StaleTicketError):
                        client.launch([(stale, made.engine.blocks(10, 10 + BLOCKS))])
                    with pytest.raises(StaleTicketError):
                        client.prefetch(stale)
                    told.set()
        finally:
            told.set()
            first.kill()


class Interrupts:
    """Raises KeyboardInterrupt in this thread at one of the places where the client lets a signal's handler run: where a
    function begins, and behind a call of a native one."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.where = ""
        self.folder = str(Path(client_package.__file__).parent)

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if code.co_filename.startswith(self.folder) and code.co_name != "__del__" and event in ("call", "c_return"):
            self.left -= 1
            if self.left == 0:
                self.where = f"{code.co_name}, line {frame.f_lineno}"
                raise KeyboardInterrupt


def test_a_signal_at_any_moment_of_a_launch_leaves_no_pins_and_no_ticket() -> None:
    with reader(transfer_queue_depth_max=8) as made:
        sequence, engine, at = made.client.sequence(tokens(BLOCKS, seed=1)), made.engine, 0
        interrupted, launched = True, list[Ticket]()
        while interrupted:
            at += 1
            lookups = [made.client.lookup(sequence) for _ in range(2)]
            batch = [(each, engine.blocks(10 + BLOCKS * i, 10 + BLOCKS * (i + 1))) for i, each in enumerate(lookups)]
            interrupts = Interrupts(at)
            sys.setprofile(interrupts)
            try:
                launched = made.client.launch(batch, timeout_s=0.1)
                interrupted = False
            except KeyboardInterrupt:
                pass
            finally:
                sys.setprofile(None)
            del batch
            for lookup in lookups:
                lookup.release()
            assert until(lambda: not len(made.client._keeper.tickets)), interrupts.where
            engine.poison()
            assert until(lambda: made.num_pinned == 0), interrupts.where
            assert engine.keys[0].min() == POISON, f"{interrupts.where}: written to after the launch was given up"
        assert at > 20, "the launch was never interrupted"
        assert all(ticket.done for ticket in launched)
        for _ in range(8):
            assert made.load(engine.blocks(10, 10 + BLOCKS)).wait(WAIT_S).ok
