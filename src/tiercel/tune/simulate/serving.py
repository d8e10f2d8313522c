"""A trace through modelled engines, over a cache that is modelled as well (`simulation`) or real (`tiercel.tune.replay`).

    arrive -> replica's own prefixes -> lookup -> load -> wait for the engine -> prefill -> first token, store
      -> decode -> end, store what was generated -> those that waited for this request arrive

Here prompts are computed one after the other; `steps` computes them in batches, as engines with chunked prefill do.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from tiercel.control import Lookup
from tiercel.hashing import Sequence
from tiercel.plan import Segment
from tiercel.tune.simulate.caches import ServedCache
from tiercel.tune.simulate.engine import Replica, Request
from tiercel.tune.simulate.outputs import Outputs
from tiercel.tune.simulate.recorder import Recorder
from tiercel.tune.simulate.setup import EngineModel
from tiercel.tune.traces import NO_REQUEST, Trace

Progress = Callable[[int, int], None]
"""Told (requests that have ended, all requests) as a run goes on."""

_PROGRESS_EVERY = 256


class Serving:
    """Requests of one trace, served by engines over one cache."""

    def __init__(
        self,
        trace: Trace,
        engine: EngineModel,
        cache: ServedCache,
        *,
        speedup: float = 1.0,
        progress: Progress | None = None,
    ) -> None:
        """speedup: arrivals, and those behind another request, come this many times faster."""
        self._trace = trace
        # One number at a time is read faster through these than from the arrays, and is a plain int.
        self._input_tokens = trace.input_tokens.data
        self._output_tokens = trace.output_tokens.data
        self._engine = engine
        self._speedup = speedup
        self._size = cache.tokens_per_block
        self._progress = progress
        self.cache = cache
        self.clock = cache.clock
        self.replicas = [Replica(engine, self._size) for _ in range(engine.replicas)]
        self._outputs = Outputs(trace)
        self._record = Recorder(trace.num_requests, cache.tiers)
        self._arrival = 0
        self._num_arrived = self._num_ended = 0
        # Those that wait for a request stand side by side in this order.
        self._followers = np.argsort(trace.after, kind="stable").astype(np.int32)
        numbers = np.arange(trace.num_requests + 1)
        self._followers_begin = np.searchsorted(trace.after[self._followers], numbers).data

    def run(self) -> Recorder:
        """Run to the end of the last request. Once.

        Returns:
            What became of each request.

        Raises:
            ValueError: requests of the trace wait for each other.
        """
        self._schedule_arrival()
        self.clock.run()
        if stuck := self._trace.num_requests - self._num_ended:
            raise ValueError(f"{self._trace.name}: {stuck} requests wait (`after`) for requests that wait for them")
        return self._record

    def _schedule_arrival(self) -> None:
        """Ask for the next arrival that waits for no other request."""
        trace = self._trace
        while self._arrival < trace.num_requests:
            number = self._arrival
            self._arrival += 1
            if trace.after[number] == NO_REQUEST:
                self.clock.at(float(trace.arrivals_s[number]) / self._speedup, self._arrive_open, number)
                return

    def _arrive_open(self, number: int) -> None:
        self._schedule_arrival()
        self._arrive(number)

    def _arrive(self, number: int) -> None:
        """Look a request up in the engine and in the cache, and begin to load."""
        request = self._meet(number)
        lookup = self._look_up(request)
        cached = (request.engine_blocks + lookup.num_blocks) * self._size
        self._expect(request, cached)
        if lookup.num_blocks == 0:
            lookup.release()
        elif self.cache.load(lookup, partial(self._loaded, request, lookup.segments)):
            return
        self._ready(request)

    def _meet(self, number: int) -> Request:
        """Note that a request has arrived, and choose its replica."""
        now_s = self.clock.now_s
        self._record.arrived_s[number] = now_s
        num_tokens = self._input_tokens[number]
        request = Request(
            number=number,
            order=self._num_arrived,
            sequence=self.cache.sequence(self._trace.tokens(number)),
            replica=self._free_first(now_s),
            num_tokens=num_tokens,
            cacheable_blocks=max(0, num_tokens - 1) // self._size,
        )
        self._num_arrived += 1
        return request

    def _look_up(self, request: Request) -> Lookup:
        """Look a request up in the engine and in the cache."""
        self._match_engine(request)
        lookup = self.cache.lookup(
            request.sequence, limit_tokens=request.num_tokens - 1, engine_tokens=request.engine_blocks * self._size
        )
        self._record.matched_blocks[request.number] = max(request.engine_blocks, lookup.matched_blocks)
        return lookup

    def _expect(self, request: Request, cached: int) -> None:
        """Let the replica count on computing a request behind its cached tokens."""
        request.expected_ns = int(1e9 * self._engine.prefill.seconds(cached, request.num_tokens - cached))
        request.replica.expect(request)

    def _free_first(self, now_s: float) -> Replica:
        """The replica that would be done first with what it was given."""
        replicas = self.replicas
        return replicas[0] if len(replicas) == 1 else min(replicas, key=lambda replica: replica.free_at_s(now_s))

    def _match_engine(self, request: Request) -> None:
        cache = request.replica.cache
        if cache is not None:
            match = cache.match(request.sequence, request.cacheable_blocks, self.clock.now_s)
            request.engine_blocks = match.num_blocks
            request.hold(match)

    def _loaded(self, request: Request, segments: tuple[Segment, ...], num_blocks: int) -> None:
        """Note what a load brought; what did not arrive is computed."""
        left = num_blocks
        for segment in segments:
            count = min(left, segment.num_blocks)
            request.loaded[segment.tier] = request.loaded.get(segment.tier, 0) + count
            left -= count
        request.stored_blocks = request.engine_blocks + num_blocks
        self._ready(request)

    def _ready(self, request: Request) -> None:
        self._record.ready_s[request.number] = self.clock.now_s
        request.replica.add(request)
        self._compute_next(request.replica)

    def _compute_next(self, replica: Replica) -> None:
        request = replica.next()
        if request is None:
            return
        # What another request computed meanwhile need not be computed again.
        cached_blocks = request.engine_blocks + sum(request.loaded.values())
        self._match_engine(request)
        seconds = self._note_start(request, max(cached_blocks, request.engine_blocks))
        now_s = self.clock.now_s
        self.cache.expect_store(request.sequence, range(request.stored_blocks, request.sequence.num_blocks))
        replica.start(request, now_s + seconds)
        self.clock.at(now_s + seconds, self._computed, request)

    def _note_start(self, request: Request, cached_blocks: int) -> float:
        """Note that a request begins to be computed behind its cached blocks. Returns how long that takes alone."""
        number, record = request.number, self._record
        own_blocks = cached_blocks - sum(request.loaded.values())
        cached, own = cached_blocks * self._size, own_blocks * self._size
        prefill = self._engine.prefill
        seconds = prefill.seconds(cached, request.num_tokens - cached)
        record.started_s[number] = self.clock.now_s
        record.gpu_blocks[number] = own_blocks
        for tier, count in request.loaded.items():
            record.hit_blocks[tier][number] = count
        record.prefill_busy_s += seconds
        record.prefill_saved_s += prefill.seconds(own, request.num_tokens - own) - seconds
        if seconds > 0:
            self.cache.observe_prefill(cached, request.num_tokens - cached, seconds)
        return seconds

    def _computed(self, request: Request) -> None:
        """The prompt is computed and its first token is there."""
        now_s, number, replica = self.clock.now_s, request.number, request.replica
        self._record.first_token_s[number] = now_s
        self._keep(request, request.sequence)
        replica.is_computing = False
        num_decoded = max(0, self._output_tokens[number] - 1)
        self.clock.at(now_s + num_decoded * self._engine.decode_token_s, self._ended, request)
        self._compute_next(replica)

    def _keep(self, request: Request, sequence: Sequence) -> None:
        """Keep the full blocks of a sequence in the engine, and store those of them that were not loaded or stored before."""
        stop = sequence.num_blocks
        if request.replica.cache is not None:
            request.hold(request.replica.cache.insert(sequence, self.clock.now_s))
        if stop > request.stored_blocks:
            self.cache.store(sequence, range(request.stored_blocks, stop))
            request.stored_blocks = stop

    def _ended(self, request: Request) -> None:
        """The last token is there."""
        now_s, number = self.clock.now_s, request.number
        self._record.ended_s[number] = now_s
        if self._engine.stores_output and self._output_tokens[number] > 1:
            self._keep_output(request)
        request.hold(None)
        first, last = self._followers_begin[number], self._followers_begin[number + 1]
        if first < last:
            self._let_follow(range(first, last))
        self._num_ended += 1
        if self._progress is not None and self._num_ended % _PROGRESS_EVERY == 0:
            self._progress(self._num_ended, self._trace.num_requests)

    def _let_follow(self, places: range) -> None:
        """Let those arrive that waited for a request. places: where they stand."""
        for follower in self._followers[places.start : places.stop].tolist():
            delay_s = float(self._trace.delays_s[follower]) / self._speedup
            self.clock.at(self.clock.now_s + delay_s, self._arrive, follower)

    def _keep_output(self, request: Request) -> None:
        # The last token was sampled and never computed.
        num_generated = self._output_tokens[request.number] - 1
        if (request.num_tokens + num_generated) // self._size <= request.stored_blocks:
            return
        sequence, num_shared = self._outputs.extend(request.number, request.sequence, num_generated)
        request.stored_blocks = min(request.stored_blocks, num_shared // self._size)
        self._keep(request, sequence)
