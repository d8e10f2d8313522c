"""A piece of the simulation: the real cache on the simulated disk. `tests.faults.simulation` says what must hold.

TIERCEL_SIM_SEED repeats a run, TIERCEL_SIM_OPERATIONS makes it longer. A million operations: `tests.faults.soak`.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import simulated_disk

ROOT = Path(__file__).parents[2]
OPERATIONS = int(os.environ.get("TIERCEL_SIM_OPERATIONS", "8000"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated_disk.build(tmp_path_factory.mktemp("simulated-disk"))


@pytest.fixture
def memory_directory(tmp_path: Path) -> Iterator[Path]:
    """On a memory filesystem where there is one: the simulation makes its own faults, and needs no slow disk for them."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    directory = shared / f"tiercel-simulation-{os.getpid()}"
    directory.mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.mark.timeout(60 + OPERATIONS // 50)
@pytest.mark.parametrize("piece", range(3))
def test_no_fault_of_a_disk_ever_leads_to_a_wrong_byte_a_leak_a_hang_or_a_lost_block(
    library: Path, memory_directory: Path, piece: int
) -> None:
    seed = int(os.environ.get("TIERCEL_SIM_SEED", str(random.randrange(2**32)))) + piece
    sys.stdout.write(f"TIERCEL_SIM_SEED={seed} (piece {piece})\n")
    command = [sys.executable, "-m", "tests.faults.simulation", str(memory_directory), "--operations", str(OPERATIONS)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**simulated_disk.environment(library), "TIERCEL_SIM_SEED": str(seed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"TIERCEL_SIM_SEED={seed} {' '.join(command)}\n{done.stdout}{done.stderr}"
    result = json.loads(done.stdout)
    assert result["operations"] == OPERATIONS
    assert result["hits_read_at_restarts"] > OPERATIONS // 10
    assert sum(result["faults"].values()) > OPERATIONS // 100
