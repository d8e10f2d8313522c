"""Takes down what became of each request, and makes the result of it."""

from collections.abc import Mapping

import numpy as np

from tiercel.tiers.base import TierName
from tiercel.tune.simulate.result import SimulationResult, TierTraffic
from tiercel.tune.traces import Trace


class Recorder:
    """One array for each thing that is known of a request."""

    def __init__(self, num_requests: int, tiers: tuple[TierName, ...]) -> None:
        self.gpu_blocks = np.zeros(num_requests, np.int64)
        self.matched_blocks = np.zeros(num_requests, np.int64)
        self.hit_blocks = {tier: np.zeros(num_requests, np.int64) for tier in tiers}
        self.arrived_s = np.zeros(num_requests)
        self.ready_s = np.zeros(num_requests)
        self.started_s = np.zeros(num_requests)
        self.first_token_s = np.zeros(num_requests)
        self.ended_s = np.zeros(num_requests)
        self.prefill_busy_s = 0.0
        self.prefill_saved_s = 0.0

    def result(
        self,
        trace: Trace,
        *,
        tokens_per_block: int,
        block_bytes: int,
        tiers: Mapping[TierName, TierTraffic],
        refused: Mapping[str, int],
        notes: tuple[str, ...],
    ) -> SimulationResult:
        """The result of a run that has ended; arguments as its attributes."""
        return SimulationResult(
            trace=trace.name,
            tokens_per_block=tokens_per_block,
            block_bytes=block_bytes,
            input_tokens=trace.input_tokens,
            full_blocks=trace.input_tokens // tokens_per_block,
            gpu_blocks=self.gpu_blocks,
            matched_blocks=self.matched_blocks,
            hit_blocks=self.hit_blocks,
            arrived_s=self.arrived_s,
            started_s=self.started_s,
            first_token_s=self.first_token_s,
            ended_s=self.ended_s,
            tiers=tiers,
            prefill_busy_s=self.prefill_busy_s,
            prefill_saved_s=self.prefill_saved_s,
            ready_s=self.ready_s,
            refused=dict(sorted(refused.items())),
            notes=(*trace.notes, *notes),
        )
