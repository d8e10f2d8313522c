"""Processes that map an arena and outlive its owner: nothing in it is believed before they are gone."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.rank_engine import WAIT_S, RankProcess, ask_all, open_cache
from tests.helpers.small_engine import SmallEngine, tokens
from tests.helpers.tier_samples import arena_options, kept_host, load, random_bytes, random_labels, slots_of, store
from tiercel import RankGroup

ROOT = Path(__file__).parents[2]

USER = """
import mmap, os, socket, sys
connection = socket.socket(fileno=int(sys.argv[1]))
_, [fd], _, _ = socket.recv_fds(connection, 1, 1)
mapping = mmap.mmap(fd, 0)
os.close(fd)
connection.send(b"mapped")
while command := connection.recv(100):  # what it is to write into every slot
    mapping[:] = command[:1] * len(mapping)
    connection.send(b"written")
"""


class User:
    """A process that maps the memory that it is given, as ranks and clients do, and writes to it when it is told to."""

    def __init__(self, fd: int) -> None:
        self.connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.connection.settimeout(WAIT_S)
        self._process = subprocess.Popen([sys.executable, "-c", USER, str(theirs.fileno())], pass_fds=[theirs.fileno()])
        theirs.close()
        socket.send_fds(self.connection, [b"!"], [fd])
        assert self.connection.recv(100) == b"mapped"

    def write(self, letter: bytes) -> None:
        self.connection.send(letter)
        assert self.connection.recv(100) == b"written"

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self.connection.close()


def test_an_arena_is_begun_anew_while_another_process_can_write_to_it(
    arena_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    random = np.random.default_rng(5)
    tier = kept_host(arena_options(arena_directory))
    rows = random_bytes(random, 2, tier.block_bytes)
    store(tier, slots_of(0, 1), rows, random_labels(random, 2))
    user = User(tier.shared_memory.fd)
    tier.close()
    caplog.set_level("INFO", "tiercel.tiers.host")
    started = time.monotonic()
    tier = kept_host(arena_options(arena_directory, wait_s=0.3))
    assert 0.3 <= time.monotonic() - started < WAIT_S
    assert "still has it mapped after 0.3 s" in tier.cold_reason
    (told,) = (line for line in caplog.messages if "waiting up to 0.3 s (cpu_arena_wait_s)" in line)
    assert f"process {user._process.pid} (python" in told
    assert len(tier.recovered.slots) == 0
    store(tier, slots_of(0, 1), rows, random_labels(random, 2))
    user.write(b"x")
    statuses, got = load(tier, slots_of(0, 1))
    assert statuses == [0, 0]
    np.testing.assert_array_equal(got, rows)
    tier.close()
    tier = kept_host(arena_options(arena_directory, wait_s=0))  # it holds the old one, which nobody wants
    assert (tier.recovered.slots.tolist(), tier.cold_reason) == ([0, 1], "")
    tier.close()
    user.end()


def test_an_arena_is_warm_when_its_last_user_is_gone_in_time(arena_directory: Path) -> None:
    random = np.random.default_rng(6)
    tier = kept_host(arena_options(arena_directory))
    store(tier, slots_of(0, 1), random_bytes(random, 2, tier.block_bytes), random_labels(random, 2))
    user = User(tier.shared_memory.fd)
    ender = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {user._process.pid}"])
    tier.close()
    tier = kept_host(arena_options(arena_directory, wait_s=WAIT_S))
    assert (tier.recovered.slots.tolist(), tier.cold_reason) == ([0, 1], "")
    tier.close()
    ender.wait()
    user.end()


def test_a_stopped_rank_of_a_cache_that_ended_leaves_the_next_one_cold_and_its_end_the_one_after_warm(
    tmp_path: Path, arena_directory: Path
) -> None:
    settings: dict[str, Any] = {
        "host": 64,
        "cpu_arena_dir": str(arena_directory),
        "cpu_arena_wait_s": 0.3,
        "cpu_hugepages": False,
    }
    with open_cache(tmp_path, **settings) as cache:
        group = RankGroup(cache.geometry, cache.shared_memory, num_ranks=1, directory=tmp_path / "ranks")
        rank = RankProcess(tmp_path / "ranks", 0, 1)
        group.wait_ready(WAIT_S)
        sequence = cache.sequence(tokens(8, seed=1))
        ask_all([rank], "fill", sequence.keys(0))
        assert cache.store(sequence, group.blocks(range(8))).wait(WAIT_S).ok
        rank.signal(signal.SIGSTOP)
        group.close()
    with open_cache(tmp_path, **settings) as cache:
        assert cache.stats().tiers[0].recovered == 0
        assert any("began cold" in note and "mapped" in note for note in cache.stats().notes)
        assert cache.stats().activity.counters["fallbacks"]["host_cold"] == 1
        sequence = cache.sequence(tokens(8, seed=1))
        assert cache.store(sequence, SmallEngine(cache.geometry).fill(sequence)).wait(WAIT_S).ok
    rank.close()
    with open_cache(tmp_path, **settings) as cache:
        assert (cache.stats().tiers[0].recovered, cache.stats().notes) == (8, ())
