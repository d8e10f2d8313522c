"""Settings in blocks and bytes for one model: what tiers, transfer and facade are built from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tiercel.config.messages import problem
from tiercel.config.model import ModelConfig
from tiercel.config.sizes import format_bytes, is_share, parse_share, parse_size, size_in_bytes
from tiercel.config.tenants import ResolvedTenant, resolve_tenants

if TYPE_CHECKING:
    from tiercel.config.cache import CacheConfig

SLOT_ALIGNMENT = 4096
"""Bytes that a slot's start is aligned to, in host memory and on disk: what direct I/O needs."""

BLOCKS_MAX = 2**31
"""Most slots of one tier: slot numbers are 32 bits wide."""

_JOURNAL_BYTES_PER_BLOCK = 64  # a record of key, parent, slot and checksum, rounded up


@dataclass(frozen=True, kw_only=True)
class DeviceRoom:
    """What the directories on one filesystem may take.

    Attributes:
        num_dirs: directories of the disk tier on it.
        num_bytes: free space and what our own files there hold already.
        has_journal: whether the first directory, which holds the journal, is one of them.
    """

    num_dirs: int
    num_bytes: int
    has_journal: bool


@dataclass(frozen=True, kw_only=True)
class Room:
    """What the machine has for the tiers: what a capacity such as "80%" is a share of.

    Attributes:
        memory_bytes: host memory that can still be taken.
        memory_text: what limits it.
        devices: the filesystems of the disk tier's directories, empty when it is off.
    """

    memory_bytes: int
    memory_text: str
    devices: Sequence[DeviceRoom] = ()


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
        transfer_gpu_chunk_bytes: that setting in bytes.
        gpu_pool_reserve_bytes: that setting in bytes, None for the formula.
        gpu_pool_release_bytes: that setting in bytes.
        journal_checkpoint_bytes: that setting in bytes.
        record_bytes_max: that setting in bytes.
        ssd_write_budget_bytes_per_day: ssd_write_budget_per_day in bytes, None for no limit.
        tenants: those that share the cache, in the order of the settings.
    """

    config: "CacheConfig"
    model: ModelConfig
    block_bytes: int
    slot_bytes: int
    num_cpu_blocks: int
    num_ssd_blocks: int
    transfer_chunk_bytes: int
    transfer_gpu_chunk_bytes: int
    gpu_pool_reserve_bytes: int | None
    gpu_pool_release_bytes: int
    journal_checkpoint_bytes: int
    record_bytes_max: int
    ssd_write_budget_bytes_per_day: int | None
    tenants: tuple[ResolvedTenant, ...] = ()

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


def resolve_sizes(config: "CacheConfig", model: ModelConfig, room: Room | None = None) -> ResolvedConfig:
    """Return settings in blocks and bytes, whether or not this version can store the model.

    Args:
        config: the settings.
        model: the model.
        room: what shares are taken of; needed only where a capacity is one.

    Raises:
        ConfigError: a capacity is less than one block, or a share of what nobody looked at.
    """
    block_bytes = model.token_size_in_bytes * config.tokens_per_block
    slot_bytes = -(-block_bytes // SLOT_ALIGNMENT) * SLOT_ALIGNMENT
    checkpoint_bytes = size_in_bytes("journal_checkpoint_bytes", config.journal_checkpoint_bytes)
    host = _blocks(config, "num_cpu_blocks", slot_bytes, checkpoint_bytes, room) if config.enable_cpu else 0
    disk = _blocks(config, "num_ssd_blocks", slot_bytes, checkpoint_bytes, room) if config.enable_ssd else 0
    budget, reserve = config.ssd_write_budget_per_day, config.gpu_pool_reserve_bytes
    return ResolvedConfig(
        config=config,
        model=model,
        block_bytes=block_bytes,
        slot_bytes=slot_bytes,
        num_cpu_blocks=host,
        num_ssd_blocks=disk,
        transfer_chunk_bytes=size_in_bytes("transfer_chunk_bytes", config.transfer_chunk_bytes),
        transfer_gpu_chunk_bytes=size_in_bytes("transfer_gpu_chunk_bytes", config.transfer_gpu_chunk_bytes),
        gpu_pool_reserve_bytes=None if reserve is None else size_in_bytes("gpu_pool_reserve_bytes", reserve),
        gpu_pool_release_bytes=size_in_bytes("gpu_pool_release_bytes", config.gpu_pool_release_bytes),
        journal_checkpoint_bytes=checkpoint_bytes,
        record_bytes_max=size_in_bytes("record_bytes_max", config.record_bytes_max),
        ssd_write_budget_bytes_per_day=None if budget is None else size_in_bytes("ssd_write_budget_per_day", budget),
        tenants=resolve_tenants(config.tenant_list, {"cpu": host, "ssd": disk}, slot_bytes),
    )


def _blocks(config: "CacheConfig", key: str, slot_bytes: int, checkpoint_bytes: int, room: Room | None) -> int:
    value: int | str = getattr(config, key)
    if not isinstance(value, str):
        return value
    if not is_share(value):
        num_blocks = parse_size(key, value) // slot_bytes
    elif room is None:
        raise problem(
            key, value, "is a share of what the machine has, which nobody has looked at", "use check_resources"
        )
    else:
        share = parse_share(key, value)
        num_blocks = (
            int(share * room.memory_bytes) // slot_bytes
            if key == "num_cpu_blocks"
            else min(_blocks_per_dir(device, int(share * device.num_bytes), slot_bytes, checkpoint_bytes, room)
                     for device in room.devices) * sum(device.num_dirs for device in room.devices)
        )  # fmt: skip
    if num_blocks < 1 and is_share(value):
        journal = f", its journal of {format_bytes(2 * checkpoint_bytes)} included (journal_checkpoint_bytes, twice)"
        rule = f"is less than a block of {format_bytes(slot_bytes)}{'' if key == 'num_cpu_blocks' else journal}"
        raise problem(key, value, rule, "free some, give a larger share, or turn the tier off")
    if not 1 <= num_blocks <= BLOCKS_MAX:
        remedy = (
            f"give at least {slot_bytes}B, or a smaller tokens_per_block"
            if num_blocks < 1
            else f"give at most {BLOCKS_MAX * slot_bytes}B, or a larger tokens_per_block"
        )
        raise problem(key, value, f"must hold 1 to {BLOCKS_MAX} blocks of {format_bytes(slot_bytes)}", remedy)
    return num_blocks


def _blocks_per_dir(device: DeviceRoom, num_bytes: int, slot_bytes: int, checkpoint_bytes: int, room: Room) -> int:
    """Blocks that each directory can hold if this many bytes of a device are taken, its journal included."""
    if not device.has_journal:
        return num_bytes // (device.num_dirs * slot_bytes)
    num_dirs = sum(device.num_dirs for device in room.devices)
    per_block = device.num_dirs * slot_bytes + 2 * num_dirs * _JOURNAL_BYTES_PER_BLOCK
    return max(0, num_bytes - 2 * checkpoint_bytes) // per_block


def share_bytes(key: str, value: str, room: Room) -> int:
    """Return what a share such as "80%" of num_cpu_blocks or num_ssd_blocks amounts to in bytes."""
    share = parse_share(key, value)
    if key == "num_cpu_blocks":
        return int(share * room.memory_bytes)
    num_dirs = sum(device.num_dirs for device in room.devices)
    return int(share * min(device.num_bytes // device.num_dirs for device in room.devices)) * num_dirs
