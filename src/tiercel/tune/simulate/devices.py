"""Links that transfers share: one transfer's bytes at a time, loads ahead of stores, transfers of a kind in turns.

A transfer is served in chunks, as `tiercel.transfer` does it, and what is left of it goes to the end of its queue. While
nothing else waits, consecutive chunks are one event; whoever arrives then waits for the end of the chunk in progress only. The
latency keeps a transfer's bytes on their way without keeping others off the link.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tiercel.tune.simulate.clock import Clock
from tiercel.tune.simulate.setup import Link

_STEPS = 16
"""Parts that a load's move which another one follows is served in while nothing else waits: the last bytes may come late by
that share of the move. What a store passes on goes to a slower link, which hardly notices: it is served at once."""

_STORE_TURN_CHUNKS = 8
"""Chunks of a store that are served before the next store's turn: nobody waits for one of them. A load that arrives waits
for one chunk, whatever this says."""


@dataclass(slots=True, eq=False)
class Part:
    """Blocks [start, stop) of a move.

    Attributes:
        whole: blocks of the move if it is a load's and another one follows it, else 0.
        arrives_s: known once it is served.
    """

    job: "Job"
    move: int
    start: int
    stop: int
    queued_s: float
    whole: int = 0
    arrives_s: float = 0.0


class Job:
    """Whose parts a device serves; `transfers` says more of it."""

    __slots__ = ()


@dataclass(slots=True)
class Use:
    """What a link was used for: blocks that it brought, seconds in which it moved bytes and in which parts waited for it."""

    blocks: int = 0
    busy_s: float = 0.0
    wait_s: float = 0.0


class Way:
    """One direction of a device."""

    __slots__ = ("block_s", "chunk_blocks", "latency_s", "turn_blocks", "use", "waiting")

    def __init__(self, link: Link, block_bytes: int, chunk_blocks: int, *, loading: bool) -> None:
        self.turn_blocks = chunk_blocks if loading else chunk_blocks * _STORE_TURN_CHUNKS
        self.block_s = block_bytes / link.bytes_per_s
        self.latency_s = link.latency_s
        self.chunk_blocks = chunk_blocks
        self.use = Use()
        self.waiting: deque[Part] = deque()


class Device:
    """Serves the ways that share it, the first one's parts ahead of the others'."""

    def __init__(self, clock: Clock, ways: tuple[Way, ...], on_arrival: Callable[[Part], None]) -> None:
        """ways: one, or that of loads and that of stores. on_arrival: told of a part when its bytes have arrived."""
        self._clock = clock
        self.ways = ways
        self._on_arrival = on_arrival
        self._part: Part | None = None
        """Served last; until `_ends_s` it is in service."""
        self._way = 0
        self._started_s = self._ends_s = 0.0
        self._wakes_s = -1.0
        """When it looks next for what waits."""

    def add(self, part: Part, way: int) -> None:
        """Queue a part."""
        if self._ends_s <= self._clock.now_s:
            self.ways[way].waiting.append(part)
            self._serve()
            return
        if way <= self._way:
            rest = self._cut()
            if rest is not None:
                self.ways[self._way].waiting.append(rest)
        waiting = self.ways[way].waiting
        last = waiting[-1] if waiting else None
        if last is not None and last.job is part.job and last.move == part.move and last.stop == part.start:
            last.stop = part.stop
        else:
            waiting.append(part)
        self._wake()

    def take(self, job: Job) -> list[Part]:
        """Remove what has not been served of a job; a chunk in progress goes on."""
        taken: list[Part] = []
        if self._part is not None and self._part.job is job and self._ends_s > self._clock.now_s:
            rest = self._cut()
            if rest is not None:
                taken.append(rest)
        for way in self.ways:
            found = [part for part in way.waiting if part.job is job]
            if found:
                taken += found
                way.waiting = deque(part for part in way.waiting if part.job is not job)
        return taken

    def _serve(self) -> None:
        """Begin to serve what waits, if anything does. Called when nothing is served."""
        number, way = 0, self.ways[0]
        if not way.waiting:
            number, way = len(self.ways) - 1, self.ways[-1]
            if not way.waiting:
                return
        part, now_s = way.waiting.popleft(), self._clock.now_s
        way.use.wait_s += now_s - part.queued_s
        num_blocks = limit = part.stop - part.start
        if way.waiting:
            limit = way.turn_blocks
        elif part.whole:
            limit = max(way.chunk_blocks, -(-part.whole // _STEPS))
        self._part, self._way, self._started_s = part, number, now_s
        if limit < num_blocks:
            self._ends_s = now_s + limit * way.block_s
            way.waiting.append(self._split(part, part.start + limit))
        else:
            self._ends_s = now_s + num_blocks * way.block_s
        way.use.busy_s += self._ends_s - now_s
        part.arrives_s = self._ends_s + way.latency_s
        self._clock.at(part.arrives_s, self._arrived, part)
        if way.waiting or self.ways[-1].waiting:
            self._wake()

    def _wake(self) -> None:
        """Look for what waits when the service in progress ends."""
        if self._wakes_s != self._ends_s:
            self._wakes_s = self._ends_s
            self._clock.at(self._ends_s, self._woken)

    def _woken(self, _: None) -> None:
        if self._ends_s <= self._clock.now_s:
            self._wakes_s = -1.0
            self._serve()

    def _split(self, part: Part, stop: int) -> Part:
        """Shorten the part in service; returns what is left of it, which may wait from the service's end on."""
        rest = Part(part.job, part.move, stop, part.stop, self._ends_s, part.whole)
        part.stop = stop
        return rest

    def _cut(self) -> Part | None:
        """End the service in progress with its chunk. Returns what is left, None if there is nothing."""
        part, way, now_s = self._part, self.ways[self._way], self._clock.now_s
        assert part is not None, "there is a service to cut"
        if part.stop - part.start <= way.chunk_blocks:
            return None
        chunks = int((now_s - self._started_s) / (way.block_s * way.chunk_blocks)) + 1
        stop = part.start + chunks * way.chunk_blocks
        if stop >= part.stop:
            return None
        ends_s = max(now_s, self._started_s + (stop - part.start) * way.block_s)
        way.use.busy_s -= self._ends_s - ends_s
        self._ends_s = ends_s
        part.arrives_s = ends_s + way.latency_s
        self._clock.at(part.arrives_s, self._arrived, part)
        return self._split(part, stop)

    def _arrived(self, part: Part) -> None:
        if part.arrives_s != self._clock.now_s:
            return  # its service was cut short, and it has arrived before
        self._on_arrival(part)
