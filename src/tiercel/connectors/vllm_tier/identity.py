"""What must be equal for two chunks of one name to be exchangeable, read from vLLM's own description of them.

vLLM names a chunk by the hash of the tokens up to its end and the number of its KV cache group: the name says nothing of
model, weights or layout. All of those are here, and become the fingerprint that names the folder and enters every key.
"""

# pyright: reportMissingImports=false

import json
from pathlib import Path
from typing import Any

from tiercel.config import ModelConfig
from tiercel.connectors.vllm_tier.versions import minor_version
from tiercel.errors import ConfigError

_FORMAT_VERSION = 1

UNKNOWN = "unknown"


def chunk_identity(spec: Any, block_bytes: int, revision: str | None) -> dict[str, str | int]:
    """Return the parts of the fingerprint.

    Args:
        spec: vLLM's OffloadingSpec.
        block_bytes: size of a chunk of the primary tier, padding included.
        revision: what the user calls the version of the weights, None to have it found.
    """
    config = spec.config
    parallel = config.parallel
    agnostic = bool(parallel.is_parallelism_agnostic or config.replicated_layout)
    groups = [[group.group_id, group.tokens_per_block, list(group.layer_names)] for group in config.groups]
    parts: dict[str, str | int] = {
        "format": f"vllm chunk {_FORMAT_VERSION}",
        "engine": f"vllm {minor_version()}",  # the bytes of one layout have changed between versions before
        "model_id": config.model.name,
        "revision": revision if revision is not None else find_revision(config.model.name),
        "dtype": config.model.dtype,
        "groups": json.dumps(groups),
        "tokens_per_hash": config.cache.tokens_per_hash,
        "blocks_per_chunk": config.cache.blocks_per_chunk,
        "worker_kv_bytes_per_block": config.worker_kv_bytes_per_block,
        "chunk_bytes": block_bytes,
        "kv_cache_layout": str(config.kv_cache_layout),
        "canonical_layout": int(config.canonical_layout),
        "replicated_layout": int(config.replicated_layout),
        "parallelism_agnostic": int(agnostic),
    }
    if not agnostic:
        for name in ("world_size", "tp_size", "pp_size", "pcp_size", "dcp_size"):
            parts[name] = getattr(parallel, name)
    return parts


def find_revision(model: str) -> str:
    """What tells one version of the weights from another: of a folder a digest of its config.json and its weights' names, sizes
    and times; of anything else the revision that vLLM was started with, or UNKNOWN."""
    folder = Path(model)
    if (folder / "config.json").is_file():
        try:
            return ModelConfig.from_model(folder).model_id
        except ConfigError:
            stat = (folder / "config.json").stat()
            return f"{folder.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    config = current_vllm_config()
    revision = getattr(getattr(config, "model_config", None), "revision", None)
    return str(revision) if revision else UNKNOWN


def current_vllm_config() -> Any:
    """The configuration that vLLM is being set up with, None where it does not say so."""
    from vllm.config import vllm as module

    get = getattr(module, "get_current_vllm_config_or_none", None)
    return None if get is None else get()


def unstable_hashes() -> str:
    """Why chunks' names of this process mean nothing to the next one, or "". Known for certain once vLLM has made its first
    hash, and before if its configuration can be seen."""
    from vllm.v1.core import kv_cache_utils as hashes

    resolve = hashes.resolve_none_hash_seed
    by_chance = next(iter(hashes._NON_CRYPTO_HASH_FUNCTIONS))
    if resolve(by_chance) == resolve(by_chance):
        return ""  # PYTHONHASHSEED decides
    algorithm = str(getattr(getattr(current_vllm_config(), "cache_config", None), "prefix_caching_hash_algo", "") or "")
    if algorithm.startswith("xxhash"):
        return f"prefix_caching_hash_algo = {algorithm!r} starts its hashes from a random seed in every process"
    if hashes.get_none_hash_seed() != hashes.DEFAULT_NONE_HASH_SEED:
        return "vLLM starts its block hashes from a random seed in every process"
    return ""


HASH_REMEDY = "serve with --prefix-caching-hash-algo sha256, or set PYTHONHASHSEED to the same number for every start"
