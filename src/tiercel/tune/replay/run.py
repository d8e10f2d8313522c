"""A trace through the real cache: real index, real tiers, real bytes. Only the engine is made up: it waits where others compute."""

import heapq
import time
from collections.abc import Callable
from contextlib import ExitStack

from tiercel import Cache, CacheConfig, ConfigError, ModelConfig, TierName
from tiercel.config import check_resources, format_bytes
from tiercel.config.resources import probe_memory
from tiercel.tune.replay.accounts import Accounts, ReplayReport
from tiercel.tune.replay.memory import EngineBuffers
from tiercel.tune.replay.serving import Server, Serving
from tiercel.tune.replay.setup import Pace, ReplaySetup, removed_at_end
from tiercel.tune.traces import NO_REQUEST, Trace

Progress = Callable[[int, int], None]
"""Called with the requests served so far and all of them."""

OpenCache = Callable[[ModelConfig, CacheConfig], Cache]

_SETTLE_TIMEOUT_S = 300.0


def replay(
    trace: Trace, setup: ReplaySetup, *, progress: Progress | None = None, open_cache: OpenCache = Cache.open
) -> ReplayReport:
    """Replay a trace on this machine's tiers, beginning with an empty cache.

    Args:
        trace: the requests.
        setup: everything else.
        progress: called after each request.
        open_cache: opens the cache.

    Raises:
        ConfigError: a setting does not fit the model or the machine, or the engine's memory does not fit beside the tiers;
            nothing was allocated.
        DirectoryLockedError: another replay uses a cache directory.
        TierError: a cache directory cannot be used.
        TimeoutError: transfers did not end.
    """
    model, config = setup.cache_model, setup.cache_config
    num_blocks = _engine_blocks(trace, config.tokens_per_block)
    _require_memory(model, config, num_blocks)
    with ExitStack() as opened:
        cache = open_cache(model, config)
        opened.enter_context(removed_at_end(config))
        opened.enter_context(cache)
        cache.reset()  # what an interrupted replay left
        buffers = EngineBuffers(cache.geometry, num_blocks, copy_threads=config.cpu_copy_threads)
        tiers = tuple(TierName[tier.name.upper()] for tier in cache.stats().tiers)
        accounts = Accounts(trace, config.tokens_per_block, tiers)
        server = Server(cache, trace, setup, buffers, accounts)
        paces = {Pace.REALTIME: _Realtime, Pace.LOCKSTEP: _Lockstep}
        paces[setup.pace](cache, trace, setup, server, accounts).run(progress or (lambda _done, _total: None))
        _settle(cache)
        return accounts.report(cache.stats(), cache.geometry.block_bytes)


def _engine_blocks(trace: Trace, tokens_per_block: int) -> int:
    """Blocks of the engine's memory: the longest prompt and answer, and a prompt before it that is still being stored."""
    if trace.num_requests == 0:
        return 1
    prompt = int((trace.input_tokens // tokens_per_block).max())
    answer = int((trace.output_tokens // tokens_per_block).max()) + 1
    return 2 * prompt + answer


def _require_memory(model: ModelConfig, config: CacheConfig, num_blocks: int) -> None:
    """Raise ConfigError if tiers and engine do not fit side by side."""
    resolved = check_resources(model, config)
    memory = probe_memory()
    needed = num_blocks * resolved.slot_bytes
    if resolved.host_bytes + needed > memory.available_bytes:
        raise ConfigError(
            f"the host tier takes {format_bytes(resolved.host_bytes)} and the replayed engine {format_bytes(needed)} for the "
            f"trace's longest prompts, and {format_bytes(memory.available_bytes)} are available ({memory.limited_by}); lower "
            f"num_cpu_blocks, or replay a smaller model's geometry"
        )


def _settle(cache: Cache) -> None:
    if not cache.settle(_SETTLE_TIMEOUT_S):
        raise TimeoutError(f"transfers of the replay did not end in {_SETTLE_TIMEOUT_S:.0f} s; is the device still there?")


class _Lockstep:
    """See `Pace.LOCKSTEP`. Times are those of each request alone: its load as measured, its prefill and decode as modelled."""

    def __init__(self, cache: Cache, trace: Trace, setup: ReplaySetup, server: Server, accounts: Accounts) -> None:
        self._cache, self._trace, self._setup = cache, trace, setup
        self._server, self._accounts = server, accounts

    def run(self, progress: Progress) -> None:
        accounts = self._accounts
        now_s = 0.0
        for request in range(self._trace.num_requests):
            serving = self._server.load(request)
            _settle(self._cache)
            self._server.compute(serving)
            for store in (self._server.store, self._server.store_output):
                ticket = store(serving)
                if ticket is not None:
                    ticket.wait()
                _settle(self._cache)
            self._server.reclaim()
            accounts.arrived_s[request] = accounts.started_s[request] = now_s
            now_s += serving.load_s + serving.prefill_s
            accounts.first_token_s[request] = now_s
            now_s += int(self._trace.output_tokens[request]) * self._setup.engine.decode_token_s
            accounts.ended_s[request] = now_s
            progress(request + 1, self._trace.num_requests)


class _Realtime:
    """See `Pace.REALTIME`. One thread: while it waits for a prefill's end, it does what falls due."""

    def __init__(self, cache: Cache, trace: Trace, setup: ReplaySetup, server: Server, accounts: Accounts) -> None:
        self._cache, self._trace, self._setup = cache, trace, setup
        self._server, self._accounts = server, accounts
        self._arriving: list[tuple[float, int]] = []
        self._decoding: list[tuple[float, int, Serving]] = []
        self._followers: dict[int, list[int]] = {}
        for request, before in enumerate(trace.after.tolist()):
            if before == NO_REQUEST:
                self._arriving.append((float(trace.arrivals_s[request]) / setup.speedup, request))
            else:
                self._followers.setdefault(before, []).append(request)
        heapq.heapify(self._arriving)
        self._began_s = 0.0

    def run(self, progress: Progress) -> None:
        self._began_s = time.monotonic()
        total = served = self._trace.num_requests
        served = 0
        while served < total:
            if not self._arriving:
                self._wait_until(self._decoding[0][0])
                continue
            arrived_s, request = self._arriving[0]
            if arrived_s > self._now():
                first_end_s = self._decoding[0][0] if self._decoding else arrived_s
                self._wait_until(min(arrived_s, first_end_s))
                continue
            heapq.heappop(self._arriving)
            self._serve(request, arrived_s)
            served += 1
            progress(served, total)
        while self._decoding:
            self._wait_until(self._decoding[0][0])

    def _serve(self, request: int, arrived_s: float) -> None:
        accounts = self._accounts
        accounts.arrived_s[request] = arrived_s
        accounts.started_s[request] = self._now()
        serving = self._server.load(request)
        due_s = self._now() + serving.prefill_s
        self._server.compute(serving)
        self._wait_until(due_s)
        now_s = self._now()
        accounts.checks.late_s = max(accounts.checks.late_s, now_s - due_s)
        accounts.first_token_s[request] = now_s
        self._server.store(serving)
        ended_s = now_s + int(self._trace.output_tokens[request]) * self._setup.engine.decode_token_s
        accounts.ended_s[request] = ended_s
        heapq.heappush(self._decoding, (ended_s, request, serving))

    def _now(self) -> float:
        return time.monotonic() - self._began_s

    def _wait_until(self, until_s: float) -> None:
        """Wait, and meanwhile store what decoding finished and let in who waited for it."""
        self._server.reclaim()
        while self._decoding and self._decoding[0][0] <= until_s:
            ended_s, request, serving = heapq.heappop(self._decoding)
            self._sleep_until(ended_s)
            self._server.store_output(serving)
            for follower in self._followers.pop(request, ()):
                delay_s = float(self._trace.delays_s[follower]) / self._setup.speedup
                heapq.heappush(self._arriving, (ended_s + delay_s, follower))
        self._sleep_until(until_s)

    def _sleep_until(self, until_s: float) -> None:
        left_s = until_s - self._now()
        if left_s > 0:
            time.sleep(left_s)
