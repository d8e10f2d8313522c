"""Settings: what they are, where they come from, what they amount to.

The only reader of files and environment for settings; whoever needs one is handed it.
"""

from tiercel.config.cache import SETTINGS, CacheConfig
from tiercel.config.compute import PrefillWork, read_prefill_work
from tiercel.config.dtypes import DTYPE_BYTES
from tiercel.config.explain import ConfigRow, Explanation, explain
from tiercel.config.layers import FULL_ATTENTION, LayerGroup
from tiercel.config.load import LoadedConfig, load_config, load_settings, read_config
from tiercel.config.model import ModelConfig
from tiercel.config.notes import NOTE_HEADINGS, Note, NoteKind
from tiercel.config.resolved import BLOCKS_MAX, SLOT_ALIGNMENT, DeviceRoom, ResolvedConfig, Room
from tiercel.config.resources import check_resources
from tiercel.config.sizes import format_bytes, parse_size
from tiercel.config.tenants import ResolvedTenant, TenantConfig, TenantTier

__all__ = [
    "BLOCKS_MAX",
    "DTYPE_BYTES",
    "FULL_ATTENTION",
    "NOTE_HEADINGS",
    "SETTINGS",
    "SLOT_ALIGNMENT",
    "CacheConfig",
    "ConfigRow",
    "DeviceRoom",
    "Explanation",
    "LayerGroup",
    "LoadedConfig",
    "ModelConfig",
    "Note",
    "NoteKind",
    "PrefillWork",
    "ResolvedConfig",
    "ResolvedTenant",
    "Room",
    "TenantConfig",
    "TenantTier",
    "check_resources",
    "explain",
    "format_bytes",
    "load_config",
    "load_settings",
    "parse_size",
    "read_config",
    "read_prefill_work",
]
