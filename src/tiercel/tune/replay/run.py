"""A trace through the real cache: real index, real tiers, real bytes. Only the engine is made up: it waits where others compute.

What it does with requests is the simulator's own code (`simulate.Serving`); what differs is the cache under it and the clock.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from tiercel import Cache, CacheConfig, ConfigError, ModelConfig, TierName
from tiercel.config import check_resources, format_bytes
from tiercel.config.resources import probe_memory
from tiercel.telemetry.snapshot import StatusSnapshot
from tiercel.tiers.base import BlockStatus
from tiercel.tune.replay.caches import RealCache
from tiercel.tune.replay.clocks import RealClock, StepClock, settle
from tiercel.tune.replay.leaving import undisturbed
from tiercel.tune.replay.lockstep import in_lockstep
from tiercel.tune.replay.memory import EngineBuffers
from tiercel.tune.replay.setup import Pace, ReplaySetup, own_folders
from tiercel.tune.simulate import SimulationResult, TierTraffic
from tiercel.tune.simulate.serving import Progress
from tiercel.tune.simulate.steps import make_serving
from tiercel.tune.traces import Trace

OpenCache = Callable[[ModelConfig, CacheConfig], Cache]

_NO_FAULTS = (BlockStatus.OK.name.lower(), BlockStatus.CANCELLED.name.lower())

_FLIGHT_BYTES = 64 << 20
"""Memory of the engine for transfers under way, beside what the longest prompts take."""


@dataclass(frozen=True, kw_only=True)
class ReplayReport:
    """What really happened.

    Attributes:
        result: in the same form as a simulation's.
        restored_blocks: blocks that the cache gave back; each was compared byte for byte.
        wrong_blocks: those of them that held other bytes than were stored; must be 0.
        wrong: the first of them, in words.
        failed_blocks: blocks that a load promised and did not bring: recomputed.
        faults: blocks that a tier could not read or write, or found damaged, by tier; none where all went well.
        late_s: longest time by which something ran late because the machine was busy; 0 in lockstep.
        notes: what was left out in lockstep, and what the cache fell back from, as its status says it.
    """

    result: SimulationResult
    restored_blocks: int
    wrong_blocks: int
    wrong: tuple[str, ...]
    failed_blocks: int
    faults: Mapping[str, int]
    late_s: float
    notes: tuple[str, ...]


def replay(
    trace: Trace, setup: ReplaySetup, *, progress: Progress | None = None, open_cache: OpenCache = Cache.open
) -> ReplayReport:
    """Replay a trace on this machine's tiers, beginning with an empty cache.

    Args:
        trace: the requests.
        setup: everything else.
        progress: told of requests that have ended.
        open_cache: opens the cache.

    Raises:
        ConfigError: a setting does not fit the model or the machine, or the engine's memory does not fit beside the tiers;
            nothing was allocated.
        DirectoryLockedError: another replay uses a cache directory.
        TierError: a cache directory cannot be used.
        TimeoutError: transfers did not end.
        ValueError: requests of the trace wait for each other.
    """
    model, config = setup.cache_model, setup.cache_config
    lockstep = setup.pace is Pace.LOCKSTEP
    num_blocks = _engine_blocks(trace, setup)
    _require_memory(model, config, num_blocks)
    with ExitStack() as opened:
        opened.enter_context(own_folders(config))
        cache = open_cache(model, config)
        opened.callback(_close, cache)
        if lockstep:
            cache.relieve_when_idle()
            trace = in_lockstep(trace, setup.engine)
        clock = StepClock(cache) if lockstep else RealClock()
        buffers = EngineBuffers(cache.geometry, num_blocks, copy_threads=config.cpu_copy_threads)
        served = RealCache(cache, buffers, clock)
        record = make_serving(trace, setup.engine, served, speedup=setup.speedup, progress=progress).run()
        settle(cache)
        status = cache.stats()
    result = record.result(
        trace,
        tokens_per_block=config.tokens_per_block,
        block_bytes=cache.geometry.block_bytes,
        tiers=_traffic(status),
        refused={name: count for name, count in status.activity.throttled.items() if count},
        notes=(*setup.notes, *status.notes),
    )
    checks = served.checks
    return ReplayReport(
        result=result,
        restored_blocks=checks.restored_blocks,
        wrong_blocks=checks.wrong_blocks,
        wrong=tuple(checks.wrong),
        failed_blocks=checks.failed_blocks,
        faults=_faults(status),
        late_s=0.0 if isinstance(clock, StepClock) else clock.late_s,
        notes=(*setup.notes, *status.notes),
    )


def _close(cache: Cache) -> None:
    """Close it whole: were the wait for it interrupted, it would go on writing where folders are removed meanwhile."""
    with undisturbed():
        cache.close()


def _engine_blocks(trace: Trace, setup: ReplaySetup) -> int:
    """Blocks of the engine's memory: a longest prompt and answer, or a step, for each replica, one more that is still being
    stored, and some for loads in flight."""
    size = setup.config.tokens_per_block
    longest = int(((trace.input_tokens + trace.output_tokens) // size).max()) if trace.num_requests else 0
    longest = max(longest, setup.engine.step_tokens // size)
    slack = _FLIGHT_BYTES // (setup.model.token_size_in_bytes * size)
    return (setup.engine.replicas + 1) * (longest + 1) + min(slack, 8 * longest)


def _require_memory(model: ModelConfig, config: CacheConfig, num_blocks: int) -> None:
    """Raise ConfigError if tiers and engine do not fit side by side."""
    resolved = check_resources(model, config)
    memory = probe_memory()
    needed = num_blocks * resolved.slot_bytes
    if resolved.host_bytes + needed > memory.available_bytes:
        raise ConfigError(
            f"the host tier takes {format_bytes(resolved.host_bytes)} and the replayed engine {format_bytes(needed)} for the "
            f"trace's longest prompts, and {format_bytes(memory.available_bytes)} are available ({memory.limited_by}); lower "
            f"num_cpu_blocks, or replay with a smaller model's geometry"
        )


def _faults(status: StatusSnapshot) -> Mapping[str, int]:
    """Blocks that moves did not bring though nobody cancelled them, by the slower tier of both."""
    faults: Counter[str] = Counter()
    for move in status.activity.transfers:
        slower = max(move.source, move.target, key=lambda name: TierName[name.upper()])
        faults[slower] += sum(count for outcome, count in move.blocks.items() if outcome not in _NO_FAULTS)
    return dict(+faults)


def _traffic(status: StatusSnapshot) -> Mapping[TierName, TierTraffic]:
    """Blocks by tier from the cache's own counts of moves: what came out of a tier towards the engine, and what went into it from
    there."""
    found: dict[TierName, TierTraffic] = {}
    for tier in status.tiers:
        name = TierName[tier.name.upper()]
        reads = [t for t in status.activity.transfers if t.source == tier.name and TierName[t.target.upper()] < name]
        writes = [t for t in status.activity.transfers if t.target == tier.name and TierName[t.source.upper()] < name]
        found[name] = TierTraffic(
            blocks_read=sum(t.num_bytes for t in reads) // tier.block_bytes,
            blocks_written=sum(t.num_bytes for t in writes) // tier.block_bytes,
            evicted=tier.evicted,
            busy_s=sum(t.seconds.sum for t in (*reads, *writes)),
            wait_s=sum(t.wait.sum for t in (*reads, *writes)),
        )
    return found
