"""What I/O errors mean: for a block its status, and for the tier whether it stays in service.

    in service --failures_max failed calls in a row, or the probe finds a fault--> out of service
    out of service --probe_interval_s passed, the probe finds none, and one call succeeds--> in service

A tier out of service refuses calls at once with `TierFailedError`: no request of an engine waits for a device that is gone. One
call per probe interval is let through to find out whether it is back. Going and coming back are logged once each.
"""

import errno
import logging
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tiercel import _native
from tiercel.errors import TierFailedError
from tiercel.tiers._bookkeeping import distinct
from tiercel.tiers.base import BlockStatus, Slots, Statuses

_log = logging.getLogger("tiercel.tiers.disk")


class Service:
    """Whether a tier takes calls of one kind. Thread-safe."""

    def __init__(
        self,
        act: str,
        *,
        failures_max: int,
        probe_interval_s: float,
        clock: Callable[[], float],
        probe: Callable[[], str] = str,
    ) -> None:
        """Start in service.

        Args:
            act: "reads" or "writes", for messages.
            failures_max: failed calls in a row that end the service.
            probe_interval_s: time between two looks at `probe`, and between two calls let through while out of service.
            clock: seconds, monotonic.
            probe: returns why the device cannot serve, or "". Called at most once per interval, by the call that it delays.
        """
        self._act = act
        self._failures_max = failures_max
        self._probe_interval_s = probe_interval_s
        self._clock = clock
        self._probe = probe
        self._lock = threading.Lock()
        self._num_failures = 0
        self._reason = ""
        self.num_outages = 0
        """How often the tier went out of service."""
        self._probe_at = clock() + probe_interval_s

    @property
    def reason(self) -> str:
        """Why the tier is out of service, or ""."""
        return self._reason

    def admit(self) -> None:
        """Let a call in. Raises TierFailedError while out of service."""
        with self._lock:
            due = self._clock() >= self._probe_at
            if due:
                self._probe_at = self._clock() + self._probe_interval_s
            reason = self._reason
        if not due:
            if reason:
                raise TierFailedError(reason)
            return
        fault = self._probe()
        if fault:
            raise TierFailedError(self._leave(fault))

    def finish(self, statuses: Statuses) -> None:
        """Note how a call ended. It failed if the device failed some block and served none; a full device is no failed one."""
        if np.isin(statuses, (BlockStatus.OK, BlockStatus.CORRUPT)).any():
            self._come_back()
        elif (statuses == BlockStatus.IO_ERROR).any():
            with self._lock:
                self._num_failures += 1
                leaves = self._num_failures >= self._failures_max
            if leaves:
                self._leave(f"{self._failures_max} calls in a row failed")

    def _leave(self, fault: str) -> str:
        with self._lock:
            if self._reason:
                return self._reason
            self._probe_at = self._clock() + self._probe_interval_s
            self.num_outages += 1
            reason = self._reason = (
                f"the disk tier takes no {self._act}: {fault}; it tries again every {self._probe_interval_s:g} s, "
                "and blocks are misses until then"
            )
        _log.error("%s", reason, extra={"event": "disk_out_of_service", "act": self._act})
        return reason

    def _come_back(self) -> None:
        with self._lock:
            self._num_failures = 0
            if not self._reason:
                return
            self._reason = ""
        _log.warning("the disk tier takes %s again", self._act, extra={"event": "disk_in_service", "act": self._act})


def statuses_of(slots: Slots, errors: NDArray[np.int32], act: str) -> Statuses:
    """Turn the native outcomes of a call into statuses, and log what failed.

    Args:
        slots: of the call.
        errors: for each 0, an errno, or CHECKSUM_MISMATCH.
        act: "read" or "write", for the log.
    """
    statuses = np.full(len(errors), BlockStatus.IO_ERROR, dtype=np.uint8)
    statuses[errors == 0] = BlockStatus.OK
    statuses[errors == _native.CHECKSUM_MISMATCH] = BlockStatus.CORRUPT
    statuses[(errors == errno.ENOSPC) | (errors == errno.EDQUOT)] = BlockStatus.NO_SPACE
    for code in distinct(errors[errors != 0]).tolist():
        failed = slots[errors == code]
        _log.warning(
            "%s of %d blocks failed: %s; first slot %d",
            act,
            len(failed),
            "wrong checksum" if code < 0 else errno.errorcode.get(code, code),
            int(failed[0]),
            extra={"event": "disk_blocks_failed", "act": act, "errno": code, "blocks": len(failed)},
        )
    return statuses
