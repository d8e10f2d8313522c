"""The tiers of a cache, opened from its settings, and what they hold from before put into the index. Used by `assembly`."""

import logging
import os
from collections.abc import Callable

import numpy as np

from tiercel.config import CacheConfig, ResolvedConfig
from tiercel.control import Control
from tiercel.errors import TierError
from tiercel.telemetry.logs import Notes
from tiercel.tiers.arena_directory import ArenaOptions, KeptArena
from tiercel.tiers.disk import DiskTier
from tiercel.tiers.disk_options import DiskOptions
from tiercel.tiers.host import HostTier
from tiercel.tiers.memory import region_of

Progress = Callable[[str, int, int], None]
"""Told (stage, done, total) while a cache is opened."""

_RESERVE, _CHOICES = "reserve some (vm.nr_hugepages)", "/sys/kernel/mm/transparent_hugepage"

_logger = logging.getLogger(__name__)


def open_disk(resolved: ResolvedConfig, fingerprint: bytes, notes: Notes) -> DiskTier:
    """Open the disk tier. Raises as `assemble`."""
    config = resolved.config
    options = DiskOptions(
        directories=resolved.ssd_cache_dirs,
        fingerprint=fingerprint,
        model_id=resolved.model.model_id,
        num_slots=resolved.num_ssd_blocks,
        block_bytes=resolved.block_bytes,
        queue_depth=config.ssd_cache_iouring_entries,
        engine=config.ssd_io_engine,
        direct=config.ssd_direct_io,
        checkpoint_bytes=resolved.journal_checkpoint_bytes,
    )
    try:
        disk = DiskTier.open(options)
    except OSError as error:  # a device that fails, a file of another user or kind
        place = error.filename or ", ".join(str(directory) for directory in options.directories)
        raise TierError(
            f"ssd_cache_dir: {place}: {error.strerror or error}; look at the file and its device, or name another directory"
        ) from error
    note_fallbacks(disk, notes)
    return disk


def note_fallbacks(disk: DiskTier, notes: Notes) -> None:
    """Note what is slower than it could be and was not noted before; some of that shows only when memory is first used."""
    noted = notes.texts()
    for kind, reason in disk.fallbacks.items():
        if reason not in noted:
            notes.add(reason, kind=kind)


def open_host(
    resolved: ResolvedConfig,
    fingerprint: bytes,
    notes: Notes,
    progress: Progress | None,
    disk: DiskTier | None,
    *,
    shared: bool,
) -> HostTier:
    """Open the host tier, all of its memory resident, and let the disk tier prepare for it; shared: other processes map it.
    Raises as `assemble`."""
    config = resolved.config
    try:
        kept = _open_arena(resolved, fingerprint)
        host = HostTier(
            num_slots=resolved.num_cpu_blocks,
            block_bytes=resolved.block_bytes,
            hugepages=config.cpu_hugepages,
            copy_threads=config.cpu_copy_threads,
            shared=shared,
            kept=kept,
        )
    except OSError as error:
        raise _no_memory(config, error) from error
    if config.cpu_hugepages and not host.arena.huge:
        if kept is not None:
            remedy = "mount the tmpfs of cpu_arena_dir with huge=advise"
        elif shared:
            remedy = f"{_RESERVE} or allow them for shared memory ({_CHOICES}/shmem_enabled = advise)"
        else:
            remedy = f"{_RESERVE} or allow them ({_CHOICES}/enabled = madvise)"
        notes.add(f"the host tier got no huge pages: {remedy}", kind="hugepages")
    if host.cold_reason:
        notes.add(f"the host tier began cold: what it held is lost, because {host.cold_reason}", kind="host_cold")
    try:
        threads = max(1, os.cpu_count() or 1)
        host.prefault(threads, None if progress is None else lambda done, total: progress("host memory", done, total))
    except BaseException as error:
        host.close()
        if isinstance(error, OSError):
            raise _no_memory(config, error) from error
        raise
    if disk is not None:
        disk.use_memory(region_of(host.shared_memory))
        note_fallbacks(disk, notes)
    return host


def _no_memory(config: CacheConfig, error: OSError) -> TierError:
    """What was free when the settings were checked is not any more: "100%" of it, or another process that starts as well."""
    return TierError(f"num_cpu_blocks = {config.num_cpu_blocks!r}: {error}; lower it, or free memory")


def _open_arena(resolved: ResolvedConfig, fingerprint: bytes) -> KeptArena | None:
    """Open the arena that outlives the process, if there is to be one."""
    config = resolved.config
    if config.arena_directory is None:
        return None
    return KeptArena.open(
        ArenaOptions(
            directory=config.arena_directory,
            fingerprint=fingerprint,
            model_id=resolved.model.model_id,
            num_slots=resolved.num_cpu_blocks,
            block_bytes=resolved.block_bytes,
            hugepages=config.cpu_hugepages,
            wait_s=config.cpu_arena_wait_s,
        )
    )


def restore(control: Control, tier: DiskTier | HostTier) -> int:
    """Put what a tier recovered into the index, and free what is there twice. Returns how many blocks were taken."""
    found = tier.recovered
    taken = control.restore_blocks(tier.name, found.parents, found.keys, found.slots)
    if len(rejected := found.slots[~taken]):
        tier.free(np.ascontiguousarray(rejected))
        _logger.info("%d recovered blocks were recorded twice; the newer records stand", len(rejected))
    return int(np.count_nonzero(taken))
