"""What every facade of one machine's tiers is made of: its threads, what it tells, its reset and its end.

`facade.Cache` adds blocks named by the tokens before them, `keyed.KeyedCache` blocks that their owner names.
"""

import atexit
import os
import time
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tiercel.cache.assembly import Assembly
from tiercel.cache.bounded import Errand
from tiercel.cache.checks import ArgumentChecks
from tiercel.cache.common import Closeable
from tiercel.cache.dispatch import Dispatcher
from tiercel.cache.forks import forget, refuse_in_forked_children
from tiercel.cache.observing import Observer
from tiercel.cache.reporting import Reporter
from tiercel.cache.running import Hooks
from tiercel.cache.tuning import LOOK_INTERVAL_S, AutoTuner
from tiercel.cache.upkeep import Upkeep
from tiercel.control import BlockChange, HitCurve
from tiercel.hashing import root_key
from tiercel.layout import BlockGeometry
from tiercel.plan import Move
from tiercel.telemetry.snapshot import StatusSnapshot
from tiercel.tiers.base import TierName

_RESET_TIMEOUT_S = 30.0
_SETTLING_S = 0.0002
"""How often `settle` looks."""
_NAMESPACES_KEPT = 4096
"""Namespaces whose root key is not computed again for each sequence."""


class CacheCore(Closeable):
    """An open cache, however its blocks are named. Use as a context manager, sync or async, or call `close`."""

    def __init__(self, assembly: Assembly) -> None:
        """Use `Cache.open`."""
        self.geometry: BlockGeometry = assembly.geometry
        self.devices = assembly.devices
        """GPUs that engines' memory lies on; `devices.attach` prepares one."""
        self.shared_memory = assembly.shared_memory
        """What ranks map (`RankGroup`): the host tier's slots, the disk tier's buffers."""
        self._assembly = assembly
        self._observer = Observer(assembly)
        self._reporter = Reporter(assembly)
        self._upkeep = self._make_upkeep()
        hooks = Hooks(
            on_move=self._observer.observe_move,
            after_move=self._after_move,
            on_throttled=self._observer.throttled,
            on_pressure=self._upkeep.wake,
        )
        try:
            self._dispatcher = Dispatcher(assembly.control, assembly.tiers, assembly.transfer_settings, hooks)
        except BaseException:
            assembly.close(drained=True)
            raise
        self._tuner = AutoTuner(assembly, self._dispatcher) if assembly.config.auto_tune else None
        self._checks = ArgumentChecks(assembly.geometry, assembly.fingerprint, assembly.config.transfer_timeout_s)
        self._root_key = lru_cache(maxsize=_NAMESPACES_KEPT)(root_key)
        self._process = os.getpid()
        self._closing = Errand(self._release, name="tiercel-close")
        atexit.register(self.close)
        refuse_in_forked_children(self._dispatcher)
        try:
            self._upkeep.start()
            self._observer.start()
            self._reporter.start(
                self._dispatcher.transfer.queue_depths,
                lambda: {"running": self._dispatcher.num_running},
                None if self._tuner is None else self._tuner.status,
            )
        except BaseException:
            self.close()
            raise

    def _make_upkeep(self) -> Upkeep:
        timeout_s = self._assembly.config.transfer_timeout_s
        tasks = (lambda: self._dispatcher.relieve(timeout_s), self._assembly.checkpoint_if_due)
        if not self._assembly.config.auto_tune:
            return Upkeep(tasks)
        return Upkeep((*tasks, self._tune), interval_s=LOOK_INTERVAL_S)

    def _tune(self) -> None:
        if self._tuner is not None:
            self._tuner.run()

    def _after_move(self, move: Move) -> None:
        if move.target is TierName.DISK and self._assembly.checkpoint_is_due:
            self._upkeep.wake()

    def observe_recompute(self, reason: str) -> None:
        """Tell that an error of ours became recompute, and which; status and metrics count it."""
        self._observer.recompute(reason)

    def note(self, text: str, *, kind: str) -> None:
        """Tell of something that is slower or less than it could be: logged once, counted under its kind, shown in the status."""
        self._assembly.notes.add(text, kind=kind)

    def settle(self, timeout_s: float) -> bool:
        """Wait until nothing is under way: tickets have ended, and so has what the cache does by itself, such as demotions.

        For replays and tests, which need the index as it is when all has happened; serving never waits for it.

        Returns:
            Whether that was so before the time was over, at some moment: other threads may have begun something since.
        """
        stop_at = time.monotonic() + timeout_s
        while not self._dispatcher.is_settled(lambda: self._upkeep.idle):
            if time.monotonic() >= stop_at:
                return False
            time.sleep(_SETTLING_S)
        return True

    def relieve_when_idle(self) -> None:
        """Make room ahead of need only when no ticket is open, from now on. What leaves a tier then does not depend on how long
        transfers take: for replays that are compared, block for block, with a simulation. Serving is slower for it."""
        self._dispatcher.relieve_when_idle()

    def reset(self) -> None:
        """Forget every block in every tier, durably, because the weights changed. Open tickets are cancelled; what other threads
        launch before it returns raises ThrottledError.

        Raises:
            DeadlineError: a device did not finish its transfers in time; nothing was forgotten, call again.
            TierFailedError: the disk tier could not be emptied durably; call again before storing anything.
        """
        self._dispatcher.check_open()
        self._dispatcher.reset(_RESET_TIMEOUT_S, self._assembly.empty_durably)

    def stats(self) -> StatusSnapshot:
        """What the cache holds and did, frozen; the same that `tiercel stats` and the metrics show."""
        return self._reporter.snapshot()

    def hit_curve(self, capacities_blocks: Iterable[int] | None = None) -> HitCurve:
        """The hit rate that an LRU cache of each capacity would have had of late, from an eighth to eight times this one's.
        Raises ValueError beyond that, or if `ghost_sample_rate` is 0."""
        return self._assembly.control.hit_curve(capacities_blocks)

    def watch_blocks(self, num_changes: int) -> None:
        """Note from now on which blocks become readable in a tier and which leave it, for `block_changes`; 0: no longer.

        Args:
            num_changes: room for this many until they are taken, 18 bytes each.
        """
        self._assembly.control.blocks.watch(num_changes)

    def block_changes(self) -> tuple[BlockChange, ...] | None:
        """Return what was noted since the last call, in order; None if there was more than room for: ask `block_keys` then."""
        return self._assembly.control.blocks.changes()

    def block_keys(self, tier: TierName) -> NDArray[np.uint8]:
        """Return the keys of a tier's blocks that can be read: uint8[num_blocks, 16]. Walks the whole tier."""
        return self._assembly.control.blocks.keys(tier)

    def close(self) -> None:
        """Cancel open tickets, write the disk tier's checkpoint and release everything. Idempotent; bounded.

        An exception that a signal raises here ends the wait, not the closing: the process's end waits for that.
        In a process forked from the one that opened the cache this does nothing; every other call raises CacheClosedError.
        """
        if os.getpid() != self._process:
            return
        self._closing.wait()
        atexit.unregister(self.close)

    def _release(self) -> None:
        self._upkeep.end()
        drained = self._dispatcher.close()
        forget(self._dispatcher)
        # What is stuck in a transfer has had its time; a checkpoint alone gets as much.
        drained = self._upkeep.join(self._assembly.transfer_settings.close_timeout_s if drained else 0.0) and drained
        try:
            self._reporter.close()
            self._observer.close()
        finally:
            self._assembly.close(drained=drained)
