"""Settings: what they are, where they come from, what they amount to.

The only reader of files and environment for settings; whoever needs one is handed it.
"""

from tiercel.config.cache import SETTINGS, CacheConfig
from tiercel.config.dtypes import DTYPE_BYTES
from tiercel.config.explain import ConfigRow, explain
from tiercel.config.layers import FULL_ATTENTION, LayerGroup
from tiercel.config.load import LoadedConfig, load_config
from tiercel.config.model import ModelConfig
from tiercel.config.resolved import SLOT_ALIGNMENT, ResolvedConfig
from tiercel.config.resources import check_resources
from tiercel.config.sizes import format_bytes, parse_size

__all__ = [
    "DTYPE_BYTES",
    "FULL_ATTENTION",
    "SETTINGS",
    "SLOT_ALIGNMENT",
    "CacheConfig",
    "ConfigRow",
    "LayerGroup",
    "LoadedConfig",
    "ModelConfig",
    "ResolvedConfig",
    "check_resources",
    "explain",
    "format_bytes",
    "load_config",
    "parse_size",
]
