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


READ_ONLY = """
import sys
from pathlib import Path
from tests.helpers.simulated_disk import NO_FAULTS, DiskFaults, SimulatedDisk
from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import Cache

directory = Path(sys.argv[1])
(directory / "stash").mkdir()
disk = SimulatedDisk(directory / "disk", directory / "stash", 1)
settings = config(directory / "disk", host=32, disk=160, ssd_io_engine="threads", ssd_direct_io=False)

def load(cache, seed):
    engine, sequence = SmallEngine(cache.geometry), cache.sequence(tokens(24, seed=seed))
    found = cache.load(sequence, engine.blocks(0, 24)).wait(10).num_blocks_ok
    engine.check(sequence, found)
    return found

with Cache.open(MODEL, settings) as cache:
    engine = SmallEngine(cache.geometry)
    for seed in range(6):
        if seed == 3:
            disk.set_faults(DiskFaults(write_error=1_000_000, sync_error=1_000_000))
        sequence = cache.sequence(tokens(24, seed=seed))
        cache.store(sequence, engine.fill(sequence)).wait(10)
        assert load(cache, seed) == 24
    assert [load(cache, seed) for seed in range(3)] == [24] * 3
    cache._assembly.control.index.check()
try:
    Cache.open(MODEL, settings)
except Exception as error:
    print(f"{type(error).__name__}: {error}")
disk.set_faults(NO_FAULTS)
with Cache.open(MODEL, settings) as cache:
    assert [load(cache, seed) for seed in range(3)] == [24] * 3
"""


def test_a_disk_that_takes_no_writes_any_more_costs_no_block_that_is_there(library: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(tmp_path)],
        cwd=ROOT,
        env=simulated_disk.environment(library),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Input/output error" in done.stdout, "a start on such a disk is refused with the reason"


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
