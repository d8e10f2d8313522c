"""Settings of each of several engines that were started with the same ones: vLLM's data-parallel replicas.

Each has a cache of its own in a process of its own, and what belongs to one process only is told apart by the replica's number.
The first takes the settings as they are, so that an engine finds its blocks again when others join it.
"""

from dataclasses import replace
from pathlib import Path

from tiercel.config import CacheConfig


def settings_of_replica(config: CacheConfig, index: int) -> CacheConfig:
    """Return a replica's own settings.

    | setting | replica 2 takes |
    |---|---|
    | `ssd_cache_dir`, `cpu_arena_dir` | subfolder `dp2` of each |
    | `metrics_port` | the port two further on; any free one if it is 0 |
    | `status_socket`, `record_path` | the name with `.dp2` behind it |

    Args:
        index: the replica's number, from 0.

    Raises:
        ConfigError: there is no such port.
    """
    if index == 0:
        return config
    name = f"dp{index}"
    return replace(
        config,
        ssd_cache_dir=tuple(str(Path(folder) / name) for folder in config.ssd_cache_dirs),
        cpu_arena_dir=config.cpu_arena_dir and str(Path(config.cpu_arena_dir) / name),
        metrics_port=config.metrics_port and config.metrics_port + index,
        status_socket=config.status_socket and f"{config.status_socket}.{name}",
        record_path=config.record_path and f"{config.record_path}.{name}",
    )
