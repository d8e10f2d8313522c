"""`auto_tune` at work: looks at the counts now and then, on the upkeep's thread, and applies what `control.tuning` decides.

Everything that is changed is logged with its reason, counted, and kept for the status.
"""

import logging
import threading
import time
from collections import deque

from tiercel.cache.assembly import Assembly
from tiercel.cache.dispatch import Dispatcher
from tiercel.cache.observing import TIER_NAMES
from tiercel.control.tuning import Action, Change, Counts, Limits, look, start
from tiercel.telemetry.snapshot import TuningChangeStatus, TuningStatus
from tiercel.tiers.base import TierName

LOOK_INTERVAL_S = 10.0
"""Time between two looks; a look costs about as much as a status snapshot."""

_CHANGES_KEPT = 16
_DISK = TIER_NAMES[TierName.DISK]
_KEPT_FROM_DISK = ("budget", "disk-store")
"""Names under which a store that could not be written to disk is counted as throttled."""

_logger = logging.getLogger(__name__)


class AutoTuner:
    """Tunes one cache. Thread-safe."""

    def __init__(self, assembly: Assembly, dispatcher: Dispatcher, limits: Limits | None = None) -> None:
        """limits: how much is seen before something is changed; by default as `Limits` has it."""
        self._assembly = assembly
        self._dispatcher = dispatcher
        self._limits = Limits() if limits is None else limits
        self._lock = threading.Lock()
        self._state = start(assembly.control.settings)
        self._changes: deque[TuningChangeStatus] = deque(maxlen=_CHANGES_KEPT)
        self._status = self._told()
        self._next_s = float("-inf")

    def run(self) -> None:
        """Look, if it is time to. Takes the dispatcher's lock if something is to change."""
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + LOOK_INTERVAL_S
            self.look(now_s)

    def look(self, now_s: float) -> Change | None:
        """Look now, and change what is to be changed. Returns what was done.

        Args:
            now_s: monotonic seconds.
        """
        with self._lock:
            state, change = look(self._state, self._counts(), now_s, self._limits)
            if change is not None and change.action is not Action.KEPT:
                self._dispatcher.tune(state.tuned)
            self._state = state
            if change is not None:
                self._tell(change)
            return change

    def status(self) -> TuningStatus:
        """What is tuned, how it stands, and what was changed last. Takes no lock."""
        return self._status

    def _told(self) -> TuningStatus:
        values = {knob.value: self._state.text(knob) for knob in self._state.knobs}
        return TuningStatus(values=values, changes=tuple(self._changes))

    def _counts(self) -> Counts:
        activity, control = self._assembly.metrics.activity(), self._assembly.control
        disk, host = TierName.DISK in control.tiers, TierName.HOST in control.tiers
        moved = self._assembly.tiers[TierName.DISK].stats() if disk else None
        left = control.stats(TierName.HOST) if host else None
        return Counts(
            lookups=activity.lookups,
            looked_up=activity.lookup_blocks,
            hits=sum(activity.hit_blocks.values()),
            disk_hits=activity.hit_blocks.get(_DISK, 0),
            disk_written=0 if moved is None else moved.blocks_written,
            disk_read=0 if moved is None else moved.blocks_read,
            disk_evicted=control.stats(TierName.DISK).num_evicted if disk else 0,
            host_evicted=0 if left is None else left.num_evicted,
            host_evicted_age_s=0.0 if left is None else left.evicted_age_sum_s,
            stores=control.relief.num_stores,
            cramped=control.relief.num_cramped,
            refused=sum(activity.throttled.get(name, 0) for name in _KEPT_FROM_DISK),
            resets=control.num_resets,
        )

    def _tell(self, change: Change) -> None:
        knob, action = change.knob.value, change.action.value
        self._assembly.metrics.count("tuning_changes", action)
        told = TuningChangeStatus(
            at=time.time(), knob=knob, action=action, before=change.before, after=change.after, reason=change.reason
        )
        self._changes.append(told)
        self._status = self._told()
        values = f"{change.after}, was {change.before}" if change.action is not Action.KEPT else change.after
        _logger.info(
            "auto-tuning: %s %s (%s): %s", knob, action, values, change.reason,
            extra={"event": "tuning", "knob": knob, "action": action, "before": change.before, "after": change.after},
        )  # fmt: skip
