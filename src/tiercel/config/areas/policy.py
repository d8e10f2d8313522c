"""What is stored, where it goes, what leaves, and which hits are loaded."""

from dataclasses import dataclass

from tiercel.config.settings import Kind, setting

EVICTION_POLICIES = ("lru", "2q", "slru", "lfu", "fifo", "mru", "filo", "arc", "cost")
"""Names of the eviction policies; native/core/index/policies has a file for each."""


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """What is stored, where it goes, what leaves, and which hits are loaded."""

    eviction_policy: str = setting(
        "lru",
        "Which blocks leave a full tier first.",
        kind=Kind.CHOICE,
        choices=EVICTION_POLICIES,
        measure="Hit rate of each policy on your own trace.",
    )
    ssd_eviction_policy: str | None = setting(
        None,
        "The same for the disk tier alone; null takes eviction_policy.",
        kind=Kind.CHOICE,
        choices=EVICTION_POLICIES,
        measure="As of eviction_policy, at the disk tier's capacity.",
    )
    evict_ratio: float = setting(
        0.0,
        "Share of a full tier that is evicted at once; 0 evicts only what the new blocks need.",
        kind=Kind.NUMBER,
        unit="share",
        bounds=(0, 0.5),
        measure="Time of stores into a full cache, against the hit rate lost.",
    )
    evict_start_threshold: float = setting(
        1.0,
        "High watermark: share of a tier in use above which blocks are evicted ahead of need; 1 waits until it is full.",
        kind=Kind.NUMBER,
        unit="share",
        bounds=(0.05, 1),
        measure="Stores that found no room, against the hit rate at the smaller capacity.",
    )
    evict_stop_threshold: float | None = setting(
        None,
        "Low watermark: share in use at which eviction ahead of need stops; null takes evict_start_threshold less evict_ratio.",
        kind=Kind.NUMBER,
        unit="share",
        bounds=(0.0, 1),
        measure="As of evict_start_threshold; the gap between the two is the batch.",
    )
    slru_protected_threshold: int = setting(
        2,
        "Uses after which slru protects a block.",
        kind=Kind.COUNT,
        unit="uses",
        bounds=(1, 255),
        measure="Hit rate of slru at 2 and 3 on your own trace.",
    )
    hit_reward_seconds: float = setting(
        0.0,
        "Seconds that every hit lengthens a block's stay under lru, added up.",
        kind=Kind.NUMBER,
        unit="s",
        bounds=(0, 86400),
        measure="Hit rate, and the age of what is evicted.",
    )
    ssd_admission: str = setting(
        "through",
        "Which blocks are written to disk: all at once, those seen a second time, or those about to leave host memory.",
        kind=Kind.CHOICE,
        choices=("through", "on_second_hit", "on_evict"),
        measure="Bytes written per byte read back, hit rate of the disk tier, hits after a restart.",
    )
    ssd_write_budget_per_day: int | str | None = setting(
        None,
        "Bytes that may be written to disk in a day, on average; null sets no limit.",
        kind=Kind.SIZE,
        unit="bytes",
        bounds=(2**20, 2**60),
        measure="The disks' endurance (drive writes per day times capacity) against bytes written.",
    )
    min_store_priority: int = setting(
        0,
        "Least priority of a block to be stored: of each request, the leading blocks at or above it are.",
        kind=Kind.COUNT,
        unit="priority",
        bounds=(0, 100),
        measure="Hit rate of the requests that matter, with and without.",
    )
    ghost_sample_rate: float = setting(
        0.004,
        "Share of blocks that is followed, without their bytes, to tell the hit rate of other capacities; 0 follows none.",
        kind=Kind.NUMBER,
        unit="share",
        bounds=(0, 1),
        measure="The curve's own error, against about 3 % of a lookup; above 500K blocks the rate falls by itself.",
    )
    auto_tune: bool = setting(
        False,
        "Change ssd_admission and the host tier's watermarks while running, and undo what did not help; each change is logged.",
        kind=Kind.FLAG,
        measure="Hit rate, bytes written per byte read back and stores that found no room, a day with and a day without.",
    )
    load_policy: str = setting(
        "auto",
        "Which hits are loaded: the part that is cheaper than recompute, all, or none.",
        kind=Kind.CHOICE,
        choices=("auto", "always", "never"),
        measure="Time to first token with always and with never; auto must not lose to either.",
    )
