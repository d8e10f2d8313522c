"""What a candidate will come to, from the LRU curve alone: a hundred times cheaper than a simulation, and rougher.

Each block of a request is as deep in the order of use as different blocks were used since: a tier of C blocks still has it if
that is at most C. From the hits of each tier follow load and prefill of each request, and from these, one after the other, the
waiting. Not in it: policies other than LRU, transfers that wait for each other, and stores.
"""

import heapq

import numpy as np
from numpy.typing import NDArray

from tiercel.costs import PrefillCurve
from tiercel.tiers.base import TierName
from tiercel.tune.advise.depths import NEVER, lru_depths
from tiercel.tune.advise.outcome import Outcome, times_of
from tiercel.tune.simulate import SimulationSetup
from tiercel.tune.traces import Trace

UNBOUNDED_TOKENS = float(2**62)
"""Capacity of a cache that loses nothing."""


class Forecaster:
    """Forecasts of one trace."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        depths = lru_depths(trace)
        self._depths = np.where(depths == NEVER, np.iinfo(np.int64).max, depths)
        counts = np.array([trace.num_blocks_of(request) for request in range(trace.num_requests)], np.int64)
        self._stops = np.cumsum(counts)
        self._starts = self._stops - counts

    def held_blocks(self, capacity_blocks: float) -> NDArray[np.int64]:
        """Return how many leading blocks of each request an LRU cache of this many of the trace's blocks still has."""
        found = np.concatenate([[0], np.cumsum(self._depths <= capacity_blocks)])
        return np.asarray(found[self._stops] - found[self._starts], np.int64)

    def held_tokens(self, capacity_tokens: float, tokens_per_block: int) -> NDArray[np.int64]:
        """Return the tokens of each prompt, in whole blocks of a cache, that an LRU cache still has."""
        held = self.held_blocks(capacity_tokens / self._trace.tokens_per_block) * self._trace.tokens_per_block
        # The last token is always computed: its result is what is asked for.
        return np.minimum(held, self._trace.input_tokens - 1).clip(0) // tokens_per_block * tokens_per_block

    @property
    def sharing(self) -> float:
        """Share of all prompts' tokens that a cache without bounds would have."""
        held = self.held_tokens(UNBOUNDED_TOKENS, 1)
        return float(held.sum()) / max(int(self._trace.input_tokens.sum()), 1)

    def forecast(self, setup: SimulationSetup) -> Outcome:
        """Forecast a run."""
        trace, control = self._trace, setup.control
        size = control.tokens_per_block
        on_gpu = self.held_tokens(setup.engine.gpu_blocks * size, size)
        tokens, load_s, cached = {TierName.GPU: on_gpu}, np.zeros(trace.num_requests), on_gpu
        fastest_s = _prefill_s(setup.engine.prefill, cached, trace.input_tokens - cached)
        best = cached
        for tier in sorted(control.capacities):
            held = np.maximum(cached, self.held_tokens(control.capacities[tier] * size, size))
            tokens[tier] = held - cached
            link = setup.reads[tier]
            load_s = load_s + np.where(held > cached, link.latency_s, 0.0)
            load_s = load_s + (held - cached) / size * control.block_bytes / link.bytes_per_s
            total_s = load_s + _prefill_s(setup.engine.prefill, held, trace.input_tokens - held)
            best = np.where(total_s <= fastest_s, held, best)
            fastest_s = np.minimum(total_s, fastest_s)
            cached = held
        wait_s = _waits(trace.arrivals_s / setup.speedup, fastest_s, setup.engine.replicas)
        ttft_s = wait_s + fastest_s
        e2e_s = ttft_s + trace.output_tokens * setup.engine.decode_token_s
        busy_s = _prefill_s(setup.engine.prefill, best, trace.input_tokens - best)
        total = max(int(trace.input_tokens.sum()), 1)
        disk_blocks = control.capacities.get(TierName.DISK, 0)
        written = (
            (trace.input_tokens - self.held_tokens(disk_blocks * size, size)) // size if disk_blocks else np.zeros(1)
        )
        read = tokens.get(TierName.DISK, np.zeros(1)).sum() / size
        return Outcome(
            times_s=times_of(ttft_s, e2e_s),
            token_hit_rate=float(best.sum()) / total,
            gpu_hit_rate=float(on_gpu.sum()) / total,
            host_hit_rate=float(tokens.get(TierName.HOST, np.zeros(1)).sum()) / total,
            disk_hit_rate=float(tokens.get(TierName.DISK, np.zeros(1)).sum()) / total,
            prefill_busy_s=float(busy_s.sum()),
            disk_written_bytes=float(written.sum()) * control.block_bytes,
            disk_read_bytes=float(read) * control.block_bytes,
            span_s=trace.span_s / setup.speedup,
            num_tokens=total + int(trace.output_tokens.sum()),
        )


def _prefill_s(curve: PrefillCurve, cached: NDArray[np.int64], new: NDArray[np.int64]) -> NDArray[np.float64]:
    seconds = curve.fixed_s + new * (curve.token_s + curve.token_pair_s * (cached + 0.5 * new))
    return np.where(new > 0, seconds, 0.0)


def _waits(arrivals_s: NDArray[np.float64], service_s: NDArray[np.float64], replicas: int) -> NDArray[np.float64]:
    """Return how long each request waits for a replica: first come, first served."""
    free_s = [-np.inf] * replicas
    waits = []
    for arrival_s, seconds in zip(arrivals_s.tolist(), service_s.tolist(), strict=True):
        start_s = max(arrival_s, free_s[0])
        waits.append(start_s - arrival_s)
        heapq.heapreplace(free_s, start_s + seconds)
    return np.array(waits)
