"""The arms of the end-to-end benchmark with vLLM: the same engine with another way to keep KV outside the GPU."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _vllm_scale import Length

OFFLOADING_COUNTERS = {
    "load": ("vllm:kv_offload_load_bytes_total", "vllm:kv_offload_load_time_total", ""),
    "store": ("vllm:kv_offload_store_bytes_total", "vllm:kv_offload_store_time_total", ""),
}
TIERCEL_COUNTERS = {
    "load": (
        'tiercel_transfer_bytes_total{source="host",target="gpu"}',
        'tiercel_ticket_seconds_sum{kind="load",outcome="done"}',
        "",
    ),
    "store": (
        'tiercel_transfer_bytes_total{source="gpu",target="host"}',
        'tiercel_ticket_seconds_sum{kind="store",outcome="done"}',
        'tiercel_transfer_wait_seconds_sum{source="gpu",target="host"}',
    ),
}
"""Seconds are those of whole tickets. A store's ticket begins when the step is launched that computes its blocks, so what it
waits until its copies begin is taken off: mostly that is the forward pass."""
TIERCEL_DISK_COUNTERS = {"load": TIERCEL_COUNTERS["load"]}
"""A store's ticket ends when the disk has its blocks, which says nothing of the GPU's copies."""
METRICS_PORT = 29464


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where arms keep KV and how much."""

    host_bytes: int
    disk_host_bytes: int
    disk_bytes: int
    disk_directory: Path
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way. hit: what a prompt is called that this arm brings back; None for none.

    on_disk: hits come from disk. The engine's cache is then emptied by a call instead of by other prompts, since less needs to
    be written, and every hit is held to what was read from devices.
    rates: names of the counters of bytes, of seconds, and of seconds among these that do not count ("" for none), by direction:
        "load" or "store".
    without: phases that this arm cannot pass.
    """

    name: str
    hit: str | None
    transfer_config: Callable[[Places], dict[str, Any] | None]
    on_disk: bool = False
    rates: dict[str, tuple[str, str, str]] | None = None
    without: tuple[str, ...] = ()

    def num_prompts(self, length: Length) -> int:
        if self.hit is None:
            return length.num_prompts_alone
        return length.num_prompts_disk if self.on_disk else length.num_prompts

    def num_rounds(self, length: Length) -> int:
        return length.rounds_disk if self.on_disk else length.rounds


def _connector(name: str, extra: dict[str, Any], module: str | None = None) -> dict[str, Any]:
    config: dict[str, Any] = {"kv_connector": name, "kv_role": "kv_both", "kv_connector_extra_config": extra}
    return config if module is None else config | {"kv_connector_module_path": module}


def _tiercel(places: Places, extra: dict[str, Any]) -> dict[str, Any]:
    extra = extra | {"metrics_port": METRICS_PORT} | places.settings
    return _connector("TiercelConnector", extra, "tiercel.connectors.vllm")


def _disk(places: Places) -> dict[str, Any]:
    return {
        "num_cpu_blocks": f"{places.disk_host_bytes}B",
        "enable_ssd": True,
        "num_ssd_blocks": f"{places.disk_bytes}B",
        "ssd_cache_dir": str(places.disk_directory),
    }


def _tiering(places: Places, tier: dict[str, Any]) -> dict[str, Any]:
    extra = {
        "spec_name": "TieringOffloadingSpec",
        "cpu_bytes_to_use": places.disk_host_bytes,
        "secondary_tiers": [tier],
    }
    return _connector("OffloadingConnector", extra)


def _tier(places: Places) -> dict[str, Any]:
    return {
        "type": "TiercelTier",
        "module_path": "tiercel.connectors.vllm_tier",
        "num_ssd_blocks": f"{places.disk_bytes}B",
        "ssd_cache_dir": str(places.disk_directory),
    } | places.settings


_ALL = (
    Arm(name="none", hit=None, transfer_config=lambda places: None),
    Arm(name="bare", hit=None, transfer_config=lambda places: _connector("BareConnector", {}, "_vllm_bare")),
    Arm(
        name="off",
        hit="host hit",
        transfer_config=lambda places: _connector("OffloadingConnector", {"cpu_bytes_to_use": places.host_bytes}),
        rates=OFFLOADING_COUNTERS,
    ),
    Arm(
        name="off_fs",
        hit="disk hit",
        transfer_config=lambda places: _tiering(places, {"type": "fs", "root_dir": str(places.disk_directory)}),
        on_disk=True,
        without=("turns",),  # its disk is unbounded
        rates=OFFLOADING_COUNTERS,
    ),
    Arm(
        name="example",
        hit="host hit",
        transfer_config=lambda places: _connector(
            "ExampleConnector", {"shared_storage_path": str(places.disk_directory)}
        ),
        without=("tail",),  # it knows whole prompts only
    ),
    Arm(
        name="tiercel",
        hit="host hit",
        transfer_config=lambda places: _tiercel(places, {"num_cpu_blocks": f"{places.host_bytes}B"}),
        rates=TIERCEL_COUNTERS,
    ),
    Arm(
        name="tiercel_disk",
        hit="disk hit",
        transfer_config=lambda places: _tiercel(places, _disk(places)),
        on_disk=True,
        rates=TIERCEL_DISK_COUNTERS,
    ),
    Arm(
        name="tiercel_tier",
        hit="disk hit",
        transfer_config=lambda places: _tiering(places, _tier(places)),
        on_disk=True,
        rates=OFFLOADING_COUNTERS,
    ),
)
ARMS = {arm.name: arm for arm in _ALL}
