"""Which tiers there are and how much each holds."""

from collections.abc import Sequence
from dataclasses import dataclass

from tiercel.config.resolved import BLOCKS_MAX
from tiercel.config.settings import Kind, setting


@dataclass(frozen=True, kw_only=True)
class CapacitySettings:
    """Which tiers there are and how much each holds."""

    enable_cpu: bool = setting(
        True,
        "Keep blocks in host memory. Without it they go between disk and GPU through pinned buffers of 128 MiB.",
        kind=Kind.FLAG,
        measure="Hit rate of the host tier against its bytes.",
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
    cpu_arena_dir: str | None = setting(
        None,
        "Directory on a tmpfs, of its owner's alone, where host memory outlives the process; null: it ends with it.",
        kind=Kind.TEXT,
        measure="Hit rate in the first minutes after a restart.",
    )
    cpu_arena_wait_s: float = setting(
        5.0,
        "Longest wait at the start for processes that still have the host memory of an ended one mapped.",
        kind=Kind.NUMBER,
        unit="s",
        bounds=(0, 600),
        measure="How long ranks and clients take to notice that the cache's process ended.",
    )
