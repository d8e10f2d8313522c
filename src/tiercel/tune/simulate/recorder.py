"""Takes down what became of each request, and makes the result of it."""

from collections.abc import Mapping

import numpy as np

from tiercel.control import Control
from tiercel.tiers.base import TierName
from tiercel.transfer import LaneName
from tiercel.tune.simulate.operations import Operations
from tiercel.tune.simulate.result import SimulationResult, TierTraffic
from tiercel.tune.simulate.setup import SimulationSetup
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
        self, trace: Trace, setup: SimulationSetup, control: Control, operations: Operations
    ) -> SimulationResult:
        """The result of a run that has ended."""
        return SimulationResult(
            trace=trace.name,
            tokens_per_block=setup.control.tokens_per_block,
            block_bytes=setup.control.block_bytes,
            input_tokens=trace.input_tokens,
            full_blocks=trace.input_tokens // setup.control.tokens_per_block,
            gpu_blocks=self.gpu_blocks,
            matched_blocks=self.matched_blocks,
            hit_blocks=self.hit_blocks,
            arrived_s=self.arrived_s,
            started_s=self.started_s,
            first_token_s=self.first_token_s,
            ended_s=self.ended_s,
            tiers=_traffic(control, operations),
            prefill_busy_s=self.prefill_busy_s,
            prefill_saved_s=self.prefill_saved_s,
            ready_s=self.ready_s,
            refused=dict(sorted(operations.refused.items())),
            notes=(*trace.notes, *setup.notes),
        )


def _traffic(control: Control, operations: Operations) -> Mapping[TierName, TierTraffic]:
    traffic = {}
    for tier in control.tiers:
        read, written = (operations.transfers.use(LaneName(tier, loading)) for loading in (True, False))
        traffic[tier] = TierTraffic(
            blocks_read=read.blocks,
            blocks_written=written.blocks,
            evicted=control.stats(tier).num_evicted,
            busy_s=read.busy_s + written.busy_s,
            wait_s=read.wait_s + written.wait_s,
        )
    return traffic
