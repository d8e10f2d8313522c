"""A cache is closed in bounded time, whatever its device is stuck in."""

import errno
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import Cache
from tiercel.cache.assembly import assemble
from tiercel.errors import CacheClosedError, DirectoryLockedError
from tiercel.tiers.base import Slots, TierName
from tiercel.tiers.disk import DiskTier

ROOT = Path(__file__).parents[2]


class StuckCheckpoints:
    """A disk tier whose device does not answer while a checkpoint is written; it wants one all the time, or only when closed."""

    def __init__(self, inner: DiskTier, *, wants_checkpoint: bool = True) -> None:
        self.wants_checkpoint = wants_checkpoint
        self.entered, self.answers = threading.Event(), threading.Event()
        self._inner = inner

    def checkpoint(self, order: Slots) -> None:
        self.entered.set()
        assert self.answers.wait(60)
        self._inner.checkpoint(order)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


def test_a_checkpoint_that_does_not_end_does_not_hold_up_close(tmp_path: Path) -> None:
    assembly = assemble(MODEL, config(tmp_path, host=16, disk=64))
    assert assembly.disk is not None
    disk = StuckCheckpoints(assembly.disk)
    settings = replace(assembly.transfer_settings, close_timeout_s=0.3)
    cache = Cache(replace(assembly, disk=disk, transfer_settings=settings))  # type: ignore[arg-type]
    engine = SmallEngine(cache.geometry)
    sequence = cache.sequence(tokens(4, seed=1))
    assert cache.store(sequence, engine.fill(sequence)).wait(10).ok
    assert disk.entered.wait(10)
    closing = threading.Thread(target=cache.close)
    started = time.monotonic()
    closing.start()
    closing.join(20)
    in_time = not closing.is_alive()
    disk.answers.set()
    closing.join(20)
    assert in_time, f"close still waits after {time.monotonic() - started:.0f} s"
    for upkeep in [thread for thread in threading.enumerate() if thread.name == "tiercel-upkeep"]:
        upkeep.join(20)
    for tier in assembly.tiers.values():  # left to the process's end by the cache
        tier.close()


def test_a_last_checkpoint_that_does_not_end_does_not_hold_up_close_either(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config(tmp_path, host=16, disk=64)
    assembly = assemble(MODEL, settings)
    assert assembly.disk is not None
    disk = StuckCheckpoints(assembly.disk, wants_checkpoint=False)
    bounds = replace(assembly.transfer_settings, close_timeout_s=0.3)
    cache = Cache(replace(assembly, disk=disk, transfer_settings=bounds))  # type: ignore[arg-type]
    engine = SmallEngine(cache.geometry)
    sequence = cache.sequence(tokens(4, seed=1))
    assert cache.store(sequence, engine.fill(sequence)).wait(10).ok
    closing = threading.Thread(target=cache.close)
    closing.start()
    closing.join(20)
    in_time = not closing.is_alive()
    with pytest.raises(DirectoryLockedError):
        Cache.open(MODEL, settings)
    with pytest.raises(CacheClosedError):
        assembly.tiers[TierName.HOST].reserve(np.zeros(1, np.uint32))
    last = next(thread for thread in threading.enumerate() if thread.name == "tiercel-close-disk")
    disk.answers.set()  # late, but it ends as it should
    closing.join(20)
    last.join(20)
    assert in_time, "close waits for a device that does not answer"
    assert "its device does not answer" in caplog.text
    with Cache.open(MODEL, settings) as cache:
        assert cache.lookup(cache.sequence(tokens(4, seed=1))).num_blocks == 4


def test_what_closing_the_disk_raises_is_told_to_the_caller(tmp_path: Path) -> None:
    assembly = assemble(MODEL, config(tmp_path, host=16, disk=64))
    cache = Cache(assembly)
    close = assembly.tiers[TierName.DISK].close

    def refuse() -> None:
        close()
        raise OSError(errno.EIO, "the device failed")

    assembly.tiers[TierName.DISK].close = refuse  # type: ignore[method-assign]
    with pytest.raises(OSError, match="the device failed"):
        cache.close()


def test_a_signal_in_close_ends_the_wait_and_not_the_closing(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, threading, time\n"
        "from pathlib import Path\n"
        "from tests.helpers.small_engine import MODEL, SmallEngine, config, store_prompt\n"
        "from tiercel import Cache\n"
        "cache = Cache.open(MODEL, config(Path(sys.argv[1]), host=16, disk=64))\n"
        "store_prompt(cache, SmallEngine(cache.geometry), 1)\n"
        "checkpoint = cache._assembly.disk.checkpoint\n"
        "def slow(order):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(0.5)\n"
        "    checkpoint(order)\n"
        "    print('checkpoint', flush=True)\n"
        "cache._assembly.disk.checkpoint = slow\n"
        "try:\n"
        "    cache.close()\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', flush=True)\n"
    )
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["interrupted", "checkpoint"]), done.stderr
    assert not list(tmp_path.rglob("*.sock"))
