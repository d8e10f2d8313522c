"""Collector: settings as a cache would load them, what they amount to, and who may read and change their file."""

import re
from pathlib import Path

from tiercel.config import CacheConfig, LoadedConfig, ModelConfig, check_resources, explain, read_config
from tiercel.config.dtypes import DTYPE_BYTES
from tiercel.config.files import read_mapping
from tiercel.config.resources import probe_room
from tiercel.errors import ConfigError
from tiercel.tune.doctor.facts import SettingNote, SettingsFacts, SizeFacts

_SECRET = re.compile(r"password|passwd|secret|token$|api_?key|access_?key|credential", re.IGNORECASE)


def collect_settings(file: Path | None, model_source: Path | None) -> SettingsFacts:
    """Read settings from a file and the environment, or from the environment alone.

    Args:
        file: YAML, JSON or TOML, or None.
        model_source: a model's config.json or its folder; without it, the model that the file describes, if any.
    """
    source = "the environment" if file is None else str(file)
    try:
        loaded = read_config(file)
        mode = None if file is None else file.stat().st_mode & 0o777
        secrets = () if file is None else tuple(_secret_keys(read_mapping(file)))
    except (ConfigError, OSError) as failure:
        return SettingsFacts(source=source, problem=str(failure))
    problem, sizes, model = "", None, None
    try:
        model = loaded.model if model_source is None else ModelConfig.from_model(model_source)
        sizes = None if model is None else _sizes(loaded.config, model)
    except ConfigError as failure:  # what was read is told all the same
        problem = str(failure)
    notes = explain(loaded, model).notes
    return SettingsFacts(
        source=source,
        problem=problem,
        values=_values(loaded),
        notes=tuple(SettingNote(kind=note.kind, key=note.key, text=note.text, loud=note.loud) for note in notes),
        directories=tuple(str(path.absolute()) for path in loaded.config.ssd_cache_dirs)
        if loaded.config.enable_ssd
        else (),
        sizes=sizes,
        mode=mode,
        secret_keys=secrets,
    )


def _values(loaded: LoadedConfig) -> dict[str, bool | int | float | str | None]:
    values = {key: getattr(loaded.config, key) for key in loaded.sources}
    return {
        key: value if value is None or isinstance(value, bool | int | float | str) else ";".join(map(str, value))
        for key, value in values.items()
    }


def _sizes(config: CacheConfig, model: ModelConfig) -> SizeFacts:
    resolved = config.resolve(model, probe_room(config) if config.shares else None)
    try:
        check_resources(model, config)
        fit_problem = ""
    except ConfigError as failure:
        fit_problem = str(failure)
    return SizeFacts(
        host_bytes=resolved.host_bytes,
        disk_bytes=resolved.disk_bytes,
        directory_bytes=resolved.directory_bytes,
        block_bytes=resolved.block_bytes,
        piece_bytes=config.tokens_per_block * model.num_kv_heads * model.head_size * DTYPE_BYTES[model.dtype],
        fit_problem=fit_problem,
    )


def _secret_keys(values: object) -> list[str]:
    """Return the keys, at any depth, that name a secret and have a value. The values themselves go nowhere."""
    if isinstance(values, list):
        return [key for value in values for key in _secret_keys(value)]
    if not isinstance(values, dict):
        return []
    found = [str(key) for key, value in values.items() if value and _SECRET.search(str(key))]
    return found + [key for value in values.values() for key in _secret_keys(value)]
