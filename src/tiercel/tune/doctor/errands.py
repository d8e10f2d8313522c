"""What a looking process can be asked to look at."""

import msgspec


class LookAtSystem(msgspec.Struct, frozen=True, tag="system"):
    """The machine."""


class LookAtSettings(msgspec.Struct, frozen=True, kw_only=True, tag="settings"):
    """A settings file, or the environment; for a model or not."""

    file: str | None = None
    model: str | None = None


class LookAtDirectory(msgspec.Struct, frozen=True, kw_only=True, tag="directory"):
    """A cache directory."""

    path: str


class LookAtProcess(msgspec.Struct, frozen=True, kw_only=True, tag="process"):
    """A running cache; socket: None if none bears the process's name."""

    pid: int
    socket: str | None


class LookAtMachineFile(msgspec.Struct, frozen=True, kw_only=True, tag="machine_file"):
    """A file of `tiercel probe`."""

    path: str


Errand = LookAtSystem | LookAtSettings | LookAtDirectory | LookAtProcess | LookAtMachineFile
