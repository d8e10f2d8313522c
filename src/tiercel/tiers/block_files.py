"""The disk tier's engine by itself: fixed-size slots in preallocated files, without names, journal or locks.

`DiskTier` keeps a cache with it; `tune.probe` and the benchmarks measure a directory with the very same reads and writes.
What is native here lies in native/core/disk.
"""

from collections.abc import Sequence
from pathlib import Path

from tiercel._native import BlockFiles, checksum
from tiercel.config.paths import utf8_path
from tiercel.tiers.disk_options import DiskOptions
from tiercel.tiers.memory import page_aligned_bytes

__all__ = ["BlockFiles", "checksum", "fallbacks_of", "open_block_files"]


def open_block_files(paths: Sequence[Path], options: DiskOptions) -> BlockFiles:
    """Open a disk tier's files, one a directory. Raises OSError with the path."""
    return BlockFiles(
        [utf8_path(path) for path in paths],
        num_slots=options.num_slots,
        slot_bytes=page_aligned_bytes(options.block_bytes),
        block_bytes=options.block_bytes,
        queue_depth=options.queue_depth,
        write_bytes_beside_reads=options.write_bytes_beside_reads,
        engine=options.engine,
        direct=options.direct,
    )


def fallbacks_of(files: BlockFiles) -> dict[str, str]:
    """What is slower than it could be, by kind, and why, in words. That of `io_buffers` may come after opening."""
    reasons = {
        "io_engine": files.engine_reason,
        "direct_io": files.direct_reason,
        "allocation": files.allocation_reason,
        "io_buffers": files.memory_reason,
    }
    return {kind: reason for kind, reason in reasons.items() if reason}
