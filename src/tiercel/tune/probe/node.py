"""What the way to a node costs: a lookup of a long prompt that is stored, and an exchange with hardly anything in it.

The node is a process of its own, as in service, with one client, this process. Used by `run`.
"""

import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np

import tiercel
from tiercel.errors import DeviceError, TiercelError
from tiercel.layout import EngineMemory
from tiercel.node.client import NodeClient
from tiercel.tune.machine import Figure, NodeFigures
from tiercel.tune.probe.node_process import MODEL, NUM_BLOCKS, TOKENS_PER_BLOCK
from tiercel.tune.probe.trust import Clock, repeat_until_trusted

SECONDS_MIN: Final = 10.0
"""Of a whole probe: in less, starting a node would take the time of all other figures."""

_START_S: Final = 20.0
_END_S: Final = 5.0
_LOG_TAIL = 300
_CALLS = 32
"""Of one repeat, whose median it is."""


def probe_node(take_seconds: Callable[[], float], notes: list[str], clock: Clock) -> NodeFigures | None:
    """Measure a node. None, with a note, if none can be started or it does not do as it should.

    Args:
        take_seconds: asked for the seconds of the measurement, when the node serves.
    """
    try:
        with _running_node() as endpoint, tiercel.connect(endpoint, name="probe") as client:
            lookup_s, exchange_s = _measured(client, take_seconds(), clock)
    except (TiercelError, OSError) as error:
        notes.append(f"The way to a node was not measured: {error}.")
        return None
    return NodeFigures(num_tokens=NUM_BLOCKS * TOKENS_PER_BLOCK, lookup_s=lookup_s, exchange_s=exchange_s)


@contextmanager
def _running_node() -> Iterator[str]:
    """Have a node; yields its endpoint. Raises DeviceError, OSError."""
    command = [sys.executable, "-m", "tiercel.tune.probe.node_process"]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as node,
    ):
        assert node.stdin is not None
        assert node.stdout is not None
        try:
            poll = select.poll()
            poll.register(node.stdout, select.POLLIN)
            endpoint = node.stdout.readline().strip() if poll.poll(_START_S * 1000) else ""
            if not endpoint:
                log.seek(0)
                told = log.read()[-_LOG_TAIL:].decode(errors="replace").strip()
                raise DeviceError(f"it ended, or did not serve in {_START_S:g} s; it said last: {told or 'nothing'}")
            yield endpoint
        finally:
            node.stdin.close()
            try:
                node.wait(_END_S)
            except subprocess.TimeoutExpired:
                node.kill()


def _measured(client: NodeClient, seconds: float, clock: Clock) -> tuple[Figure, Figure]:
    tokens = np.random.default_rng(0).integers(0, 50_000, NUM_BLOCKS * TOKENS_PER_BLOCK, dtype=np.int32)
    _store(client, tokens)
    known = client.sequence(tokens[::-1][:TOKENS_PER_BLOCK].copy())

    def sample() -> tuple[float, float]:
        lookups, exchanges = [], []
        for _ in range(_CALLS):
            sequence = client.sequence(tokens)
            started = time.perf_counter()
            found = client.lookup(sequence)
            lookups.append(time.perf_counter() - started)
            if found.num_blocks != NUM_BLOCKS:
                raise DeviceError(f"it found {found.num_blocks} of {NUM_BLOCKS} blocks")
            found.release()
            started = time.perf_counter()
            client.lookup(known)  # stored nowhere, and its key is with the node: a question and an answer
            exchanges.append(time.perf_counter() - started)
        return statistics.median(lookups), statistics.median(exchanges)

    sample()
    lookup_s, exchange_s = repeat_until_trusted(sample, seconds=seconds, clock=clock)
    return lookup_s, exchange_s


def _store(client: NodeClient, tokens: "np.ndarray[tuple[int], np.dtype[np.int32]]") -> None:
    shape = (NUM_BLOCKS, TOKENS_PER_BLOCK, MODEL.num_kv_heads, MODEL.head_size)
    keys, values = [np.zeros(shape, np.uint16)], [np.zeros(shape, np.uint16)]
    memory = EngineMemory.from_arrays(client.geometry, keys, values, axes="block token head dim")
    stored = client.store(client.sequence(tokens), memory.blocks(range(NUM_BLOCKS))).wait(_END_S)
    if not stored.ok:
        raise DeviceError(f"it stored {stored.num_blocks_ok} of {NUM_BLOCKS} blocks")
