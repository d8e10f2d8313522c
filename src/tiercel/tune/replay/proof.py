"""A prediction held against what happened: the same trace simulated and replayed, figure by figure.

Two pairs of runs. In lockstep nothing depends on time, so hits must be equal block for block: that proves the decisions. In real
time transfers, prefills and arrivals overlap, so times and bytes are close at best: that proves the model of the machine.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from tiercel import CacheConfig
from tiercel.tiers.base import TierName
from tiercel.tune.machine import Machine
from tiercel.tune.replay.floors import little_read, require_capacities, require_traffic
from tiercel.tune.replay.lockstep import simulate_in_lockstep
from tiercel.tune.replay.run import ReplayReport, replay
from tiercel.tune.replay.setup import Pace, ReplaySetup
from tiercel.tune.simulate import EngineFacts, SimulationResult, SimulationSetup, make_setup, simulate
from tiercel.tune.traces import Trace

TOLERANCE = 0.1

TIME_FLOOR_S = 1e-3
"""Times that differ by less are taken for equal: so exactly, and no better, an engine's waits end on a shared machine."""

BYTES_MIN = 64 << 20
"""Fewest bytes of a proof: what a tier holds, and what the trace moves. Fewer are moved within `TIME_FLOOR_S` of each other, so
that any prediction of them would hold."""

_PERCENTILES = (50, 90, 99)

StageProgress = Callable[[str, int, int], None]
"""Told (what is run, requests that have ended, all requests)."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One figure of both runs.

    Attributes:
        unit: "s", "bytes" or "share".
        floor: difference that does not count.
        held: whether the proof depends on it; other figures only inform.
    """

    name: str
    unit: str
    predicted: float
    measured: float
    floor: float = 0.0
    held: bool = True

    @property
    def deviation(self) -> float:
        """How far the prediction lies from what was measured, as a share of that; negative if it is too low."""
        difference = self.predicted - self.measured
        if abs(difference) <= self.floor:
            return 0.0
        return difference / self.measured if self.measured else float("inf")


@dataclass(frozen=True, kw_only=True)
class HitsCompared:
    """Requests of both runs, block for block.

    Attributes:
        num_requests: all of them.
        found_otherwise: requests for which another number of leading blocks was stored.
        placed_otherwise: others for which they were, or came from, other tiers.
        loaded_otherwise: others of whose stored blocks another number was loaded: the costs that the plan weighs differ.
        first: the first request that differs; None if none does.
    """

    num_requests: int
    found_otherwise: int
    placed_otherwise: int
    loaded_otherwise: int
    first: int | None

    @property
    def num_differing(self) -> int:
        """Requests that differ in any way."""
        return self.found_otherwise + self.placed_otherwise + self.loaded_otherwise


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What was predicted and what was measured.

    Attributes:
        lockstep, realtime: hits of each pair of runs.
        figures: of the runs in real time.
        tolerance: largest deviation of a figure.
        reports: what each replay says beside its result.
        notes: what the prediction assumed, and what the replays left out or fell back from.
    """

    trace: str
    lockstep: HitsCompared
    realtime: HitsCompared
    figures: tuple[Compared, ...]
    tolerance: float
    reports: tuple[ReplayReport, ReplayReport]
    notes: tuple[str, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        """Why it does not hold, a sentence each; none if it holds."""
        failures = [
            f"{report.wrong_blocks} restored blocks held wrong bytes" for report in self.reports if report.wrong_blocks
        ]
        failures += [
            f"the {tier} tier failed {count} blocks; look at its device, its free space and the log, and prove again"
            for report in self.reports
            for tier, count in report.faults.items()
        ]
        if self.lockstep.num_differing:
            failures.append(f"hits of {self.lockstep.num_differing} requests differ in lockstep")
        failures += [
            f"{figure.name} is predicted {figure.deviation:+.1%} off"
            for figure in self.figures
            if figure.held and abs(figure.deviation) > self.tolerance
        ]
        return tuple(failures)


def prove(
    trace: Trace,
    setup: ReplaySetup,
    machine: Machine,
    facts: EngineFacts,
    *,
    tolerance: float = TOLERANCE,
    bytes_min: int = BYTES_MIN,
    progress: StageProgress | None = None,
) -> Proof:
    """Simulate a trace on a measured machine, replay it on this one, and compare.

    Args:
        setup: of the replay; both paces are run.
        machine: what this machine was measured to be capable of.
        facts: the engine, as the simulation is told of it; `setup.engine` says the same.
        tolerance: largest share by which a prediction may be off.
        bytes_min: fewest bytes that each tier must hold, and that the trace must move; 0 for a proof of anything.
        progress: told how far each run is.

    Raises:
        ConfigError: the cache or the trace is too small for a proof; nothing was allocated. Or as `replay` and `make_setup`.
        ValueError: a tolerance or bytes_min below 0.
    """
    if not tolerance >= 0:
        raise ValueError(f"tolerance = {tolerance}: must be 0 or more, as a share")
    if bytes_min < 0:
        raise ValueError(f"bytes_min = {bytes_min}: must be 0 or more")
    tell = progress or (lambda _stage, _done, _total: None)
    predicted = make_setup(setup.config, setup.model, machine, facts, speedup=setup.speedup)
    require_capacities(predicted, bytes_min)
    setup = replace(setup, config=_with_capacities(setup.config, predicted))
    stepped = simulate_in_lockstep(
        trace, predicted, root=setup.root_key, progress=partial(tell, "simulate in lockstep")
    )
    timed = simulate(trace, predicted, progress=partial(tell, "simulate"))
    require_traffic(timed, bytes_min)
    lockstep, realtime = (
        replay(trace, replace(setup, pace=pace), progress=partial(tell, f"replay, {pace.value}"))
        for pace in (Pace.LOCKSTEP, Pace.REALTIME)
    )
    return Proof(
        trace=trace.name,
        lockstep=compare_hits(stepped, lockstep.result),
        realtime=compare_hits(timed, realtime.result),
        figures=tuple(compare_figures(timed, realtime.result)),
        tolerance=tolerance,
        reports=(lockstep, realtime),
        notes=(
            *little_read(timed, bytes_min),
            *_lateness(realtime, tolerance),
            *dict.fromkeys((*timed.notes, *lockstep.notes, *realtime.notes)),
        ),
    )


def _with_capacities(config: CacheConfig, predicted: SimulationSetup) -> CacheConfig:
    """The settings with the prediction's capacities in blocks: shares such as "80%" are of what was free when the machine was
    measured, which by now is another number."""
    capacities = predicted.control.capacities
    if TierName.HOST in capacities:
        config = replace(config, num_cpu_blocks=capacities[TierName.HOST])
    if TierName.DISK in capacities:
        config = replace(config, num_ssd_blocks=capacities[TierName.DISK])
    return config


def _lateness(report: ReplayReport, tolerance: float) -> Iterator[str]:
    """Say so if the replay's own work, which the simulation does not have, is what was measured."""
    mean_s = _mean(report.result.ttft_s)
    if report.late_s > max(TIME_FLOOR_S, tolerance * mean_s):
        yield (
            f"the replay's own thread, which makes and compares every byte, ran late by {report.late_s:.3g} s, against a mean "
            f"TTFT of {mean_s:.3g} s: the machine was too busy for times and hits in real time to mean much; give a lower "
            f"--speedup, a model with smaller blocks, or a machine that does nothing else"
        )


def compare_hits(predicted: SimulationResult, measured: SimulationResult) -> HitsCompared:
    """Compare requests, block for block."""
    found = predicted.matched_blocks != measured.matched_blocks
    totals = [sum(result.hit_blocks.values()) + result.gpu_blocks for result in (predicted, measured)]
    loaded = ~found & (totals[0] != totals[1])
    placed = predicted.gpu_blocks != measured.gpu_blocks
    for tier, blocks in predicted.hit_blocks.items():
        placed |= blocks != measured.hit_blocks[tier]
    placed &= ~found & ~loaded
    differing = np.flatnonzero(found | loaded | placed)
    return HitsCompared(
        num_requests=len(found),
        found_otherwise=int(found.sum()),
        placed_otherwise=int(placed.sum()),
        loaded_otherwise=int(loaded.sum()),
        first=int(differing[0]) if len(differing) else None,
    )


def compare_figures(predicted: SimulationResult, measured: SimulationResult) -> Iterator[Compared]:
    """Compare hit rate, bytes by tier and times."""
    both = (predicted, measured)
    rates = [result.block_hit_rate for result in both]
    yield Compared(name="hit rate, of blocks", unit="share", predicted=rates[0], measured=rates[1])
    for tier in predicted.tiers:
        for act in ("read", "written"):
            blocks = [getattr(result.tiers[tier], f"blocks_{act}") * result.block_bytes for result in both]
            yield Compared(name=f"{tier.name.lower()} {act}", unit="bytes", predicted=blocks[0], measured=blocks[1])
    for percentile in _PERCENTILES:
        times = [_percentile(result.ttft_s, percentile) for result in both]
        yield _times(f"TTFT p{percentile}", times)
    yield _times("TTFT mean", [_mean(result.ttft_s) for result in both])
    for tier in (TierName.HOST, TierName.DISK):
        if tier in predicted.hit_blocks:
            times = [_mean(_load_s(result, tier)) for result in both]
            yield replace(_times(f"load, mean of those that reach to {tier.name.lower()}", times), held=False)


def _times(name: str, times: list[float]) -> Compared:
    return Compared(name=name, unit="s", predicted=times[0], measured=times[1], floor=TIME_FLOOR_S)


def _load_s(result: SimulationResult, tier: TierName) -> np.ndarray:
    """How long those loads took whose slowest tier is this one."""
    reaches = result.hit_blocks[tier] > 0
    for slower, blocks in result.hit_blocks.items():
        if slower > tier:
            reaches = reaches & (blocks == 0)
    return (result.ready_s - result.arrived_s)[reaches]


def _percentile(values: np.ndarray, percentile: int) -> float:
    return float(np.percentile(values, percentile)) if len(values) else 0.0


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0
