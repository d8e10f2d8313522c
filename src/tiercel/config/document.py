"""What stands in a settings file: settings, a model, and the level that holds them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tiercel.config.cache import SETTINGS
from tiercel.config.later import LATER_KEYS
from tiercel.config.layers import LayerGroup
from tiercel.config.messages import nearest, problem, unknown_key
from tiercel.config.model import ModelConfig
from tiercel.errors import ConfigError

TOP_LEVEL = ("server_recv_port", "model_config", "cache_config")
"""The keys of a file that has a level of its own for settings."""


def split_content(content: Mapping[str, object], origin: str) -> tuple[dict[str, object], ModelConfig | None]:
    """Return a file's settings, with the top level's keys among them, and the model that it describes.

    Raises:
        ConfigError: a key stands at the wrong level, or the model is wrong.
    """
    model = content.get("model_config")
    if "cache_config" in content:
        for key in content:
            if (key in SETTINGS or key in LATER_KEYS) and key not in TOP_LEVEL:
                raise problem(key, content[key], "stands beside cache_config", "move it under cache_config", origin)
            if key not in TOP_LEVEL:
                raise unknown_key(key, TOP_LEVEL, origin)
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
