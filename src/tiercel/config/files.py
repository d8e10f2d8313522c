"""Reading a settings file, YAML, JSON or TOML. A key given twice is an error: one of the two would be lost."""

import json
import os
from pathlib import Path

from tiercel.config.messages import require_unique
from tiercel.errors import ConfigError


def read_mapping(file: str | os.PathLike[str]) -> dict[str, object]:
    """Return the keys and values of a settings file; an empty file has none.

    Raises:
        ConfigError: the file cannot be read, has another form, or gives a key twice.
    """
    path = Path(file)
    readers = {".json": _read_json, ".yaml": _read_yaml, ".yml": _read_yaml, ".toml": _read_toml}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"settings file {str(path)!r}: its name must end in .yaml, .yml, .json or .toml; rename it")
    try:
        content = reader(path.read_text(encoding="utf-8-sig"))  # a byte order mark is no part of the text
    except OSError as error:
        raise ConfigError(f"settings file {str(path)!r}: {error.strerror}; name a file that can be read") from error
    except ValueError as error:
        raise ConfigError(f"settings file {str(path)!r}: {error}; correct the file") from error
    except RecursionError as error:
        raise ConfigError(f"settings file {str(path)!r}: nested too deeply; correct the file") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(
            f"settings file {str(path)!r}: must hold keys and values, the keys being text; correct the file"
        )
    return content


def _read_json(text: str) -> object:
    return json.loads(text, object_pairs_hook=_without_repetition) if text.strip() else None


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    require_unique([key for key, _ in pairs])
    return dict(pairs)


def _read_toml(text: str) -> object:
    import tomllib

    return tomllib.loads(text)


def _read_yaml(text: str) -> object:
    from tiercel.config.strict_yaml import parse_yaml

    return parse_yaml(text)
