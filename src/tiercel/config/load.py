"""Loading settings: keywords before environment before file before defaults, and where each value came from.

The only reader of settings files and of variables that are settings. It parses and refuses; it allocates nothing and
asks the machine nothing (`resources` does). Other caches' keys and variables come in through `dialects` and stand
behind all of ours.
"""

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tiercel.config.cache import SETTINGS, CacheConfig
from tiercel.config.dialects.reader import (
    DIALECTS,
    Reading,
    dialect_of,
    file_keys,
    infer,
    overruled,
    read_key,
    read_variables,
    settle,
)
from tiercel.config.dialects.table import Dialect
from tiercel.config.document import split_content
from tiercel.config.files import read_mapping
from tiercel.config.later import LATER_KEYS
from tiercel.config.messages import nearest, unknown_key
from tiercel.config.model import ModelConfig
from tiercel.config.notes import Note, NoteKind
from tiercel.config.relations import relation_notes
from tiercel.errors import ConfigError

PREFIX = "TIERCEL_"
"""What the name of every environment variable of ours starts with; the setting's key follows in upper case."""

RESERVED_VARIABLES = ("TIERCEL_WITH_LIBURING", "TIERCEL_NATIVE_TESTS", "TIERCEL_TEST_SEED")
"""Variables of the build and the tests, which are no settings."""

_LOG = logging.getLogger("tiercel")


@dataclass(frozen=True, kw_only=True)
class LoadedConfig:
    """Settings and where they came from.

    Attributes:
        config: the settings.
        sources: for each key of CacheConfig "default", "file PATH", "environment NAME", "keyword", "file PATH (KEY)"
            for another cache's key, or "as CACHE does".
        notes: what the user should know of what was taken.
        model: the model that the file describes, if it does.
    """

    config: CacheConfig
    sources: Mapping[str, str]
    notes: tuple[Note, ...]
    model: ModelConfig | None = None


def load_config(
    file: str | os.PathLike[str] | None = None, *, environ: Mapping[str, str] | None = None, **overrides: object
) -> LoadedConfig:
    """Load settings from a file, the environment and keywords; the later named wins. Notes are logged.

    Args:
        file: YAML (.yaml, .yml), JSON (.json) or TOML (.toml): `cache_config` with the settings, beside optional
            `model_config` and `server_recv_port`; or the settings alone. By default the file that another cache's
            variable names, FLEXKV_CONFIG_PATH or KVBM_CONFIG_PATH, if one does.
        environ: variables to read instead of this process's.
        **overrides: settings by key.

    Raises:
        ConfigError: the file cannot be read, or a key or value in any source is wrong.
    """
    loaded = read_config(file, environ=environ, **overrides)
    for note in loaded.notes:
        _LOG.log(logging.WARNING if note.loud else logging.INFO, "settings: %s", note)
    return loaded


def load_settings(
    settings: Mapping[str, object], origin: str, *, environ: Mapping[str, str] | None = None
) -> LoadedConfig:
    """Load settings that an engine's own configuration holds: a file's keys, other caches' names among them, which win over
    the environment. Notes are logged.

    Args:
        settings: by key, as in a file.
        origin: where they stand, for messages.
        environ: variables to read instead of this process's.

    Raises:
        ConfigError: a key or value in any source is wrong.
    """
    sources = _Sources()
    sources.take_variables(os.environ if environ is None else environ, None)
    sources.take_file(settings, origin)
    config = sources.config()
    notes = [*sources.foreign.notes, *relation_notes(config)]
    loaded = LoadedConfig(config=config, sources=sources.origins, notes=tuple(dict.fromkeys(notes)))
    for note in loaded.notes:
        _LOG.log(logging.WARNING if note.loud else logging.INFO, "settings: %s", note)
    return loaded


def read_config(
    file: str | os.PathLike[str] | None = None, *, environ: Mapping[str, str] | None = None, **overrides: object
) -> LoadedConfig:
    """Do what `load_config` does, and log nothing."""
    variables = os.environ if environ is None else environ
    sources, model, beside = _Sources(), None, None
    path = file
    for dialect in DIALECTS:
        named = variables.get(dialect.file_variable)
        if named and path is None:
            path, beside = named, dialect
        elif named:
            text = "settings are read from one file, and another one was named"
            sources.foreign.notes.append(Note(kind=NoteKind.IGNORED, key=dialect.file_variable, text=text, loud=True))
    if path is not None:
        origin = f"file {os.fspath(path)}"
        try:
            settings, model = split_content(read_mapping(path), origin)
        except ConfigError as error:
            if beside is None:
                raise
            raise ConfigError(f"{error} ({beside.file_variable} names the file)") from error
        sources.take_file(settings, origin)
    sources.take_variables(variables, beside)
    sources.take(overrides, "keyword")
    config = sources.config()
    notes = [*sources.foreign.notes, *relation_notes(config)]
    return LoadedConfig(config=config, sources=sources.origins, notes=tuple(dict.fromkeys(notes)), model=model)


@dataclass(kw_only=True)
class _Sources:
    """What all sources give, the strongest last.

    Attributes:
        values: settings of ours that were given under their own names.
        origins: where each setting comes from.
        foreign: what other caches' keys ask for, and every note.
    """

    values: dict[str, object] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=lambda: dict.fromkeys(SETTINGS, "default"))
    foreign: Reading = field(default_factory=Reading)

    def take(self, given: Mapping[str, object], origin: str) -> None:
        """Check what one source gives under our names, and let it win over what was there."""
        for key, value in given.items():
            if key in SETTINGS:
                self.values[key] = SETTINGS[key].check(value, origin)
                self.origins[key] = origin
            elif key in LATER_KEYS:
                self.foreign.notes.append(LATER_KEYS[key].check(value, origin))
            else:
                raise unknown_key(key, (*SETTINGS, *LATER_KEYS), origin)

    def take_file(self, settings: Mapping[str, object], origin: str) -> None:
        """Take a file's settings, foreign keys among them."""
        for key, value in settings.items():
            if key in SETTINGS or key in LATER_KEYS:
                self.take({key: value}, origin)
            elif dialect_of(key) is not None:
                read_key(key, value, origin, self.foreign)
            else:
                raise unknown_key(key, (*SETTINGS, *LATER_KEYS, *file_keys()), origin)

    def take_variables(self, variables: Mapping[str, str], beside: Dialect | None) -> None:
        """Take the environment's settings, foreign ones among them."""
        read_variables(variables, self.foreign, beside=beside)
        for name, text in variables.items():
            if name.startswith(PREFIX) and name not in RESERVED_VARIABLES:
                key = name.removeprefix(PREFIX).lower()
                self.take({key: _from_text(key, text, name)}, f"environment {name}")

    def arguments(self) -> dict[str, Any]:
        """Return the settings, with what foreign keys ask for where ours say nothing."""
        for key, claim in settle(self.foreign.claims, self.foreign).items():
            if key not in self.values:
                self.values[key], self.origins[key] = claim.value, claim.origin
            elif self.values[key] != claim.value:
                self.foreign.notes.append(overruled(claim, f"{key} ({self.origins[key]})"))
        inferred = list(infer(self.foreign.claims, self.values, self.foreign))
        for key, value, origin in inferred:
            self.values[key], self.origins[key] = value, origin
        return self.values  # each value passed its setting's check

    def config(self) -> CacheConfig:
        """Return the settings. Raises ConfigError for two that contradict each other, with where each of them comes from."""
        arguments = self.arguments()
        try:
            return CacheConfig(**arguments)
        except ConfigError as error:
            named = [key for key in SETTINGS if re.search(rf"\b{key}\b", str(error)) and key in arguments]
            if not named:
                raise
            places = ", ".join(f"{key} from {self.origins[key]}" for key in named)
            raise ConfigError(f"{error} ({places})") from error


def _from_text(key: str, text: str, name: str) -> object:
    if key in SETTINGS:
        return SETTINGS[key].parse(text, f"environment {name}")
    if key in LATER_KEYS:
        return LATER_KEYS[key].parse(text)
    known = [PREFIX + other.upper() for other in (*SETTINGS, *LATER_KEYS)]
    hint = nearest(name, known, prefix=PREFIX) or "see docs/configuration.md"
    raise ConfigError(f"{name} (from environment): unknown variable; {hint}; unset it if it is not meant for Tiercel")
