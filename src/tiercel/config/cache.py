"""The settings of a cache, as a user gives them: the only place where a default, a range or a meaning is written.

`load` fills a `CacheConfig` from files and the environment; `resolve` turns it into the blocks and bytes that the
tiers, the transfer and the facade are built from. A `CacheConfig` that exists is valid.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tiercel.config.messages import problem
from tiercel.config.model import ModelConfig
from tiercel.config.resolved import BLOCKS_MAX, ResolvedConfig, resolve_sizes
from tiercel.config.settings import Kind, Setting, setting, settings_of, usable_cores

EVICTION_POLICIES = ("lru", "2q", "slru", "lfu", "fifo", "mru", "filo", "arc", "cost")
"""Names of the eviction policies; native/core/index/policies has a file for each."""


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Settings of one cache; docs/configuration.md describes each.

    Raises:
        ConfigError: a value is out of its range or contradicts another; the message names the key and a remedy.
    """

    enable_cpu: bool = setting(
        True, "Keep blocks in host memory.", kind=Kind.FLAG, measure="Hit rate of the host tier against its bytes."
    )
    enable_ssd: bool = setting(
        False,
        "Keep blocks in files on local disks; they survive a restart.",
        kind=Kind.FLAG,
        measure="The disks' read bandwidth against the engine's prefill speed.",
    )
    tokens_per_block: int = setting(
        16,
        "Tokens of one block; only whole blocks are stored.",
        kind=Kind.POWER_OF_TWO,
        unit="tokens",
        bounds=(1, 1024),
        measure="Bytes per piece (larger moves faster) against tokens lost at the ragged end of prompts.",
    )
    num_cpu_blocks: int | str = setting(
        1_000_000,
        "Capacity of the host tier.",
        kind=Kind.CAPACITY,
        unit="blocks",
        bounds=(1, BLOCKS_MAX),
        measure="Hit rate at this capacity and at twice it; memory left for the engine.",
    )
    num_ssd_blocks: int | str = setting(
        10_000_000,
        "Capacity of the disk tier over all its directories.",
        kind=Kind.CAPACITY,
        unit="blocks",
        bounds=(1, BLOCKS_MAX),
        measure="Hit rate of the disk tier; 10 to 100 times the host tier is usual.",
    )
    ssd_cache_dir: str | Sequence[str] = setting(
        "./ssd_cache",
        "Directories of the disk tier; blocks are striped over them, so give one for each device.",
        kind=Kind.DIRECTORIES,
        measure="Read bandwidth of each device alone and of all together.",
    )
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
    ssd_cache_iouring_entries: int = setting(
        512,
        "Disk requests in flight at once.",
        kind=Kind.COUNT,
        unit="requests",
        bounds=(1, 32768),
        measure="Disk bandwidth at this depth and at half of it; more depth costs latency.",
    )
    ssd_io_engine: str = setting(
        "auto",
        "How disk requests are made; auto takes io_uring where it works and says so where it does not.",
        kind=Kind.CHOICE,
        choices=("auto", "io_uring", "threads"),
        measure="Disk bandwidth and CPU time with each.",
    )
    ssd_direct_io: bool = setting(
        True,
        "Bypass the operating system's page cache.",
        kind=Kind.FLAG,
        measure="Disk bandwidth, and memory taken by the page cache.",
    )
    cpu_hugepages: bool = setting(
        True, "Ask for huge pages for the host tier.", kind=Kind.FLAG, measure="Time to start, and copy bandwidth."
    )
    cpu_copy_threads: int = setting(
        min(4, usable_cores()),
        "Threads that copy blocks between the engine's memory and the host tier.",
        kind=Kind.COUNT,
        unit="threads",
        bounds=(1, 256),
        default_text="the smaller of 4 and the process's cores",
        measure="Copy bandwidth at each count; the engine's own speed meanwhile.",
    )
    load_policy: str = setting(
        "auto",
        "Which hits are loaded: the part that is cheaper than recompute, all, or none.",
        kind=Kind.CHOICE,
        choices=("auto", "always", "never"),
        measure="Time to first token with always and with never; auto must not lose to either.",
    )
    transfer_queue_depth_max: int = setting(
        256,
        "Moves waiting per direction before a new one is refused as throttled.",
        kind=Kind.COUNT,
        unit="moves",
        bounds=(8, 65536),
        measure="Throttled moves, and queue wait of loads.",
    )
    transfer_chunk_bytes: int | str = setting(
        "32MiB",
        "Bytes moved between two looks at cancellation and priorities; at least one block is.",
        kind=Kind.SIZE,
        unit="bytes",
        bounds=(4096, 2**30),
        measure="Wait of a load behind a running store, against bandwidth.",
    )
    transfer_timeout_s: float = setting(
        30.0,
        "Deadline of a move, its wait in the queue included.",
        kind=Kind.NUMBER,
        unit="s",
        bounds=(0.001, 86400),
        measure="The longest move at the slowest tier's bandwidth.",
    )
    journal_checkpoint_bytes: int | str = setting(
        "64MiB",
        "Journal written on the disk tier before a checkpoint replaces it.",
        kind=Kind.SIZE,
        unit="bytes",
        bounds=(4096, 2**34),
        measure="Time to recover after a kill.",
    )
    status_socket: str | None = setting(
        None,
        "Socket at which `tiercel stats` reaches this process; null derives it.",
        kind=Kind.TEXT,
        measure="Nothing; set it where the derived path is not reachable.",
    )
    metrics_port: int | None = setting(
        None,
        "Port of the Prometheus metrics; null serves none, 0 takes a free one.",
        kind=Kind.COUNT,
        bounds=(0, 65535),
        measure="Nothing; take a free port.",
    )

    def __post_init__(self) -> None:
        for key, described in SETTINGS.items():
            object.__setattr__(self, key, described.check(getattr(self, key)))
        self._check_relations()

    def _check_relations(self) -> None:
        if not self.enable_cpu and not self.enable_ssd:
            raise problem("enable_cpu", False, "must be true when enable_ssd is false: no tier would be left",
                          "enable one of them; to run without loading, set load_policy to never")  # fmt: skip
        directories = self.ssd_cache_dirs
        stop = self.evict_stop_threshold
        if stop is not None and stop >= self.evict_start_threshold:
            raise problem("evict_stop_threshold", stop, f"must be below evict_start_threshold = {self.evict_start_threshold:g}",
                          "lower it, or leave it out")  # fmt: skip
        if self.enable_ssd and not directories:
            raise problem("ssd_cache_dir", self.ssd_cache_dir, "must name a directory when enable_ssd is true",
                          "name one for each device")  # fmt: skip
        if len({os.path.realpath(path) for path in directories}) != len(directories):  # links have two names, too
            raise problem("ssd_cache_dir", self.ssd_cache_dir, "must name each directory once", "remove the repetition")

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> "CacheConfig":
        """Read a YAML or JSON file; the environment is not looked at. Raises ConfigError."""
        from tiercel.config.load import load_config

        return load_config(path, environ={}).config

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "CacheConfig":
        """Read TIERCEL_ variables of this process, or of a mapping. Raises ConfigError."""
        from tiercel.config.load import load_config

        return load_config(environ=environ).config

    @property
    def ssd_cache_dirs(self) -> tuple[Path, ...]:
        """The directories of `ssd_cache_dir`, in order."""
        given = self.ssd_cache_dir.split(";") if isinstance(self.ssd_cache_dir, str) else self.ssd_cache_dir
        return tuple(Path(entry.strip()).expanduser() for entry in given if entry.strip())

    def resolve(self, model: ModelConfig) -> ResolvedConfig:
        """Return these settings in blocks and bytes for one model.

        Raises:
            ConfigError: a capacity is less than one block, or the model is one that this version cannot store.
        """
        model.require_full_attention()
        return resolve_sizes(self, model)


SETTINGS: dict[str, Setting] = settings_of(CacheConfig)
"""Every setting of CacheConfig by key, in order."""
