"""Between the control half and the data half: what is launched, whether there is room for it, and resets.

A `Dispatcher` plans under one lock and hands each operation to the `OperationTable`, which owns it from its plan to its last
completion. A ticket may resolve earlier than its operation ends (cancelled, or its deadline passed while a device was busy):
the operation's pins and slots then wait for the device, the caller does not. Used by `cache` only.
"""

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from tiercel.cache.operations import OperationTable
from tiercel.cache.running import Hooks, Resolution, resolve_all
from tiercel.cache.tickets import Ticket
from tiercel.control import (
    LOAD_MOVES_MAX,
    PRIORITY_STEPS_MAX,
    STORE_MOVES_MAX,
    Control,
    Lookup,
    Operation,
    Priority,
    Tuned,
)
from tiercel.errors import CacheClosedError, DeadlineError, ThrottledError
from tiercel.hashing import Sequence as TokenSequence
from tiercel.tiers.base import Tier, TierName
from tiercel.transfer import NOBODY, EngineSide, LaneName, Owner, TransferSettings

_DISK = TierName.DISK


class Dispatcher:
    """Runs operations of one cache and resolves their tickets. Thread-safe."""

    def __init__(
        self,
        control: Control,
        tiers: Mapping[TierName, Tier],
        settings: TransferSettings,
        hooks: Hooks,
    ) -> None:
        """Start the threads. Raises RuntimeError if one cannot start; then none runs."""
        self._control = control
        self._on_throttled = hooks.on_throttled
        self._numbers = itertools.count(1)
        self._refusal: str | None = None
        self._resetting = False
        self._relieves_when_idle = False
        self._reset_lock = threading.Lock()
        self._load_lanes = [LaneName(tier, True) for tier in sorted(tiers)]
        self._store_lanes = [LaneName(tier, False) for tier in sorted(tiers)]
        demotes = control.settings.demotes
        self._target_lanes = [lane for lane in self._store_lanes if not (demotes and lane.tier is _DISK)]
        self._table = OperationTable(control, tiers, settings, hooks)
        self.transfer = self._table.transfer

    @property
    def num_running(self) -> int:
        """Operations that have not ended."""
        return len(self._table)

    def is_settled(self, upkeep_idle: Callable[[], bool]) -> bool:
        """Whether no operation is open and nothing woke the upkeep, at one moment."""
        with self._table.lock:
            return not len(self._table) and upkeep_idle()

    def relieve_when_idle(self) -> None:
        """Let `relieve` do nothing while an operation is open."""
        self._relieves_when_idle = True

    def check_open(self) -> None:
        """Raise CacheClosedError if the cache cannot be used any more, or not in this process. Takes no lock."""
        if self._refusal is not None:
            raise CacheClosedError(self._refusal)

    def refuse(self, reason: str) -> None:
        """Refuse every call from now on, for a reason. Takes no lock."""
        self._refusal = reason

    def load(self, loads: Sequence[tuple[Lookup, EngineSide]], timeout_s: float) -> list[Ticket]:
        """Launch loads, all or none. Raises ThrottledError, StaleTicketError, CacheClosedError or ValueError."""
        now_s = time.monotonic()
        ended: list[Resolution] = []
        with self._table.lock:
            owners = [self._owner(lookup.sequence, target.client) for lookup, target in loads]
            for owner in dict.fromkeys(owners):
                asked = [lookup for (lookup, _), own in zip(loads, owners, strict=True) if own == owner]
                self._check_load_room(owner, [segment.tier for lookup in asked for segment in lookup.segments])
            self._control.check_launchable([lookup for lookup, _ in loads])
            tickets = []
            for (lookup, target), owner in zip(loads, owners, strict=True):
                operation = self._control.begin_load(next(self._numbers), lookup, deadline_s=timeout_s, now_s=now_s)
                tickets.append(self._table.start(operation, target, now_s, ended, owner))
                if self._control.promotes_hits:
                    stop = lookup.first_block + lookup.num_blocks
                    self._promote(lookup.sequence, stop, timeout_s, (now_s, owner), ended)
        resolve_all(ended)
        return tickets

    def note_load(
        self, sequence: TokenSequence, stop: int, num_bytes: int, seconds: float, timeout_s: float, client: int
    ) -> None:
        """Take note of a load from the host tier that somebody else made.

        Args:
            stop: behind the last block of the sequence that was loaded.
            timeout_s: deadline of the promotion, if the hit leads to one.
        """
        ended: list[Resolution] = []
        with self._table.lock:
            self._control.transfer_costs[TierName.HOST].observe(num_bytes, seconds)
            if self._control.promotes_hits and self._refusal is None and not self._resetting:
                asked = time.monotonic(), self._owner(sequence, client)
                self._promote(sequence, stop, timeout_s, asked, ended)
        resolve_all(ended)

    def _owner(self, sequence: TokenSequence, client: int) -> Owner:
        return Owner(self._control.tenants.of(sequence), client)

    def _check_load_room(self, owner: Owner, tiers: Sequence[TierName]) -> None:
        fastest, *slower = self._load_lanes
        self._check_room([fastest], len(tiers), owner)
        for lane in slower:
            self._check_room([lane], LOAD_MOVES_MAX * tiers.count(lane.tier), owner)

    def prefetch(self, lookup: Lookup, timeout_s: float, client: int = 0) -> Ticket:
        """Launch a prefetch. Raises as `load` does."""
        now_s = time.monotonic()
        ended: list[Resolution] = []
        with self._table.lock:
            owner = self._owner(lookup.sequence, client)
            self._check_room([LaneName(segment.tier, True) for segment in lookup.segments], len(lookup.segments), owner)
            operation = self._control.begin_prefetch(next(self._numbers), lookup, deadline_s=timeout_s, now_s=now_s)
            ticket = self._table.start(operation, None, now_s, ended, owner)
        resolve_all(ended)
        return ticket

    def store(
        self, sequence: TokenSequence, source: EngineSide, first_block: int, timeout_s: float, priority: Priority = 0
    ) -> Ticket:
        """Launch a store into every tier whose queue has room; the fastest one's must. Raises as `load` does."""
        now_s = time.monotonic()
        ended: list[Resolution] = []
        # Hash before the lock is taken: a long hash gives the interpreter's turn away, and nobody should do that while others
        # wait for him.
        sequence.parent_key(min(sequence.num_blocks, first_block + source.num_blocks))
        with self._table.lock:
            first, *others = self._target_lanes
            owner = self._owner(sequence, source.client)
            self._check_room([first], 1 if isinstance(priority, int) else PRIORITY_STEPS_MAX, owner)
            targets = [first.tier]
            for lane in others:
                if self.transfer.has_room(lane, STORE_MOVES_MAX, owner):
                    targets.append(lane.tier)
                else:
                    self._on_throttled(str(lane))
            if first_block and targets[-1] is _DISK:
                self._promote(sequence, first_block, timeout_s, (now_s, owner), ended)
            operation = self._control.begin_store(
                next(self._numbers),
                sequence,
                blocks=range(first_block, first_block + source.num_blocks),
                deadline_s=timeout_s,
                targets=targets,
                priority=priority,
                now_s=now_s,
            )
            ticket = self._table.start(operation, source, now_s, ended, owner)
        resolve_all(ended)
        return ticket

    def run(self, lane: LaneName, begin: Callable[[int, float], tuple[Operation, EngineSide]]) -> Ticket:
        """Launch an operation of one move in a lane. Raises ThrottledError or CacheClosedError.

        Args:
            begin: makes the operation and names its memory, from a ticket's number and the time. Called under the lock.
        """
        now_s = time.monotonic()
        ended: list[Resolution] = []
        with self._table.lock:
            self._check_room([lane], 1)
            operation, memory = begin(next(self._numbers), now_s)
            ticket = self._table.start(operation, memory, now_s, ended)
        resolve_all(ended)
        return ticket

    def _promote(
        self, sequence: TokenSequence, stop: int, timeout_s: float, asked: tuple[float, Owner], ended: list[Resolution]
    ) -> None:
        """Start to copy to disk what it lacks and may have of the blocks before `stop`. asked: when, and by whom. Called under
        the lock."""
        now_s, owner = asked
        if not self.transfer.has_room(self._store_lanes[-1], 1, owner):
            return
        number = next(self._numbers)
        operation, refusals = self._control.begin_promotion(number, sequence, stop, deadline_s=timeout_s, now_s=now_s)
        for name in refusals:
            self._on_throttled(name)
        if operation is not None:
            self._table.start(operation, None, now_s, ended, owner)

    def relieve(self, timeout_s: float) -> None:
        """Bring tiers that are fuller than their high watermark down to the low one, demoting what the disk is to have.

        Args:
            timeout_s: deadline of each demotion.
        """
        now_s = time.monotonic()
        relief = self._control.relief
        ended: list[Resolution] = []
        with self._table.lock:
            if self._refusal is not None or self._resetting:
                return
            if self._relieves_when_idle and len(self._table):
                return  # the last one to end wakes the upkeep again
            self._table.apply_frees(relief.evict(now_s))
            while self.transfer.has_room(self._store_lanes[-1], STORE_MOVES_MAX):
                operation = relief.begin_demotion(next(self._numbers), now_s, timeout_s)
                if operation is not None:
                    self._table.start(operation, None, now_s, ended)
                    continue
                frees, refusal = relief.evict_undemoted(now_s)
                self._table.apply_frees(frees)
                if refusal is not None:
                    self._on_throttled(refusal)
                if not frees:
                    break
        resolve_all(ended)

    def tune(self, tuned: Tuned) -> None:
        """Let admission and watermarks be these from the next operation on."""
        with self._table.lock:
            self._control.tune(tuned)

    def _check_room(self, lanes: Sequence[LaneName], num_moves: int, owner: Owner = NOBODY) -> None:
        self.check_open()
        if self._resetting:
            raise ThrottledError("the cache is being reset; recompute, or try again when that is done")
        for lane in lanes:
            if not self.transfer.has_room(lane, num_moves, owner):
                self._on_throttled(str(lane))
                raise lane.no_room(num_moves)

    def reset(self, timeout_s: float, make_durable: Callable[[], None]) -> None:
        """Cancel everything and forget every block. What is launched meanwhile is throttled.

        Args:
            timeout_s: longest wait for the devices.
            make_durable: called when index and tiers are empty, before anything new may start.

        Raises:
            DeadlineError: a device was still busy; nothing was forgotten.
        """
        with self._reset_lock:
            with self._table.lock:
                self._resetting = True
            try:
                stop_at = time.monotonic() + timeout_s
                self._table.cancel_all(timeout_s)
                drained = self.transfer.drain(max(0.0, stop_at - time.monotonic()))
                with self._table.lock:
                    if not drained or len(self._table):
                        raise DeadlineError(
                            f"a device is still busy {timeout_s} s after the reset began and nothing was forgotten; reset again"
                        )
                    self._table.apply_frees(self._control.reset())
                    make_durable()
            finally:
                self._resetting = False

    def close(self) -> bool:
        """Cancel everything and end the threads. Idempotent. False if a device was still busy when its time was over."""
        with self._table.lock:
            self._refusal = self._refusal or "the cache is closed"
        return self._table.close()
