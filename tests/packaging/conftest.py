"""The wheel under test: the one that `make wheel` built."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheel() -> Path:
    wheels = sorted((ROOT / ".wheels").glob("tiercel-*.whl"))
    if not wheels:
        pytest.skip("no wheel to test: run `make wheel` (`make test` does)")
    return wheels[-1]
