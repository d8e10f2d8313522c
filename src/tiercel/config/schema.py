"""The JSON Schema of settings files: `python -m tiercel.config.schema > docs/configuration.schema.json`.

Made from the same declarations as the reference page, so that editors check and complete what the reader takes. It is
no stricter than the reader; relations between settings, and sizes in bytes, only the reader checks.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields

from tiercel.config.cache import SETTINGS
from tiercel.config.dialects.reader import DIALECTS
from tiercel.config.dialects.table import Dialect
from tiercel.config.document import TOP_LEVEL
from tiercel.config.dtypes import DTYPE_BYTES
from tiercel.config.later import LATER_KEYS, LaterKey
from tiercel.config.layers import LayerGroup
from tiercel.config.model import ModelConfig
from tiercel.config.settings import Kind, Setting

Schema = dict[str, object]

SIZE_PATTERN = r"^\s*[0-9]{1,30}(\.[0-9]{1,30})?\s*([KkMmGgTt][Ii]?)?[Bb]\s*$"
"""A size such as "64GiB"."""

SHARE_PATTERN = r"^\s*[0-9]{1,30}(\.[0-9]{1,30})?\s*%\s*$"
"""A share such as "80%"."""

_JSON_TYPES = {"bool": "boolean", "int": "integer", "str": "string", "list": "array", "dict": "object"}


def settings_schema() -> Schema:
    """Return the schema of a whole file, draft 7."""
    settings = {
        **{key: _setting(described) for key, described in SETTINGS.items()},
        **{key: _later(later) for key, later in LATER_KEYS.items()},
        **{key: value for dialect in DIALECTS for key, value in _foreign(dialect).items()},
    }
    flat: Schema = {key: _reference("settings", key) for key in settings}
    top = {key: flat.get(key, _reference(key)) for key in TOP_LEVEL}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Settings of a Tiercel cache",
        "description": "The settings under cache_config, beside an optional model_config; or the settings alone.",
        "type": "object",
        "if": {"required": ["cache_config"]},
        "then": {"properties": top, "additionalProperties": False},
        "else": {"properties": {**flat, "model_config": _reference("model_config")}, "additionalProperties": False},
        "definitions": {
            "cache_config": {"type": "object", "properties": flat, "additionalProperties": False},
            "model_config": _model(),
            "settings": settings,
        },
    }


def _reference(*path: str) -> Schema:
    return {"$ref": "/".join(("#/definitions", *path))}


def _setting(described: Setting) -> Schema:
    unit = f" Unit: {described.unit}." if described.unit else ""
    before = f" Before changing it, measure: {described.measure}"
    schema: Schema = {"description": f"{described.meaning}{unit}{before}", **_values(described)}
    if described.default_text == str(described.default) or isinstance(described.default, (bool, type(None))):
        schema["default"] = described.default
    return schema


def _values(described: Setting) -> Schema:
    whole: Schema = {"type": "integer", "minimum": int(described.low), "maximum": int(described.high)}
    size: Schema = {"type": "string", "pattern": SIZE_PATTERN}
    schemas: Mapping[Kind, Schema] = {
        Kind.FLAG: {"type": "boolean"},
        Kind.COUNT: whole,
        Kind.POWER_OF_TWO: {"enum": [1 << bit for bit in range(64) if described.low <= 1 << bit <= described.high]},
        Kind.NUMBER: {"type": "number", "minimum": described.low, "maximum": described.high},
        Kind.CHOICE: {"enum": list(described.choices)},
        Kind.CAPACITY: {"anyOf": [whole, size, {"type": "string", "pattern": SHARE_PATTERN}]},
        Kind.SIZE: {"anyOf": [whole, size]},
        Kind.DIRECTORIES: {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        Kind.TEXT: {"type": "string", "minLength": 1},
        Kind.BINDINGS: {
            "type": "object",
            "additionalProperties": {"type": "array", "items": {"type": "string"}},
        },
    }
    values = schemas[described.kind]
    return {"anyOf": [values, {"type": "null"}]} if described.optional else values


def _later(later: LaterKey) -> Schema:
    types = sorted({_JSON_TYPES[kind.__name__] for kind in later.types} | {"null"})
    schema: Schema = {"description": f"{later.meaning} No effect: {later.why}.", "type": types}
    if "boolean" in types:
        schema = {"description": schema["description"], "enum": [True, False, 1, 0, None]}
    if later.accepted is not None:
        schema["enum"] = [*later.accepted, None]
    return schema


def _foreign(dialect: Dialect) -> dict[str, Schema]:
    nested: dict[str, Schema] = {name: {"description": f"{dialect.name}'s {name}."} for name in sorted(dialect.roots)}
    flat: dict[str, Schema] = {
        known.name: {"description": f"{dialect.name}'s key. {known.outcome.capitalize()}".strip()}
        for known in dialect.keys
        if known.name and "." not in known.name and known.name not in dialect.roots
    }
    return {**nested, **flat}


def _model() -> Schema:
    kinds: dict[object, str] = {str: "string", int: "integer", bool: "boolean"}
    properties: dict[str, object] = {
        field.name: {"type": kinds[field.type]} for field in fields(ModelConfig) if field.type in kinds
    }
    properties["dtype"] = {"enum": [*DTYPE_BYTES, *(f"torch.{name}" for name in DTYPE_BYTES)]}
    group = {
        "name": {"type": "string", "minLength": 1},
        "layers": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
        "window": {"type": ["integer", "null"], "minimum": 1},
    }
    properties["layer_groups"] = {
        "type": "array",
        "items": {
            "type": "object",
            "properties": group,
            "required": [field.name for field in fields(LayerGroup) if field.default is MISSING],
            "additionalProperties": False,
        },
    }
    return {
        "type": ["object", "null"],
        "properties": properties,
        "required": [field.name for field in fields(ModelConfig) if field.default is MISSING],
        "additionalProperties": False,
    }


def schema_text() -> str:
    """Return the schema as it is written to docs."""
    return json.dumps(settings_schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
