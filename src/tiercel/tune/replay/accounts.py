"""What a replay writes down of each request and of the whole, and the result that it becomes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tiercel import Segment, TierName
from tiercel.telemetry.snapshot import StatusSnapshot
from tiercel.tune.simulate import SimulationResult, TierTraffic
from tiercel.tune.traces import Trace

_WRONG_KEPT_MAX = 20


@dataclass(frozen=True, kw_only=True)
class ReplayReport:
    """What really happened.

    Attributes:
        result: in the same form as a simulation's.
        restored_blocks: blocks that the cache gave back; each was compared byte for byte.
        wrong_blocks: those of them that held other bytes than were stored; must be 0.
        wrong: the first of them, in words.
        failed_blocks: blocks that a load promised and did not bring: recomputed.
        throttled_requests: loads and stores that a full queue refused.
        late_s: longest time by which a token came later than the engine's model says, since the machine was busy.
        notes: what the cache fell back from, as its status says it.
    """

    result: SimulationResult
    restored_blocks: int
    wrong_blocks: int
    wrong: tuple[str, ...]
    failed_blocks: int
    throttled_requests: int
    late_s: float
    notes: tuple[str, ...]


@dataclass(kw_only=True)
class Checks:
    """Counts of what was compared and of what went otherwise than planned; as in `ReplayReport`."""

    restored_blocks: int = 0
    wrong_blocks: int = 0
    wrong: list[str] = field(default_factory=list)
    failed_blocks: int = 0
    throttled_requests: int = 0
    late_s: float = 0.0

    def restored(self, request: int, first_block: int, num_blocks: int, wrong: list[int]) -> None:
        """Count blocks of a request that were loaded and compared. wrong: positions among them."""
        self.restored_blocks += num_blocks
        self.wrong_blocks += len(wrong)
        room = _WRONG_KEPT_MAX - len(self.wrong)
        self.wrong += [
            f"request {request}, block {first_block + at}: other bytes than were stored" for at in wrong[:room]
        ]


class Accounts:
    """An entry for each request."""

    def __init__(self, trace: Trace, tokens_per_block: int, tiers: tuple[TierName, ...]) -> None:
        count = trace.num_requests
        self._trace = trace
        self._tokens_per_block = tokens_per_block
        self.full_blocks = trace.input_tokens // tokens_per_block
        self.matched_blocks = np.zeros(count, np.int64)
        self.hit_blocks = {tier: np.zeros(count, np.int64) for tier in tiers}
        self.arrived_s, self.started_s = np.zeros(count), np.zeros(count)
        self.first_token_s, self.ended_s = np.zeros(count), np.zeros(count)
        self.prefill_busy_s = 0.0
        self.prefill_saved_s = 0.0
        self.checks = Checks()

    def loaded(self, request: int, segments: tuple[Segment, ...], num_blocks: int) -> None:
        """Enter the leading blocks that were loaded, by the tier they came from."""
        left = num_blocks
        for segment in segments:
            self.hit_blocks[segment.tier][request] += min(left, segment.num_blocks)
            left -= min(left, segment.num_blocks)

    def report(self, status: StatusSnapshot, block_bytes: int) -> ReplayReport:
        """Put everything together. status: the cache's, when all has ended."""
        result = SimulationResult(
            trace=self._trace.name,
            tokens_per_block=self._tokens_per_block,
            block_bytes=block_bytes,
            input_tokens=self._trace.input_tokens,
            full_blocks=self.full_blocks,
            gpu_blocks=np.zeros_like(self.full_blocks),
            matched_blocks=self.matched_blocks,
            hit_blocks=self.hit_blocks,
            arrived_s=self.arrived_s,
            started_s=self.started_s,
            first_token_s=self.first_token_s,
            ended_s=self.ended_s,
            tiers=_traffic(status),
            prefill_busy_s=self.prefill_busy_s,
            prefill_saved_s=self.prefill_saved_s,
        )
        checks = self.checks
        return ReplayReport(
            result=result,
            restored_blocks=checks.restored_blocks,
            wrong_blocks=checks.wrong_blocks,
            wrong=tuple(checks.wrong),
            failed_blocks=checks.failed_blocks,
            throttled_requests=checks.throttled_requests,
            late_s=checks.late_s,
            notes=status.notes,
        )


def _traffic(status: StatusSnapshot) -> Mapping[TierName, TierTraffic]:
    """Blocks by tier from the cache's own counts of transfers: what came out of a tier, and what went into it from a faster
    side."""
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
