"""Settings in blocks and bytes for one model: what tiers, transfer and facade are built from."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tiercel.config.messages import problem
from tiercel.config.model import ModelConfig
from tiercel.config.sizes import format_bytes, parse_size

if TYPE_CHECKING:
    from tiercel.config.cache import CacheConfig

SLOT_ALIGNMENT = 4096
"""Bytes that a slot's start is aligned to, in host memory and on disk: what direct I/O needs."""

BLOCKS_MAX = 2**31
"""Most slots of one tier: slot numbers are 32 bits wide."""

_JOURNAL_BYTES_PER_BLOCK = 64  # a record of key, parent, slot and checksum, rounded up


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig:
    """One cache for one model, in numbers.

    Attributes:
        config: the settings.
        model: the model.
        block_bytes: bytes of KV in one block.
        slot_bytes: block_bytes rounded up to SLOT_ALIGNMENT, what a block takes in host memory and on disk.
        num_cpu_blocks: slots of the host tier, 0 when it is off.
        num_ssd_blocks: slots of the disk tier over all directories, 0 when it is off.
        transfer_chunk_bytes: that setting in bytes.
        journal_checkpoint_bytes: that setting in bytes.
    """

    config: "CacheConfig"
    model: ModelConfig
    block_bytes: int
    slot_bytes: int
    num_cpu_blocks: int
    num_ssd_blocks: int
    transfer_chunk_bytes: int
    journal_checkpoint_bytes: int

    @property
    def host_bytes(self) -> int:
        """Host memory of the host tier."""
        return self.num_cpu_blocks * self.slot_bytes

    @property
    def ssd_cache_dirs(self) -> tuple[Path, ...]:
        """Directories of the disk tier, none when it is off."""
        return self.config.ssd_cache_dirs if self.config.enable_ssd else ()

    @property
    def directory_bytes(self) -> int:
        """Bytes of block data in each directory of the disk tier."""
        num_dirs = len(self.ssd_cache_dirs)
        return -(-self.num_ssd_blocks // num_dirs) * self.slot_bytes if num_dirs else 0

    @property
    def journal_bytes(self) -> int:
        """Most bytes of the journal, in the first directory: two checkpoints, and what is appended between them."""
        if not self.ssd_cache_dirs:
            return 0
        return 2 * (self.num_ssd_blocks * _JOURNAL_BYTES_PER_BLOCK + self.journal_checkpoint_bytes)

    @property
    def disk_bytes(self) -> int:
        """Disk space of the disk tier over all directories, journal included."""
        return self.directory_bytes * len(self.ssd_cache_dirs) + self.journal_bytes


def resolve_sizes(config: "CacheConfig", model: ModelConfig) -> ResolvedConfig:
    """Return settings in blocks and bytes, whether or not this version can store the model.

    Raises:
        ConfigError: a capacity is less than one block.
    """
    block_bytes = model.token_size_in_bytes * config.tokens_per_block
    slot_bytes = -(-block_bytes // SLOT_ALIGNMENT) * SLOT_ALIGNMENT
    return ResolvedConfig(
        config=config,
        model=model,
        block_bytes=block_bytes,
        slot_bytes=slot_bytes,
        num_cpu_blocks=_blocks("num_cpu_blocks", config.num_cpu_blocks, slot_bytes) if config.enable_cpu else 0,
        num_ssd_blocks=_blocks("num_ssd_blocks", config.num_ssd_blocks, slot_bytes) if config.enable_ssd else 0,
        transfer_chunk_bytes=_bytes("transfer_chunk_bytes", config.transfer_chunk_bytes),
        journal_checkpoint_bytes=_bytes("journal_checkpoint_bytes", config.journal_checkpoint_bytes),
    )


def _bytes(key: str, value: int | str) -> int:
    return parse_size(key, value) if isinstance(value, str) else value


def _blocks(key: str, value: int | str, slot_bytes: int) -> int:
    if not isinstance(value, str):
        return value
    num_blocks = parse_size(key, value) // slot_bytes
    if not 1 <= num_blocks <= BLOCKS_MAX:
        remedy = (
            f"give at least {slot_bytes}B, or a smaller tokens_per_block"
            if num_blocks < 1
            else f"give at most {BLOCKS_MAX * slot_bytes}B, or a larger tokens_per_block"
        )
        raise problem(key, value, f"must hold 1 to {BLOCKS_MAX} blocks of {format_bytes(slot_bytes)}", remedy)
    return num_blocks
