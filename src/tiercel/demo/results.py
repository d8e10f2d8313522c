"""What the demo found out: records of requests, classes of them, and quantiles. No I/O."""

import enum
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tiercel.demo.machine import MachineSpeed
from tiercel.demo.messages import Answer, TierUse
from tiercel.demo.verify import Verification
from tiercel.demo.workload import Turn, Workload


class Source(enum.Enum):
    """Where most of a prompt's KV came from."""

    COMPUTED = "computed"
    ENGINE = "engine"
    HOST = "host"
    DISK = "disk"
    DISK_AFTER_KILL = "disk after the kill"


LABELS = {
    Source.COMPUTED: "nothing stored",
    Source.ENGINE: "engine's own cache",
    Source.HOST: "host hit",
    Source.DISK: "disk hit",
    Source.DISK_AFTER_KILL: "disk hit after the kill",
}


@dataclass(frozen=True, kw_only=True)
class Served:
    """One answered request with Tiercel, beside the same request without it."""

    turn: Turn
    answer: Answer
    without: Answer
    after_kill: bool

    @property
    def source(self) -> Source:
        """Where most tokens of the prompt came from."""
        tokens = Counter(self.answer.reused_tokens)
        tokens["computed"] = self.answer.num_prompt_tokens - sum(self.answer.reused_tokens.values())
        name = max(tokens, key=lambda source: tokens[source])
        return Source.DISK_AFTER_KILL if name == "disk" and self.after_kill else Source(name)

    @property
    def speed_up(self) -> float:
        """How many times sooner the first token came."""
        return self.without.ttft_s / self.answer.ttft_s


@dataclass(frozen=True, kw_only=True)
class RunTotals:
    """One worker's life: its start, its traffic, its end."""

    start_s: float
    wall_s: float
    tiers: tuple[TierUse, ...]
    found_blocks: int
    failures: dict[str, int]
    peak_bytes: int


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """All that the table and the report show."""

    workload: Workload
    model: str
    block_bytes: int
    host_bytes: int
    engine_bytes: int
    machine: MachineSpeed
    without: tuple[Answer, ...]
    served: tuple[Served, ...]
    runs: tuple[RunTotals, ...]
    """Without Tiercel, with it until the kill, and after the kill."""
    stores_running_at_kill: int
    verification: Verification
    total_s: float

    def of(self, source: Source) -> list[Served]:
        """Requests with Tiercel whose prompt came mostly from one source."""
        return [served for served in self.served if served.source is source]

    def tokens_by_source(self) -> dict[str, int]:
        """Prompt tokens with Tiercel, by where their KV came from."""
        tokens = Counter({"computed": 0, "engine": 0, "host": 0, "disk": 0})
        for served in self.served:
            tokens.update(served.answer.reused_tokens)
            tokens["computed"] += served.answer.num_prompt_tokens - sum(served.answer.reused_tokens.values())
        return dict(tokens)

    def traffic(self, tier: str) -> TierUse:
        """A tier's traffic over both runs with Tiercel, and its last occupancy."""
        uses = [use for run in self.runs for use in run.tiers if use.tier == tier]
        return TierUse(
            tier=tier,
            num_blocks=uses[-1].num_blocks,
            used_blocks=uses[-1].used_blocks,
            bytes_read=sum(use.bytes_read for use in uses),
            read_s=sum(use.read_s for use in uses),
            bytes_written=sum(use.bytes_written for use in uses),
            write_s=sum(use.write_s for use in uses),
        )


def quantile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed (nearest rank). NaN for no values."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]
