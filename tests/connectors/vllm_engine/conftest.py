"""What tests with a real vLLM engine share: one server that engines are forked from, a model, a seed."""

from collections.abc import Iterator

import pytest

from tests.helpers import simulated_disk
from tests.helpers.seeds import chosen_seed
from tests.helpers.vllm_checks import Reference
from tests.helpers.vllm_engine import EngineSpec, engine_server, why_no_vllm
from tests.helpers.vllm_model import write_model


@pytest.fixture(scope="session", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every engine can be put on the simulated disk: the library does nothing until it is told to."""
    if why_no_vllm():
        yield  # the test modules say so and skip
        return
    with engine_server(preload=simulated_disk.build(tmp_path_factory.mktemp("simulated_disk"))):
        yield


@pytest.fixture(scope="session")
def spec(tmp_path_factory: pytest.TempPathFactory) -> EngineSpec:
    """An engine without a connector; `dataclasses.replace` makes others of it."""
    return EngineSpec(model=write_model(tmp_path_factory.mktemp("model") / "small-llama"))


@pytest.fixture
def seed() -> int:
    return chosen_seed()


@pytest.fixture(scope="session")
def reference(server: None, spec: EngineSpec) -> Iterator[Reference]:
    """The engine whose answers are right."""
    made = Reference(spec)
    yield made
    made.close()
