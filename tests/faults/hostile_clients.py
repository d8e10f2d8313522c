"""Sends a running node what no client would, over its own socket: what is stored stays, and nothing stays of those who sent.

    python -m tests.faults.hostile_clients --messages 1000000 --json FILE

Run as a test with some thousands by `tests/node/test_hostile_clients.py`. `hostile_peers` does the same to the codec and
to the door for other machines.
"""

import gc
import logging
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from tests.faults.hostile_peers import arguments, write_report
from tests.helpers.hostile_client import HostileClient, Line
from tests.helpers.small_engine import MODEL, PROMPT_BLOCKS, SmallEngine, config, load_prompt, store_prompt
from tiercel.node.calls import AskStatus, Status
from tiercel.node.endpoint import LocalEndpoint
from tiercel.node.joining import Hello, Join, Joined, Welcome
from tiercel.node.server import NodeServer

_TURNS = 40
_SETTLE_S = 20.0


class Faults(logging.Handler):
    """Keeps what the node logs as an error: nothing that a client sends may be one."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(self.format(record))


def run(directory: Path, seed: int, num_messages: int) -> dict[str, object]:
    """Send messages to a node of this process; return what came of it. Raises AssertionError."""
    logger, faults = logging.getLogger("tiercel"), Faults()
    level = logger.level
    logger.addHandler(faults)
    logger.setLevel(logging.ERROR)
    try:
        result = _run(directory, seed, num_messages)
    finally:
        logger.setLevel(level)
        logger.removeHandler(faults)
    assert faults.told == []
    return result


def _run(directory: Path, seed: int, num_messages: int) -> dict[str, object]:
    settings = config(directory / "cache", host=4096, disk=4096, transfer_timeout_s=5.0)
    started, process, seen = time.monotonic(), psutil.Process(), Counter[str]()
    with NodeServer(MODEL, settings, LocalEndpoint(directory / "node")) as node:
        engine = SmallEngine(node.cache.geometry)
        store_prompt(node.cache, engine, 1)
        path = directory / "node" / "node.sock"
        honest, calls = joined(path)
        hostile = HostileClient(path, random.Random(seed))
        before = facts(node), resources()
        warm_bytes = warm_at = 0
        while hostile.num_sent < num_messages:
            first = hostile.num_sent
            try:
                hostile.talk(_TURNS)
            except BaseException as error:
                raise AssertionError(f"messages {first} to {hostile.num_sent} of seed {seed}") from error
            if not warm_at and hostile.num_sent > num_messages // 3:
                warm_bytes, warm_at = process.memory_info().rss, hostile.num_sent
        seen = hostile.seen
        stop_at = time.monotonic() + _SETTLE_S
        while left_over(node, before) and time.monotonic() < stop_at:
            time.sleep(0.05)
        gc.collect()
        assert left_over(node, before) == [], f"seed {seed}"
        assert load_prompt(node.cache, engine, 1) == PROMPT_BLOCKS
        status = calls.ask(AskStatus())
        assert isinstance(status, Status)
        assert [client.name for client in status.clients] == ["honest"]
        assert not node.failed
        grown = process.memory_info().rss - warm_bytes
        for line in (calls, honest):
            line.close()
    assert grown < 48 << 20, f"memory grew by {grown} bytes"
    return {
        "seed": seed,
        "messages": hostile.num_sent,
        "seconds": round(time.monotonic() - started, 1),
        "what_came_back": dict(seen.most_common()),
        "malformed": status.malformed,
        "memory_grown_bytes": grown,
    }


def joined(path: Path) -> tuple[Line, Line]:
    """A client that keeps to the protocol: its event connection, and one for calls."""
    events, calls = Line(path), Line(path)
    welcome = events.ask(Hello("honest", None))
    assert isinstance(welcome, Welcome)
    assert isinstance(calls.ask(Join(welcome.client, welcome.token)), Joined)
    return events, calls


def facts(node: NodeServer) -> dict[str, object]:
    """Whatever must be as it was when all hostile clients have gone."""
    stats = node.cache.stats()
    return {
        "tiers": {
            tier.name: (tier.num_ready, tier.num_writing, tier.num_pinned, tier.num_free) for tier in stats.tiers
        },
        "tickets": stats.tickets,
        "queues": stats.queue_depths,
        "clients": [client.name for client in node.status().clients],
    }


def resources() -> dict[str, int]:
    """What there must not be more of; another test's node may still be giving back its own."""
    process = psutil.Process()
    return {"descriptors": process.num_fds(), "threads": process.num_threads()}


def left_over(node: NodeServer, before: tuple[dict[str, object], dict[str, int]]) -> list[tuple[str, object, object]]:
    """(what, as it was, as it is) of all that differs."""
    then, now = before[0], facts(node)
    changed: list[tuple[str, object, object]] = [
        (name, then[name], now[name]) for name in then if now[name] != then[name]
    ]
    held = resources()
    return changed + [(name, count, held[name]) for name, count in before[1].items() if held[name] > count]


def main() -> None:
    given = arguments(__doc__, 1_000_000)
    with tempfile.TemporaryDirectory() as directory:
        result = run(Path(directory), given.seed, given.messages)
    write_report("hostile messages against a running node", "tests.faults.hostile_clients", given, result)


if __name__ == "__main__":
    main()
