"""How a disk tier is opened. Settings of files and environment become this in the facade, not here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tiercel.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DiskOptions:
    """How a disk tier is opened.

    Attributes:
        directories: one per device; blocks are striped over them.
        fingerprint: what must be equal for blocks to be exchangeable; names the folder. At least 8 bytes.
        model_id: name of the model, for whoever looks at the directory.
        num_slots: capacity in blocks over all directories.
        block_bytes: size of a block.
        queue_depth: requests in flight per call.
        write_bytes_beside_reads: bytes that a write call keeps in flight while a read is under way; one request at least.
        engine: "auto", "io_uring" or "threads".
        direct: bypass the page cache where the filesystem allows it.
        checkpoint_bytes: journal written before `wants_checkpoint` asks for a checkpoint.
        sync_interval_s: the journal is made durable at most this long after a write, by the next write. It matters only
            when the machine fails: a killed process loses nothing. What a lost journal tail costs is warm blocks, never
            a wrong byte, so syncing each write would buy nothing that is worth its milliseconds.
        bounce_bytes: memory for reads and writes whose blocks are not contiguous in host memory; resident as far as it is used.
        failures_max: failed calls in a row after which the tier goes out of service, reads and writes each by themselves.
        probe_interval_s: how often it looks whether its directories are still there, and tries again while out of service.
    """

    directories: Sequence[Path]
    fingerprint: bytes
    num_slots: int
    block_bytes: int
    model_id: str = ""
    queue_depth: int = 64
    write_bytes_beside_reads: int = 1 << 20
    engine: str = "auto"
    direct: bool = True
    checkpoint_bytes: int = 64 << 20
    sync_interval_s: float = 5.0
    bounce_bytes: int = 128 << 20
    failures_max: int = 4
    probe_interval_s: float = 5.0

    def __post_init__(self) -> None:
        if not self.directories:
            raise ConfigError("ssd_cache_dir = []: must name a directory; name one, or turn enable_ssd off")
        if len(self.fingerprint) < 8:
            raise ValueError("fingerprint: at least 8 bytes")
        if self.num_slots < 1 or self.block_bytes < 1:
            raise ValueError(f"num_slots and block_bytes must be positive: {self.num_slots}, {self.block_bytes}")
