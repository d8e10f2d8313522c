"""An oracle whose answers are a formula: what is best is known without searching."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tiercel.config import ModelConfig
from tiercel.tiers.base import TierName
from tiercel.tune.advise.asking import TIMES
from tiercel.tune.advise.candidate import Candidate
from tiercel.tune.advise.oracle import TypicalHit
from tiercel.tune.advise.outcome import Outcome
from tiercel.tune.machine import (
    DirectoryFigures,
    DiskFigure,
    Figure,
    GpuCopyFigure,
    GpuFigures,
    Machine,
)

GIB = 1 << 30
MODEL = ModelConfig(model_id="llama@1", num_layers=32, num_kv_heads=8, head_size=128, dtype="bfloat16")

_OPERATIONS: tuple[tuple[Literal["read", "write"], float], ...] = (("read", 1.0), ("write", 0.5))


@dataclass
class Landscape:
    """Times fall as tiers hold more, and differ by setting.

    Attributes:
        sharing: share of tokens that a cache without bounds would hold.
        half_bytes: capacity that holds 63 % of them, host memory or disk.
        disk_worth: what a hit on disk saves, as a share of one in host memory.
        policy, disk_policy, admission: by which capacity is effectively multiplied.
        slowness: added to the mean, by tokens a block.
    """

    sharing: float = 0.6
    on_gpu: float = 0.05
    half_bytes: float = 64 * GIB
    disk_worth: float = 0.8
    alone_s: float = 2.0
    policy: Mapping[str, float] = field(default_factory=dict)
    disk_policy: Mapping[str, float] = field(default_factory=dict)
    admission: Mapping[str, float] = field(default_factory=dict)
    slowness: Mapping[int, float] = field(default_factory=dict)
    compute_s: float = 0.5
    load_s: float = 0.05
    is_screening: bool = False
    asked: list[Candidate] = field(default_factory=list)

    def evaluate(self, candidate: Candidate) -> Outcome:
        self.asked.append(candidate)
        return self._outcome(candidate, self._held(candidate))

    screen = evaluate

    def forecast(self, candidate: Candidate) -> Outcome:
        plain = Candidate(
            host_bytes=candidate.host_bytes,
            disk_bytes=candidate.disk_bytes,
            tokens_per_block=candidate.tokens_per_block,
        )
        return self._outcome(plain, self._held(plain))

    def without(self) -> Outcome:
        return self._times(self.alone_s * (1 - self.on_gpu), self.on_gpu, 0.0, 0.0, 0.0)

    def typical_hit(self, candidate: Candidate) -> TypicalHit:
        tiers = [
            t for t, size in ((TierName.HOST, candidate.host_bytes), (TierName.DISK, candidate.disk_bytes)) if size
        ]
        return TypicalHit(tokens=4096, compute_s=self.compute_s, load_s=dict.fromkeys(tiers, self.load_s))

    def _held(self, candidate: Candidate) -> tuple[float, float]:
        host = candidate.host_bytes * self.policy.get(candidate.eviction_policy, 1.0)
        disk = candidate.disk_bytes * self.disk_policy.get(candidate.ssd_eviction_policy, 1.0)
        disk *= self.admission.get(candidate.ssd_admission, 1.0)
        if candidate.ssd_write_budget_per_day is not None:
            disk *= 0.9
        room = max(0.0, self.sharing - self.on_gpu)
        in_host = room * (1 - math.exp(-host / self.half_bytes))
        return in_host, max(in_host, room * (1 - math.exp(-max(host, disk) / self.half_bytes))) - in_host

    def _outcome(self, candidate: Candidate, held: tuple[float, float]) -> Outcome:
        saved = self.on_gpu + held[0] + self.disk_worth * held[1]
        mean_s = self.alone_s * (1 - saved) * (1 - candidate.evict_ratio * -0.2)
        mean_s += self.slowness.get(candidate.tokens_per_block, 0.0)
        written = (
            candidate.disk_bytes * {"through": 1.0, "on_second_hit": 0.3, "on_evict": 0.7}[candidate.ssd_admission]
        )
        if candidate.ssd_write_budget_per_day is not None:
            written = min(written, candidate.ssd_write_budget_per_day / 24)
        return self._times(mean_s, self.on_gpu, *held, written)

    def _times(self, mean_s: float, on_gpu: float, host: float, disk: float, written: float) -> Outcome:
        factors = {"mean": 1.0, "p50": 0.8, "p90": 2.0, "p95": 2.5, "p99": 4.0}
        return Outcome(
            times_s={name: mean_s * factors[name.split("_")[1]] + (5 if "e2e" in name else 0) for name in TIMES},
            token_hit_rate=on_gpu + host + disk,
            gpu_hit_rate=on_gpu,
            host_hit_rate=host,
            disk_hit_rate=disk,
            prefill_busy_s=3000 * mean_s / self.alone_s,
            disk_written_bytes=written,
            disk_read_bytes=0.0,
            span_s=3600.0,
            num_tokens=10_000_000,
        )


def random_landscape(draw: random.Random) -> Landscape:
    """A landscape with random worths of everything."""
    return Landscape(
        sharing=draw.uniform(0.3, 0.9),
        on_gpu=draw.uniform(0.0, 0.1),
        half_bytes=draw.choice([8, 32, 128, 512]) * GIB,
        disk_worth=draw.uniform(0.2, 1.0),
        policy={name: draw.uniform(0.6, 1.5) for name in ("lru", "2q", "slru", "lfu", "arc", "cost")},
        disk_policy={name: draw.uniform(0.6, 1.5) for name in ("lru", "2q", "slru", "lfu", "arc", "cost")},
        admission={name: draw.uniform(0.6, 1.5) for name in ("through", "on_second_hit", "on_evict")},
        slowness={size: draw.uniform(0.0, 0.2) for size in (16, 32, 64, 128)},
    )


def figure(value: float) -> Figure:
    return Figure(value=value, low=value, high=value, repeats=3)


_DIRECTIONS: tuple[Literal["h2d", "d2h"], ...] = ("h2d", "d2h")
_COPIES = tuple(
    GpuCopyFigure(direction=direction, piece_bytes=piece, ctas=ctas, bytes_per_s=figure(rate))
    for direction in _DIRECTIONS
    for piece in (4096, 32768)
    for ctas, rate in ((0, 36e9), (4, 49e9), (8, 50e9), (32, 50.5e9))
)


def machine(*, with_gpu: bool = True) -> Machine:
    """A machine whose figures are round."""
    figures = tuple(
        DiskFigure(
            operation=operation,
            block_bytes=size,
            depth=depth,
            bytes_per_s=figure(rate * share),
            latency_p50_s=size / rate + 1e-4,
            latency_p99_s=1e-2,
        )
        for operation, share in _OPERATIONS
        for size in (262_144, 2_097_152)
        for depth, rate in ((1, 1e9), (32, 5.95e9), (512, 6e9))
    )
    gpu = GpuFigures(
        name="NVIDIA H100 80GB HBM3",
        memory_bytes=80 * GIB,
        h2d_bytes_per_s=figure(55e9),
        d2h_bytes_per_s=figure(55e9),
        both_bytes_per_s=figure(59e9),
        copies=_COPIES,
    )
    return Machine(
        measured_at=0.0,
        tiercel="0",
        cpu="some",
        num_cores=8,
        memory_bytes=512 * GIB,
        kernel="6",
        copy_bytes_per_s=figure(20e9),
        checksum_bytes_per_s=figure(10e9),
        hash_tokens_per_s=figure(1e8),
        directories=(
            DirectoryFigures(
                path="/nvme0/tiercel",
                filesystem="ext4",
                capacity_bytes=4096 * GIB,
                free_bytes=4096 * GIB,
                engine="io_uring",
                direct=True,
                figures=figures,
            ),
        ),
        gpus=(gpu,) if with_gpu else (),
    )
