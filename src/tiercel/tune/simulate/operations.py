"""Operations from their plan to their last completion, on the virtual clock: `tiercel.cache`'s dispatcher without threads.

The order is that of the cache: a plan is made and started at once; completions are entered one by one; an operation ends when
its moves and those that it only waits for have ended; room ahead of need is made right after the event that called for it. A
ticket may be resolved before its operation ends, at its deadline: pins and slots then wait for the link.
"""

from collections import Counter, deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiercel.control import LOAD_MOVES_MAX, STORE_MOVES_MAX, Control, Lookup, Operation
from tiercel.hashing import Sequence as TokenSequence
from tiercel.hashing import fingerprint, root_key
from tiercel.plan import Completion, OperationKind
from tiercel.tiers.base import BlockStatus, TierName
from tiercel.tune.simulate.caches import OnLoaded
from tiercel.tune.simulate.clock import Clock
from tiercel.tune.simulate.result import TierTraffic
from tiercel.tune.simulate.setup import SimulationSetup
from tiercel.tune.simulate.transfers import Lane, Transfers

_CANCELLED = bytes([BlockStatus.CANCELLED])
_DISK = TierName.DISK

DEADLINE = "deadline"
"""Name under which a ticket is counted that its deadline ended."""


@dataclass(slots=True, eq=False)
class _Running:
    operation: Operation
    open_moves: int
    on_loaded: OnLoaded | None
    owners: set[int] | None = None
    """Tickets that it waits for, too; None or empty if there are none."""
    followers: list["_Running"] | None = None
    """Those that wait for it."""

    @property
    def ended(self) -> bool:
        return self.open_moves == 0 and not self.owners


class Operations:
    """A `ServedCache`: drives a control half over modelled links.

    Attributes:
        refused: how often something was refused or given up, by the name under which the cache counts it.
    """

    def __init__(self, control: Control, setup: SimulationSetup, clock: Clock, *, seed: int = 0) -> None:
        """seed: of the blocks' keys."""
        self._control = control
        self.clock = clock
        self.tokens_per_block = setup.control.tokens_per_block
        self.tiers = control.tiers
        self._root = root_key(fingerprint({"simulation": seed}), "")
        self._deadline_s = setup.deadline_s
        self._relieves_when_idle = setup.relieves_when_idle
        self._block_bytes = setup.control.block_bytes
        self.refused: Counter[str] = Counter()
        self.transfers = Transfers(setup, clock)
        clock.on_move_end = self.end_move
        self._running: dict[int, _Running] = {}
        self._number = 0
        self._deadlines: deque[tuple[float, int]] = deque()
        self._watching = self._pressed = False
        self._load_lanes = [self.transfers.lane(tier, loading=True) for tier in control.tiers]
        self._store_lanes = [self.transfers.lane(tier, loading=False) for tier in control.tiers]
        demotes = control.settings.demotes
        self._target_lanes = [lane for lane in self._store_lanes if not (demotes and lane.tier is _DISK)]

    def __len__(self) -> int:
        return len(self._running)

    def traffic(self) -> dict[TierName, TierTraffic]:
        """What crossed each tier's links so far."""
        traffic = {}
        for tier in self.tiers:
            read, written = (
                self.transfers.use(self.transfers.lane(tier, loading=loading)) for loading in (True, False)
            )
            traffic[tier] = TierTraffic(
                blocks_read=read.blocks,
                blocks_written=written.blocks,
                evicted=self._control.stats(tier).num_evicted,
                busy_s=read.busy_s + written.busy_s,
                wait_s=read.wait_s + written.wait_s,
            )
        return traffic

    def sequence(self, tokens: NDArray[np.int32]) -> TokenSequence:
        return TokenSequence(self._root, self.tokens_per_block, tokens)

    def expect_store(self, sequence: TokenSequence, blocks: range) -> None:
        """Nothing: there are no bytes to make."""

    def observe_prefill(self, cached_tokens: int, computed_tokens: int, seconds: float) -> None:
        self._control.prefill.observe(cached_tokens, computed_tokens, seconds)

    def lookup(self, sequence: TokenSequence, *, limit_tokens: int, engine_tokens: int) -> Lookup:
        return self._control.lookup(
            sequence,
            now_s=self.clock.now_s,
            limit_tokens=limit_tokens,
            engine_tokens=engine_tokens,
            queued_bytes=self.transfers.queued_bytes,
        )

    def load(self, lookup: Lookup, on_loaded: OnLoaded) -> bool:
        tiers = [segment.tier for segment in lookup.segments]
        fastest, *slower = self._load_lanes
        rooms = [(fastest, len(tiers)), *((lane, LOAD_MOVES_MAX * tiers.count(lane.tier)) for lane in slower)]
        for lane, num_moves in rooms:
            if not self._has_room(lane, num_moves):
                lookup.release()
                return False
        sequence, stop = lookup.sequence, lookup.first_block + lookup.num_blocks
        now_s = self.clock.now_s
        self._start(self._control.begin_load(self._next(), lookup, deadline_s=self._deadline_s, now_s=now_s), on_loaded)
        if self._control.promotes_hits:
            self._promote(sequence, stop)
        return True

    def store(self, sequence: TokenSequence, blocks: range) -> None:
        first, *others = self._target_lanes
        if not self._has_room(first, 1):
            return
        targets = [first.tier, *(lane.tier for lane in others if self._has_room(lane, STORE_MOVES_MAX))]
        if blocks.start and targets[-1] is _DISK:
            self._promote(sequence, blocks.start)
        operation = self._control.begin_store(
            self._next(),
            sequence,
            blocks=blocks,
            deadline_s=self._deadline_s,
            targets=targets,
            now_s=self.clock.now_s,
        )
        self._start(operation, None)

    def _has_room(self, lane: Lane, num_moves: int) -> bool:
        if self.transfers.has_room(lane, num_moves):
            return True
        self.refused[lane.name] += 1
        return False

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _promote(self, sequence: TokenSequence, stop: int) -> None:
        if not self.transfers.has_room(self._store_lanes[-1], 1):
            return
        operation, refusals = self._control.begin_promotion(
            self._next(), sequence, stop, deadline_s=self._deadline_s, now_s=self.clock.now_s
        )
        self.refused.update(refusals)
        if operation is not None:
            self._start(operation, None)

    def _start(self, operation: Operation, on_loaded: OnLoaded | None) -> None:
        plan = operation.plan
        running = _Running(operation, len(plan.moves), on_loaded)
        if operation.attached:
            self._attach(running)
        self._running[plan.ticket] = running
        self._watch(plan.ticket)
        self.transfers.submit(plan)
        if operation.refusals:
            self.refused.update(operation.refusals)
        if running.ended and plan.ticket in self._running:
            self._end(running)
        elif self._control.relief.is_due():
            self._press()

    def _attach(self, running: _Running) -> None:
        """Let an operation wait for those that write its blocks."""
        running.owners = {owner for _, _, owner in running.operation.attached if owner in self._running}
        for owner in running.owners:
            followed = self._running[owner]
            if followed.followers is None:
                followed.followers = []
            followed.followers.append(running)

    def end_move(self, ticket: int, number: int, num_ok: int, busy_s: float, queued_s: float) -> None:
        """Enter that a move has ended; what it did not bring was cancelled."""
        running = self._running[ticket]
        move = running.operation.plan.moves[number]
        completion = Completion(
            ticket=ticket,
            move=number,
            statuses=bytes(num_ok) + _CANCELLED * (move.num_blocks - num_ok),
            num_bytes=num_ok * self._block_bytes,
            busy_s=busy_s,
            queued_s=queued_s,
        )
        self._control.complete(running.operation, completion)
        running.open_moves -= 1
        if running.open_moves == 0:
            self._retire(running)

    def _retire(self, running: _Running) -> None:
        """End an operation whose moves have all ended, and those that only waited for its blocks."""
        if running.ended:
            self._end(running)
        if not running.followers:
            return
        ticket = running.operation.plan.ticket
        for follower in running.followers:
            if follower.owners is not None:
                follower.owners.discard(ticket)
            if follower.ended and follower.operation.plan.ticket in self._running:
                self._end(follower)
        running.followers = None

    def _end(self, running: _Running) -> None:
        operation = running.operation
        self._running.pop(operation.plan.ticket, None)
        if operation.attached:
            self._control.settle_attached(operation)
        self._control.finish(operation)
        demotion = operation.plan.kind is OperationKind.DEMOTE
        if demotion:
            self._control.relief.end(operation, self.clock.now_s)
        if demotion or self._control.relief.is_due():
            self._press()
        self._resolve(running)

    def _resolve(self, running: _Running) -> None:
        on_loaded, running.on_loaded = running.on_loaded, None
        if on_loaded is not None:
            on_loaded(_arrived_blocks(running.operation))

    def _press(self) -> None:
        if not self._pressed:
            self._pressed = True
            self.clock.at(self.clock.now_s, self._relieve)

    def _relieve(self, _: None) -> None:
        """Bring tiers that are fuller than their high watermark down to the low one."""
        self._pressed = False
        if self._relieves_when_idle and self._running:
            return  # the last one to end calls again
        relief, now_s = self._control.relief, self.clock.now_s
        relief.evict(now_s)
        while self.transfers.has_room(self._store_lanes[-1], STORE_MOVES_MAX):
            operation = relief.begin_demotion(self._next(), now_s, self._deadline_s)
            if operation is not None:
                self._start(operation, None)
                continue
            frees, refusal = relief.evict_undemoted(now_s)
            if refusal is not None:
                self.refused[refusal] += 1
            if not frees:
                break

    def _watch(self, ticket: int) -> None:
        """Look at a ticket at its deadline; as all have the same time, the first one launched is the first one late."""
        self._deadlines.append((self.clock.now_s + self._deadline_s, ticket))
        if not self._watching:
            self._watching = True
            self.clock.at(self._deadlines[0][0], self._expire)

    def _expire(self, _: None) -> None:
        due, now_s = self._deadlines, self.clock.now_s
        while due and (due[0][1] not in self._running or due[0][0] <= now_s):
            ticket = due.popleft()[1]
            running = self._running.get(ticket)
            if running is not None:
                self._give_up(ticket, running)
        self._watching = bool(due)
        if due:
            self.clock.at(due[0][0], self._expire)

    def _give_up(self, ticket: int, running: _Running) -> None:
        """Resolve a late ticket; its operation ends when what is in progress of it has arrived."""
        self.refused[DEADLINE] += 1
        self.transfers.cancel(ticket)
        if ticket not in self._running:
            return
        self._resolve(running)
        if running.open_moves == 0:
            running.owners = None
            self._end(running)


def _arrived_blocks(operation: Operation) -> int:
    """Leading blocks of a load that have arrived; what is not known to have arrived did not."""
    lost = np.flatnonzero(operation.statuses)
    return int(lost[0]) if len(lost) else len(operation.statuses)
