"""Runs what CI runs a piece of, for as long as is asked, and writes down what was run.

    python -m tests.faults.soak simulation DIRECTORY --amount 1000000 --piece 20000 --jobs 2 --json FILE
    python -m tests.faults.soak kills DIRECTORY --amount 5000 --piece 500 --json FILE
    python -m tests.faults.soak node DIRECTORY --amount 600 --piece 60 --json FILE

Pieces run in processes of their own, each with the next seed; one that fails prints its output and is counted. DIRECTORY
should lie on a memory filesystem for the simulation, which does not care, and on a disk for the kills.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.helpers import simulated_disk

ROOT = Path(__file__).parents[2]
MODULES = {
    "simulation": "tests.faults.simulation",
    "kills": "tests.faults.kill_cycles",
    "node": "tests.faults.node_kills",
}
SEED_VARIABLES = {"simulation": "TIERCEL_SIM_SEED", "kills": "TIERCEL_TEST_SEED", "node": "TIERCEL_TEST_SEED"}
AMOUNTS = {"simulation": "operations", "kills": "cycles", "node": "kills"}
LONGEST = "longest_s"
"""A result of which the longest counts, not the sum."""

Result = dict[str, object]


def run_piece(what: str, directory: Path, library: Path, seed: int, amount: int) -> Result:
    """One process. Raises RuntimeError with all that it said if it fails."""
    folder = Path(tempfile.mkdtemp(dir=directory))
    environment = simulated_disk.environment(library) if what == "simulation" else dict(os.environ)
    command = [sys.executable, "-m", MODULES[what], str(folder), f"--{AMOUNTS[what]}", str(amount)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**environment, SEED_VARIABLES[what]: str(seed)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{SEED_VARIABLES[what]}={seed} {' '.join(command)}\n{done.stdout}{done.stderr}")
    shutil.rmtree(folder)
    result: Result = json.loads(done.stdout)
    return result


def total(results: list[Result]) -> Result:
    """Sum up what can be; seeds become first and last."""
    seeds = [result["seed"] for result in results]
    whole: Result = {
        "pieces": len(results),
        "first_seed": min(map(str, seeds), key=int),
        "last_seed": max(map(str, seeds), key=int),
    }
    for result in results:
        for name, value in result.items():
            if isinstance(value, dict):
                sums = whole.setdefault(name, {})
                assert isinstance(sums, dict)
                for key, count in value.items():
                    so_far = sums.get(key, 0)
                    sums[key] = max(so_far, count) if name == LONGEST else so_far + count
            elif isinstance(value, int | float) and name != "seed":
                so_far = whole.get(name, 0)
                assert isinstance(so_far, int | float)
                whole[name] = round(so_far + value, 1)
    return whole


def run_all(what: str, directory: Path, *, first_seed: int, amounts: list[int], jobs: int) -> Iterator[Result | None]:
    """Results in order; None for a piece that failed, whose output goes to stderr."""
    library = simulated_disk.build(directory)
    with ThreadPoolExecutor(jobs) as pool:
        pieces = [
            pool.submit(run_piece, what, directory, library, first_seed + number, amount)
            for number, amount in enumerate(amounts)
        ]
        for number, piece in enumerate(pieces):
            try:
                yield piece.result()
                sys.stderr.write(f"{what}: {number + 1} of {len(pieces)} pieces\n")
            except RuntimeError as error:
                sys.stderr.write(f"{error}\n")
                yield None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(MODULES))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--amount", type=int, required=True)
    parser.add_argument("--piece", type=int, required=True)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1, help="of the first piece")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    given.directory.mkdir(parents=True, exist_ok=True)
    whole, rest = divmod(given.amount, given.piece)
    amounts = [given.piece] * whole + [rest] * (rest > 0)
    started = time.monotonic()
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    ended = list(run_all(given.what, given.directory, first_seed=given.seed, amounts=amounts, jobs=given.jobs))
    results = [result for result in ended if result is not None]
    report = {
        "what": given.what,
        "command": f"python -m tests.faults.soak {given.what} --amount {given.amount} --piece {given.piece} --seed {given.seed}",
        "commit": commit,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "wall_seconds": round(time.monotonic() - started, 1),
        "failed_pieces": ended.count(None),
        **total(results),
    }
    given.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
