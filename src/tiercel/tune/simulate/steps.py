"""Engines that compute in steps, several requests in one: chunked prefill with continuous batching, as vLLM does it.

    arrive -> wait -> step is planned: running requests first, then those that wait, until its tokens are spent
                        one that waits is looked up now, and loads from when the step begins
           -> step ends: what is full of each prompt is stored, those whose prompt is whole have their first token

A step takes what its tokens take by the prefill curve, and at least as long as one token of decoding. The curve's fixed part
is what a request takes beside the steps: it makes nobody else wait. Steps are planned one ahead of the one that runs, so a
request that arrives during a step may have to wait for the next one, too. The end of a load is noticed when a step is
planned, and told when that step ends; at once if no step is under way.
"""

from collections import deque
from dataclasses import dataclass, field
from functools import partial

from tiercel.control import Lookup
from tiercel.tune.simulate.caches import ServedCache
from tiercel.tune.simulate.engine import Replica, Request
from tiercel.tune.simulate.serving import Progress, Serving
from tiercel.tune.simulate.setup import EngineModel
from tiercel.tune.traces import Trace

_STEPS_MAX = 2
"""The step that runs and the one that is planned."""


def make_serving(
    trace: Trace, engine: EngineModel, cache: ServedCache, *, speedup: float = 1.0, progress: Progress | None = None
) -> Serving:
    """Return engines of a kind, with or without steps; arguments as of `Serving`."""
    kind = SteppedServing if engine.step_tokens else Serving
    return kind(trace, engine, cache, speedup=speedup, progress=progress)


@dataclass(slots=True, eq=False)
class _Turn:
    """A request on its way through steps.

    Attributes:
        num_blocks: of GPU memory, at its end.
        num_planned: tokens of its prompt that are cached or in a planned step.
        num_computed: those of them whose step has ended.
        decodes_planned, decodes_left: tokens behind the first one that no step has yet, and that are not there yet.
    """

    request: Request
    num_blocks: int
    decodes_planned: int
    decodes_left: int
    is_met: bool = False
    is_loading: bool = False
    num_planned: int = 0
    num_computed: int = 0


@dataclass(slots=True, eq=False)
class _Step:
    """What one step does. prompts: how many tokens of each. decodes: requests that get one token more.
    noticed: those whose load has ended before it was planned."""

    prompts: list[tuple[_Turn, int]] = field(default_factory=list)
    decodes: list[_Turn] = field(default_factory=list)
    loads: list[tuple[_Turn, Lookup]] = field(default_factory=list)
    noticed: list[Request] = field(default_factory=list)
    work_s: float = 0.0

    @property
    def computes(self) -> bool:
        """Whether there is something to compute in it."""
        return bool(self.prompts or self.decodes)


class _Line:
    """Requests of one replica."""

    def __init__(self) -> None:
        self.waiting: list[_Turn] = []
        self.running: list[_Turn] = []
        self.planned: deque[_Step] = deque()
        self.loaded: list[Request] = []  # and not noticed yet
        self.is_computing = False

    def blocks_in_use(self) -> int:
        """Blocks of GPU memory that are spoken for."""
        loading = (turn for turn in self.waiting if turn.is_met)
        return sum(turn.num_blocks for turn in (*self.running, *loading))


class SteppedServing(Serving):
    """Requests of one trace, served by engines that compute in steps."""

    def __init__(
        self,
        trace: Trace,
        engine: EngineModel,
        cache: ServedCache,
        *,
        speedup: float = 1.0,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(trace, engine, cache, speedup=speedup, progress=progress)
        self._lines = {replica: _Line() for replica in self.replicas}
        self._turns: dict[int, _Turn] = {}

    def _arrive(self, number: int) -> None:
        """Let a request wait for a step. It is looked up when there is room for it."""
        request = self._meet(number)
        self._expect(request, 0)
        num_decodes = max(0, self._output_tokens[number] - 1)
        turn = self._turns[number] = _Turn(
            request=request,
            num_blocks=-(-(request.num_tokens + num_decodes) // self._size),
            decodes_planned=num_decodes,
            decodes_left=num_decodes,
        )
        self._lines[request.replica].waiting.append(turn)
        self._plan(request.replica)

    def _ready(self, request: Request) -> None:
        """A load has ended."""
        self._record.ready_s[request.number] = self.clock.now_s
        self._lines[request.replica].loaded.append(request)
        self._plan(request.replica)

    def _notice(self, requests: list[Request]) -> None:
        """Let requests be planned whose loads have ended."""
        for request in requests:
            self._turns[request.number].is_loading = False
            self._take_in(request, (request.engine_blocks + sum(request.loaded.values())) * self._size)

    def _take_in(self, request: Request, num_tokens: int) -> None:
        """Let the engine hold a prompt's leading tokens."""
        cache = request.replica.cache
        if cache is not None:
            request.hold(cache.insert(request.sequence, self.clock.now_s, num_tokens // self._size))

    def _plan(self, replica: Replica) -> None:
        """Plan steps as far ahead as an engine does, and begin one if none runs."""
        line = self._lines[replica]
        while len(line.planned) + line.is_computing < _STEPS_MAX:
            noticed, line.loaded = line.loaded, []
            if not line.planned and not line.is_computing:
                self._notice(noticed)
                noticed = []
            step = self._next_step(line)
            if not step.computes and not step.loads:
                line.loaded = noticed
                return
            step.noticed = noticed
            line.planned.append(step)
            if not line.is_computing:
                self._begin(replica)

    def _next_step(self, line: _Line) -> _Step:
        step, budget = _Step(), self._engine.step_tokens
        for turn in line.running:
            if budget > 0 and turn.num_planned < turn.request.num_tokens:
                budget -= self._add_prompt(step, turn, budget)
            elif budget > 0 and turn.decodes_planned > 0:
                turn.decodes_planned -= 1
                step.decodes.append(turn)
                budget -= 1
        for turn in list(line.waiting):
            if budget == 0:
                break
            if turn.is_loading:
                continue
            if not turn.is_met:
                if not self._has_room(line, turn):
                    break
                turn.is_met = True
                if self._meets_load(step, turn):
                    continue
            line.waiting.remove(turn)
            line.running.append(turn)
            self._admit(turn)
            budget -= self._add_prompt(step, turn, budget)
        return step

    def _has_room(self, line: _Line, turn: _Turn) -> bool:
        used, capacity = line.blocks_in_use(), self._engine.gpu_blocks
        return used == 0 or capacity == 0 or used + turn.num_blocks <= capacity

    def _meets_load(self, step: _Step, turn: _Turn) -> bool:
        """Look a request up. Whether there is something to load, which begins with the step."""
        lookup = self._look_up(turn.request)
        self._record.ready_s[turn.request.number] = self.clock.now_s
        if lookup.num_blocks == 0:
            lookup.release()
            return False
        turn.is_loading = True
        step.loads.append((turn, lookup))
        return True

    def _admit(self, turn: _Turn) -> None:
        request = turn.request
        cached_blocks = request.engine_blocks + sum(request.loaded.values())
        self._note_start(request, cached_blocks)
        turn.num_planned = turn.num_computed = cached_blocks * self._size

    def _add_prompt(self, step: _Step, turn: _Turn, budget: int) -> int:
        """Give a prompt what it can use of a step's tokens, and return how many that are; none for one of no tokens."""
        count = min(turn.request.num_tokens - turn.num_planned, budget)
        if count:
            prefill = self._engine.prefill
            step.work_s += prefill.seconds(turn.num_planned, count) - prefill.fixed_s
        step.prompts.append((turn, count))
        turn.num_planned += count
        self._take_in(turn.request, turn.num_planned)
        return count

    def _begin(self, replica: Replica) -> None:
        """Begin the step that was planned first."""
        line, now_s = self._lines[replica], self.clock.now_s
        step = line.planned.popleft()
        for turn, lookup in step.loads:
            request = turn.request
            if not self.cache.load(lookup, partial(self._loaded, request, lookup.segments)):
                turn.is_loading = False
        for turn, count in step.prompts:
            request = turn.request
            stop = (turn.num_computed + count) // self._size
            if stop > request.stored_blocks:
                self.cache.expect_store(request.sequence, range(request.stored_blocks, stop))
        line.is_computing = True
        seconds = max(step.work_s, self._engine.decode_token_s) if step.computes else 0.0
        self.clock.at(now_s + seconds, self._end_step, (replica, step))

    def _end_step(self, ended: tuple[Replica, _Step]) -> None:
        replica, step = ended
        line = self._lines[replica]
        line.is_computing = False
        # The least time of a step is in the fixed part, too: no request has it twice.
        least_s = max(0.0, self._engine.decode_token_s - step.work_s)
        beside_s = max(0.0, self._engine.prefill.fixed_s - least_s)
        for turn in step.decodes:
            turn.decodes_left -= 1
            self._end_if_done(turn, beside_s)
        for turn, count in step.prompts:
            self._advance(turn, count, beside_s)
        line.running = [turn for turn in line.running if turn.request.number in self._turns]
        self._notice(step.noticed)
        if line.planned:
            self._begin(replica)
        self._plan(replica)

    def _advance(self, turn: _Turn, count: int, beside_s: float) -> None:
        """A prompt's part of a step is there: store it, and with the last part the first token has come."""
        request = turn.request
        turn.num_computed += count
        stop = turn.num_computed // self._size
        if stop > request.stored_blocks:
            self.cache.store(request.sequence, range(request.stored_blocks, stop))
            request.stored_blocks = stop
        if turn.num_computed == request.num_tokens:
            request.replica.forget(request)
            self._record.first_token_s[request.number] = self.clock.now_s + beside_s
            self._end_if_done(turn, beside_s)

    def _end_if_done(self, turn: _Turn, beside_s: float) -> None:
        """End a request that has all its tokens."""
        if turn.decodes_left == 0:
            number, record = turn.request.number, self._record
            del self._turns[number]
            self._ended(turn.request)
            record.ended_s[number] = max(self.clock.now_s + beside_s, record.first_token_s[number])
