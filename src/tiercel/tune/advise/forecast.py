"""What a candidate will come to, from the LRU curve alone: a hundred times cheaper than a simulation, and rougher.

Each block of a request is as deep in the order of use as different blocks were used since: a tier of C blocks still has it if
that is at most C. From the hits of each tier follow load and prefill of each request, and from these, one after the other, the
waiting. Not in it: policies other than LRU, and transfers that wait for each
other, except that a disk takes no more than it can write.
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

_HELD_MAX = 32


class Forecaster:
    """Forecasts of one trace."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        depths = lru_depths(trace)
        self._depths = np.where(depths == NEVER, np.iinfo(np.int64).max, depths)
        counts = np.array([trace.num_blocks_of(request) for request in range(trace.num_requests)], np.int64)
        self._held: dict[float, NDArray[np.int64]] = {}
        """By capacity: forecasts ask for the same few again and again."""
        self._stops = np.cumsum(counts)
        self._starts = self._stops - counts

    def held_blocks(self, capacity_blocks: float) -> NDArray[np.int64]:
        """Return how many leading blocks of each request an LRU cache of this many of the trace's blocks still has."""
        held = self._held.get(capacity_blocks)
        if held is None:
            found = np.concatenate([[0], np.cumsum(self._depths <= capacity_blocks)])
            held = np.asarray(found[self._stops] - found[self._starts], np.int64)
            if len(self._held) == _HELD_MAX:
                self._held.clear()
            self._held[capacity_blocks] = held
        return held

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
        kept = self._kept_share(setup)
        cached = best = on_gpu
        tokens = {TierName.GPU: on_gpu, TierName.HOST: _NONE, TierName.DISK: _NONE}
        load_s = np.zeros(trace.num_requests)
        fastest_s = _prefill_s(setup.engine.prefill, cached, trace.input_tokens - cached)
        for tier in sorted(control.capacities):
            held = np.maximum(cached, self.held_tokens(control.capacities[tier] * size, size))
            if tier is TierName.DISK:
                held = cached + ((held - cached) * kept).astype(np.int64) // size * size
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
        return Outcome(
            times_s=times_of(ttft_s, e2e_s),
            token_hit_rate=float(best.sum()) / total,
            gpu_hit_rate=float(on_gpu.sum()) / total,
            host_hit_rate=float(tokens[TierName.HOST].sum()) / total,
            disk_hit_rate=float(tokens[TierName.DISK].sum()) / total,
            prefill_busy_s=float(busy_s.sum()),
            disk_written_bytes=self._written_bytes(setup) * kept,
            disk_read_bytes=float(tokens[TierName.DISK].sum()) / size * control.block_bytes,
            span_s=trace.span_s / setup.speedup,
            num_tokens=total + int(trace.output_tokens.sum()),
        )

    def _written_bytes(self, setup: SimulationSetup) -> float:
        """What would be written to disk if it took everything that it does not hold."""
        control = setup.control
        if TierName.DISK not in control.capacities:
            return 0.0
        held = self.held_tokens(control.capacities[TierName.DISK] * control.tokens_per_block, control.tokens_per_block)
        outputs = self._trace.output_tokens.sum() if setup.engine.stores_output else 0
        new_tokens = float((self._trace.input_tokens - held).sum() + outputs)
        return new_tokens / control.tokens_per_block * control.block_bytes

    def _kept_share(self, setup: SimulationSetup) -> float:
        """Share of what is to be written to disk that its link has time for."""
        written = self._written_bytes(setup)
        if not written:
            return 1.0
        room = setup.writes[TierName.DISK].bytes_per_s * self._trace.span_s / setup.speedup
        return min(1.0, room / written) if self._trace.span_s else 1.0


_NONE = np.zeros(1, np.int64)


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
