"""A cache is closed in bounded time, whatever its device is stuck in."""

import threading
import time
from dataclasses import replace
from pathlib import Path

from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import Cache
from tiercel.cache.assembly import assemble
from tiercel.tiers.base import Slots
from tiercel.tiers.disk import DiskTier


class StuckCheckpoints:
    """A disk tier that always wants a checkpoint, whose device does not answer while one is written."""

    wants_checkpoint = True

    def __init__(self, inner: DiskTier) -> None:
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
