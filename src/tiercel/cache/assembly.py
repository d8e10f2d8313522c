"""From a configuration to the parts of a cache: tiers opened, index restored, everything checked before it is allocated."""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tiercel import hashing
from tiercel.cache.bounded import Errand
from tiercel.cache.opening import Progress, open_disk, open_host, restore
from tiercel.config import CacheConfig, ModelConfig, ResolvedConfig, check_resources
from tiercel.control import DEMOTION_START, Control, ControlSettings, control_settings
from tiercel.errors import TierFailedError
from tiercel.layout import BlockGeometry, SlotOrder
from tiercel.telemetry.logs import Notes
from tiercel.telemetry.metrics import CacheMetrics
from tiercel.tiers.base import Tier, TierName
from tiercel.tiers.disk import DiskTier
from tiercel.tiers.host import HostTier
from tiercel.tiers.memory import SharedMemory, region_of, return_freed_memory
from tiercel.transfer import Devices, GpuCopySettings, TransferSettings

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Assembly:
    """The parts of one cache. `close` releases them.

    Attributes:
        recovered: blocks that were there when it was opened, by tier.
    """

    config: CacheConfig
    geometry: BlockGeometry
    fingerprint: bytes
    control: Control
    tiers: dict[TierName, Tier]
    transfer_settings: TransferSettings
    notes: Notes
    metrics: CacheMetrics
    disk: DiskTier | None
    host: HostTier | None
    recovered: dict[TierName, int]
    record_bytes_max: int
    devices: Devices
    shared_memory: tuple[SharedMemory, ...]

    @property
    def disk_folder(self) -> Path | None:
        """Where the disk tier keeps its journal, None without one."""
        return None if self.disk is None else self.disk.folder

    def assign_root(self, root: bytes, namespace: str) -> None:
        """See `CacheCore.assign_root`."""
        for number, tenant in enumerate(self.config.tenant_list, 1):
            if namespace in tenant.namespaces:
                self.control.tenants.assign(root, number)

    def checkpoint(self) -> None:
        """Write the disk tier's checkpoint in the index's order of use. Raises OSError; the journal then stays as it was."""
        if self.disk is None:
            return
        started = time.monotonic()
        try:
            self.disk.checkpoint(self.control.export_blocks(TierName.DISK)[2])
        except OSError:
            self.metrics.count("checkpoints", "failed")
            raise
        finally:
            return_freed_memory()  # columns of all blocks, which the C library would keep
        self.metrics.observe_checkpoint(time.monotonic() - started)

    def empty_durably(self) -> None:
        """Write the checkpoint of an index that was just emptied. Raises TierFailedError: what was stored may come back."""
        try:
            self.checkpoint()
        except OSError as error:
            raise TierFailedError(
                f"the disk tier could not be emptied durably ({error}); free space or mend the disk and reset again "
                f"before anything is stored"
            ) from error

    @property
    def checkpoint_is_due(self) -> bool:
        """Whether the journal has grown long."""
        return self.disk is not None and self.disk.wants_checkpoint

    def checkpoint_if_due(self) -> None:
        """Keep the journal short. A failure costs no more than a longer recovery, and is noted."""
        if not self.checkpoint_is_due:
            return
        try:
            self.checkpoint()
        except OSError as error:
            text = f"the disk tier's checkpoint failed, so recovery will take longer: {error}"
            self.notes.add(text, kind="checkpoint")

    def close(self, *, drained: bool) -> None:
        """Release what was opened: memory first, then the disk tier, behind its checkpoint. Bounded by `close_timeout_s`.

        Args:
            drained: no transfer is in progress; otherwise tiers are left to the process's end.
        """
        if not drained:
            _logger.error("a device is still busy; its tier stays open until the process ends")
            return
        self.devices.close()
        if self.host is not None and self.host.outlives_process:
            self.host.keep_order(self.control.export_blocks(TierName.HOST)[2])
        if self.host is not None and self.disk is not None:
            self.disk.forget_memory(region_of(self.host.shared_memory))
        for name, tier in self.tiers.items():
            if name is not TierName.DISK:
                tier.close()
        if self.disk is None:
            return
        timeout_s = self.transfer_settings.close_timeout_s
        if not Errand(self._close_disk, name="tiercel-close-disk").wait(timeout_s):
            _logger.error(
                "the disk tier's last checkpoint did not end in %g s: its device does not answer, and its directory stays "
                "locked until the process ends",
                timeout_s,
            )

    def _close_disk(self) -> None:
        try:
            self.checkpoint()
        except OSError as error:
            _logger.warning("the disk tier's last checkpoint failed, so recovery will take longer: %s", error)
        self.tiers[TierName.DISK].close()


def assemble(
    model: ModelConfig,
    config: CacheConfig,
    progress: Progress | None = None,
    make_control: Callable[[ControlSettings], Control] = Control,
    lane_workers: int = TransferSettings().lane_workers,
    order: SlotOrder = "token_head",
    shares_memory: bool = False,
) -> Assembly:
    """Make the parts of a cache.

    Args:
        model, config, progress, order, shares_memory: as of `Cache.open`.
        make_control: makes the control half. lane_workers: chunks of each lane in flight.

    Raises:
        TypeError: something else than a ModelConfig and a CacheConfig was given.
        ConfigError: a setting does not fit the model or the machine. Nothing was allocated.
        TierError: a cache directory cannot be used, or the memory that was free is not any more. Nothing stays allocated.
        OSError: a device failed. Nothing stays allocated.
    """
    _check_types(model, config)
    geometry = BlockGeometry.from_model(model, tokens_per_block=config.tokens_per_block, order=order)
    fingerprint = hashing.fingerprint(geometry.fingerprint_parts())
    resolved = check_resources(model, config, fingerprint=fingerprint)
    metrics = CacheMetrics()
    notes = Notes(logging.getLogger("tiercel"), lambda kind: metrics.count("fallbacks", kind))
    with ExitStack() as opened:
        disk = open_disk(resolved, fingerprint, notes) if config.enable_ssd else None
        tiers: dict[TierName, Tier] = {}
        if disk is not None:
            opened.callback(disk.close)
            tiers[TierName.DISK] = disk
        host: HostTier | None = None
        if config.enable_cpu:
            host = open_host(resolved, fingerprint, notes, progress, disk, shared=shares_memory)
            opened.callback(host.close)
            tiers[TierName.HOST] = host
        settings = control_settings(resolved, {name: tier.num_slots for name, tier in tiers.items()})
        _note_adjusted(settings, config, notes)
        control = make_control(settings)
        _assign_tenants(control, config, fingerprint)
        recovered = {tier.name: restore(control, tier) for tier in (disk, host) if tier is not None}
        return_freed_memory()  # what recovery needed for a moment: as much again as what it leaves
        opened.pop_all()
    return Assembly(
        config=config,
        geometry=geometry,
        fingerprint=fingerprint,
        control=control,
        tiers=tiers,
        transfer_settings=TransferSettings.from_resolved(resolved, lane_workers=lane_workers),
        notes=notes,
        metrics=metrics,
        disk=disk,
        host=host,
        recovered=recovered,
        record_bytes_max=resolved.record_bytes_max,
        devices=_devices(resolved, host, disk, notes),
        shared_memory=_memories(host, disk) if shares_memory else (),
    )


def _check_types(model: object, config: object) -> None:
    for label, given, expected in (("model", model, ModelConfig), ("config", config, CacheConfig)):
        if not isinstance(given, expected):
            raise TypeError(f"{label}: must be a {expected.__name__}, not a {type(given).__name__}")


def _assign_tenants(control: Control, config: CacheConfig, fingerprint: bytes) -> None:
    for number, tenant in enumerate(config.tenant_list, 1):
        for namespace in tenant.namespaces:
            control.tenants.assign(hashing.root_key(fingerprint, namespace), number)


def _memories(host: HostTier | None, disk: DiskTier | None) -> tuple[SharedMemory, ...]:
    return tuple(tier.shared_memory for tier in (host, disk) if tier is not None)


def _devices(resolved: ResolvedConfig, host: HostTier | None, disk: DiskTier | None, notes: Notes) -> Devices:
    settings = GpuCopySettings.from_config(resolved.config)
    regions = [region_of(memory) for memory in _memories(host, disk)]
    return Devices(regions, settings, note=partial(notes.add, kind="gpu"))


def _note_adjusted(settings: ControlSettings, config: CacheConfig, notes: Notes) -> None:
    """Say which settings work otherwise than they read."""
    if settings.demotes and settings.evict_start_threshold > DEMOTION_START:
        notes.add(
            f"ssd_admission = on_evict needs room ahead of need: the host tier's high watermark is {DEMOTION_START}, "
            f"not evict_start_threshold = {settings.evict_start_threshold:g}",
            kind="watermark",
        )
    num_reserved = sum(tenant.reserves.get(TierName.HOST, 0) for tenant in settings.tenants)
    if settings.demotes and num_reserved >= settings.watermarks(TierName.HOST).high:
        notes.add(
            f"ssd_admission = on_evict needs room ahead of need, and tenants reserve {num_reserved} blocks of the host tier: "
            f"what leaves it may not be on disk; reserve less than its high watermark",
            kind="watermark",
        )
