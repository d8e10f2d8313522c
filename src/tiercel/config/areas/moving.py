"""How bytes are kept and moved: memory, disk requests, queues, deadlines."""

from dataclasses import dataclass

from tiercel.config.settings import Kind, setting, usable_cores


@dataclass(frozen=True, kw_only=True)
class MovingSettings:
    """How bytes are kept and moved: memory, disk requests, queues, deadlines."""

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
    journal_checkpoint_bytes: int | str = setting(
        "64MiB",
        "Journal written on the disk tier before a checkpoint replaces it.",
        kind=Kind.SIZE,
        unit="bytes",
        bounds=(4096, 2**34),
        measure="Time to recover after a kill.",
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
