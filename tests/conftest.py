"""What every test may rely on."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tiercel.config import SETTINGS

_SETTINGS = {f"TIERCEL_{key.upper()}" for key in SETTINGS}
_FOREIGN = ("FLEXKV_", "DYN_")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have a cache configured in the environment; tests set what they read."""
    for name in [name for name in os.environ if name in _SETTINGS or name.startswith(_FOREIGN)]:
        monkeypatch.delenv(name)


@pytest.fixture
def arena_directory() -> Iterator[Path]:
    """A directory on a tmpfs that does not exist yet, for a host tier's memory that outlives it."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="tiercel-test-") as folder:
        yield Path(folder) / "arena"
