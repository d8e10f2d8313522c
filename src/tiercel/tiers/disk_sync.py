"""When the disk tier's bytes become durable: blocks first, then the records that name them, every few seconds.

It matters only when the machine fails; a killed process loses nothing. A refusal is logged and costs no more than warm blocks.
"""

import logging
import threading
from collections.abc import Callable

from tiercel import _native
from tiercel.tiers.disk_records import BlockRecords

_log = logging.getLogger("tiercel.tiers.disk")


class DiskSync:
    """Makes files and journal durable once an interval has passed. Thread-safe."""

    def __init__(
        self, files: _native.BlockFiles, records: BlockRecords, *, interval_s: float, clock: Callable[[], float]
    ) -> None:
        """Start the first interval now."""
        self._files = files
        self._records = records
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.Lock()
        self._synced_at = clock()

    def sync_if_due(self) -> None:
        """Sync, if the last time was an interval ago or longer. One caller syncs; the others go on."""
        now = self._clock()
        with self._lock:
            if now - self._synced_at < self._interval_s:
                return
            self._synced_at = now
        self.sync_blocks()
        self._records.sync()

    def sync_blocks(self) -> None:
        """Make blocks durable, before the records that name them."""
        try:
            self._files.sync()
        except OSError as error:
            told = {"event": "disk_sync_refused", "errno": error.errno}
            _log.warning("cannot sync blocks (%s): a power failure may make them misses", error, extra=told)
