"""The choice as files and flags: `tiercel.yaml`, what vLLM is started with, and FlexKV's file.

Reasons stand in the files as comments. What is written is read back with the same settings.
"""

import json
import shlex
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict

from tiercel.config import ModelConfig
from tiercel.tune.advise.candidate import Candidate

HEADER = "# What `tiercel advise` chose"
"""What every file begins with."""

_WIDTH = 118
_GIB = 2**30


_OF_FLEXKV = {
    "num_cpu_blocks": "cpu_cache_gb",
    "num_ssd_blocks": "ssd_cache_gb",
    "ssd_cache_dir": "ssd_cache_dir",
    "eviction_policy": "eviction_policy",
    "evict_ratio": "evict_ratio",
    "ssd_cache_iouring_entries": "iouring_entries",
    "use_ce_transfer_h2d": "use_ce_transfer_h2d",
    "use_ce_transfer_d2h": "use_ce_transfer_d2h",
    "transfer_sms_h2d": "transfer_num_cta_h2d",
    "transfer_sms_d2h": "transfer_num_cta_d2h",
}
"""Settings that FlexKV has, too, and what it calls them. It takes `tokens_per_block` from its engine."""


def settings_file(
    settings: Mapping[str, object], reasons: Mapping[str, str], *, model: ModelConfig, header: Iterable[str]
) -> str:
    """Return the text of a settings file, with the model that it is for. reasons: by key, a sentence each."""
    facts = {key: value for key, value in asdict(model).items() if value not in ("", ())}
    lines = [*(_comment(line, "") for line in header), "model_config:\n"]
    lines += [_entry(key, value, "  ") for key, value in facts.items()]
    lines.append("cache_config:\n")
    for key, value in sorted(settings.items(), key=lambda item: item[0] in reasons):
        lines += [_comment(reasons.get(key, ""), "  "), _entry(key, value, "  ")]
    return "".join(lines)


def flexkv_file(
    settings: Mapping[str, object], reasons: Mapping[str, str], candidate: Candidate, header: Iterable[str]
) -> str:
    """Return the text of FlexKV's settings file, which FLEXKV_CONFIG_PATH names.

    Args:
        settings: of the choice, transfers included.
        candidate: the choice, from a space of what FlexKV can be told.
    """
    values = dict(settings)
    values |= {"num_cpu_blocks": _gib(candidate.host_bytes), "num_ssd_blocks": _gib(candidate.disk_bytes)}
    directories = values.get("ssd_cache_dir")
    if isinstance(directories, list):
        values["ssd_cache_dir"] = ";".join(directories)
    size = f"FlexKV takes the block size from its engine: start vLLM with --block-size {candidate.tokens_per_block}."
    lines = [_comment(line, "") for line in (*header, size)]
    for ours, theirs in _OF_FLEXKV.items():
        if ours in values:
            lines += [_comment(reasons.get(ours, ""), ""), _entry(theirs, values[ours], "")]
    return "".join(lines)


def vllm_flags(path: str, tokens_per_block: int) -> str:
    """Return the flags that start vLLM with a settings file."""
    connector = {
        "kv_connector": "TiercelConnector",
        "kv_connector_module_path": "tiercel.connectors.vllm",
        "kv_role": "kv_both",
        "kv_connector_extra_config": {"config_file": path},
    }
    return f"--block-size {tokens_per_block} --kv-transfer-config {shlex.quote(json.dumps(connector))}"


def _gib(num_bytes: int) -> int | float:
    whole, rest = divmod(num_bytes, _GIB)
    return num_bytes / _GIB if rest else whole


def _comment(text: str, indent: str) -> str:
    prefix = f"{indent}# "
    wrapper = textwrap.TextWrapper(
        _WIDTH, initial_indent=prefix, subsequent_indent=prefix, break_long_words=False, break_on_hyphens=False
    )
    return "".join(f"{line}\n" for line in wrapper.wrap(text))


def _entry(key: str, value: object, indent: str) -> str:
    """One setting. JSON is YAML, and leaves no doubt of what is text."""
    return f"{indent}{key}: {json.dumps(value)}\n"
