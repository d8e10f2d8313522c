"""Loading settings: keywords before environment before file before defaults, and where each value came from.

The only reader of settings files and of TIERCEL_ variables. It parses and refuses; it allocates nothing and asks the
machine nothing (`resources` does).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from tiercel.config.cache import SETTINGS, CacheConfig
from tiercel.config.files import read_mapping
from tiercel.config.later import LATER_KEYS
from tiercel.config.layers import LayerGroup
from tiercel.config.messages import nearest, problem, unknown_key
from tiercel.config.model import ModelConfig
from tiercel.errors import ConfigError

PREFIX = "TIERCEL_"
"""What the name of every environment variable of ours starts with; the setting's key follows in upper case."""

RESERVED_VARIABLES = ("TIERCEL_WITH_LIBURING", "TIERCEL_NATIVE_TESTS", "TIERCEL_TEST_SEED")
"""Variables of the build and the tests, which are no settings."""

_TOP_LEVEL = ("server_recv_port", "model_config", "cache_config")


@dataclass(frozen=True, kw_only=True)
class LoadedConfig:
    """Settings and where they came from.

    Attributes:
        config: the settings.
        sources: for each key of CacheConfig "default", "file PATH", "environment NAME" or "keyword".
        notes: what the user should know of accepted settings: those without effect, and odd relations.
        model: the model that the file describes, if it does.
    """

    config: CacheConfig
    sources: Mapping[str, str]
    notes: tuple[str, ...]
    model: ModelConfig | None = None


def load_config(
    file: str | os.PathLike[str] | None = None, *, environ: Mapping[str, str] | None = None, **overrides: object
) -> LoadedConfig:
    """Load settings from a file, the environment and keywords; the later named wins.

    Args:
        file: YAML (.yaml, .yml) or JSON (.json): `cache_config` with the settings, beside optional `model_config` and
            `server_recv_port`; or the settings alone.
        environ: variables to read instead of this process's.
        **overrides: settings by key.

    Raises:
        ConfigError: the file cannot be read, or a key or value in any source is wrong.
    """
    values: dict[str, object] = {}
    sources = dict.fromkeys(SETTINGS, "default")
    notes: list[str] = []
    model = None
    if file is not None:
        origin = f"file {os.fspath(file)}"
        settings, model = _split(read_mapping(file), origin)
        _take(settings, origin, values, sources, notes)
    for name, text in (os.environ if environ is None else environ).items():
        if name.startswith(PREFIX) and name not in RESERVED_VARIABLES:
            key, origin = name.removeprefix(PREFIX).lower(), f"environment {name}"
            _take({key: _from_text(key, text, name)}, origin, values, sources, notes)
    _take(overrides, "keyword", values, sources, notes)
    config = CacheConfig(**_as_arguments(values))
    notes += _relation_notes(config)
    return LoadedConfig(config=config, sources=sources, notes=tuple(dict.fromkeys(notes)), model=model)


def _take(
    given: Mapping[str, object], origin: str, values: dict[str, object], sources: dict[str, str], notes: list[str]
) -> None:
    """Check what one source gives, and let it win over what was there."""
    for key, value in given.items():
        if key in SETTINGS:
            values[key] = SETTINGS[key].check(value, origin)
            sources[key] = origin
        elif key in LATER_KEYS:
            notes.append(f"{key}: {LATER_KEYS[key].check(value, origin)}")
        else:
            raise unknown_key(key, (*SETTINGS, *LATER_KEYS), origin)


def _from_text(key: str, text: str, name: str) -> object:
    if key in SETTINGS:
        return SETTINGS[key].parse(text, f"environment {name}")
    if key in LATER_KEYS:
        return LATER_KEYS[key].parse(text)
    known = [PREFIX + other.upper() for other in (*SETTINGS, *LATER_KEYS)]
    hint = nearest(name, known) or "see docs/configuration.md"
    raise ConfigError(f"{name} (from environment): unknown variable; {hint}; unset it if it is not meant for Tiercel")


def _as_arguments(values: dict[str, object]) -> dict[str, Any]:
    return values  # each value passed its setting's check


def _split(content: Mapping[str, object], origin: str) -> tuple[dict[str, object], ModelConfig | None]:
    """Return a file's settings, with the top level's keys among them, and its model."""
    model = content.get("model_config")
    if "cache_config" in content:
        for key in content:
            if key in SETTINGS or (key in LATER_KEYS and key not in _TOP_LEVEL):
                raise problem(key, content[key], "stands beside cache_config", "move it under cache_config", origin)
            if key not in _TOP_LEVEL:
                raise unknown_key(key, _TOP_LEVEL, origin)
        settings = content["cache_config"]
        if not isinstance(settings, dict):
            raise problem("cache_config", settings, "must hold keys and values", "indent the settings under it", origin)
        top = {key: content[key] for key in ("server_recv_port",) if key in content}
        merged = {**top, **settings}
    else:
        merged = {key: value for key, value in content.items() if key != "model_config"}
    return merged, None if model is None else _model(model, origin)


def _model(content: object, origin: str) -> ModelConfig:
    if not isinstance(content, dict):
        raise problem("model_config", content, "must hold keys and values", "indent them under it", origin)
    _require_known(content, ModelConfig, "model_config", origin)
    arguments: dict[str, Any] = dict(content)
    groups = arguments.get("layer_groups", ())
    if not isinstance(groups, (list, tuple)) or not all(isinstance(group, dict) for group in groups):
        raise problem(
            "model_config.layer_groups", groups, "must be a list of groups", "give name and layers of each", origin
        )
    for group in groups:
        _require_known(group, LayerGroup, "model_config.layer_groups", origin)
    arguments["layer_groups"] = tuple(LayerGroup(**group) for group in groups)
    return ModelConfig(**arguments)


def _require_known(
    content: Mapping[str, object], cls: type[ModelConfig] | type[LayerGroup], place: str, origin: str
) -> None:
    """Refuse keys that the class does not have, and say which required ones are missing."""
    known = [field.name for field in fields(cls)]
    for key in content:
        if key not in known:
            hint = nearest(key, known).replace("'", f"'{place}.", 1) or f"known are {', '.join(known)}"
            raise ConfigError(f"{place}.{key} (from {origin}): unknown key; {hint}")
    required = (
        ("model_id", "num_layers", "num_kv_heads", "head_size", "dtype") if cls is ModelConfig else ("name", "layers")
    )
    missing = [name for name in required if name not in content]
    if missing:
        raise ConfigError(
            f"{place} (from {origin}): lacks {', '.join(missing)}; add them, or use ModelConfig.from_model"
        )


def _relation_notes(config: CacheConfig) -> list[str]:
    cpu, ssd = config.num_cpu_blocks, config.num_ssd_blocks
    if config.enable_cpu and config.enable_ssd and isinstance(cpu, int) and isinstance(ssd, int) and ssd < cpu:
        return ["num_ssd_blocks: smaller than num_cpu_blocks, so the disk tier cannot hold what leaves host memory"]
    return []
