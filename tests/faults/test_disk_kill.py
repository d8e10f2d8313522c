"""A process that writes to a disk tier is killed again and again; what it was told is stored is there, and no more.

The cycles run in a process of their own, because every child would import the test runner again. For a longer run:

    python -m tests.faults.test_disk_kill DIRECTORY CYCLES SEED

The child announces each call before it starts ("touch slots") and its outcome after it ended ("hold slot name"), so the
parent knows which blocks must have survived, which may have, and what every block must contain.
"""

import multiprocessing
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from tests.helpers.tier_samples import Bytes, disk_options, load, store
from tiercel.tiers.base import BlockLabels, BlockStatus
from tiercel.tiers.disk import DiskTier

NUM_SLOTS = 48
BLOCK_BYTES = 20_000


def content_of_name(name: bytes) -> Bytes:
    """What a block of this name contains, always."""
    seed = int.from_bytes(name, "little")
    return np.random.default_rng(seed).integers(0, 256, (1, BLOCK_BYTES), dtype=np.uint8)


ROOT = Path(__file__).parents[2]


def write_until_killed(directory: Path, seed: int, parent: Connection) -> None:
    random = np.random.default_rng(seed)
    tier = DiskTier.open(disk_options(directory, num_slots=NUM_SLOTS, block_bytes=BLOCK_BYTES))
    parent.send(("open",))
    while True:
        slots = random.choice(NUM_SLOTS, size=int(random.integers(1, 9)), replace=False).astype(np.uint32)
        act = random.random()
        if act < 0.1:
            tier.checkpoint(slots)
            continue
        parent.send(("touch", slots.tolist()))
        if act < 0.3:
            tier.free(slots)
            continue
        names = random.integers(0, 256, (len(slots), 16), dtype=np.uint8)
        rows = np.concatenate([content_of_name(name.tobytes()) for name in names])
        statuses = store(tier, slots, rows, BlockLabels(parent=bytes(16), names=names))
        assert statuses == [BlockStatus.OK] * len(slots)
        parent.send(("hold", slots.tolist(), [name.tobytes() for name in names]))


def run_and_kill(directory: Path, seed: int, after_s: float, held: dict[int, bytes]) -> None:
    """Run the child for a while; afterwards `held` names the blocks that must be there."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.helpers.tier_samples"])
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=write_until_killed, args=(directory, seed, theirs))
    child.start()
    theirs.close()
    assert ours.recv() == ("open",)
    child.join(after_s)
    assert child.exitcode is None, "the child ended by itself"
    child.kill()
    child.join()
    try:
        while True:
            kind, slots, *names = ours.recv()
            for number, slot in enumerate(slots):
                held.pop(slot, None)
                if kind == "hold":
                    held[slot] = names[0][number]
    except EOFError:
        ours.close()


def check_after_kill(directory: Path, held: dict[int, bytes], told: str) -> int:
    """Open what the child left, check every block, and return how many were good."""
    tier = DiskTier.open(disk_options(directory, num_slots=NUM_SLOTS, block_bytes=BLOCK_BYTES))
    found = tier.recovered
    statuses, rows = load(tier, found.slots, scattered=bool(len(held) % 2))
    names = {int(slot): key.tobytes() for slot, key in zip(found.slots, found.keys, strict=True)}
    for slot, status, row in zip(found.slots.tolist(), statuses, rows, strict=True):
        if status == BlockStatus.OK:
            assert np.array_equal(row, content_of_name(names[slot])[0]), f"{told}: slot {slot} has wrong bytes"
        else:
            assert slot not in held, f"{told}: slot {slot} was acknowledged and reads {status}"
    assert held.items() <= names.items(), f"{told}: acknowledged blocks are missing"
    tier.free(found.slots[np.array(statuses, dtype=np.uint8) != BlockStatus.OK])
    tier.close()
    return int(statuses.count(BlockStatus.OK))


def kill_and_check(directory: Path, cycles: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    held: dict[int, bytes] = {}
    survived = 0
    for cycle in range(cycles):
        run_and_kill(directory, int(random.integers(2**32)), float(random.uniform(0.005, 0.12)), held)
        survived += check_after_kill(directory, held, f"seed {seed}, cycle {cycle}")
    assert survived > cycles, "the children were killed before they wrote anything"


def test_after_a_kill_every_block_is_what_was_stored_under_its_name_or_not_there(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.test_disk_kill", str(tmp_path), "30", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


if __name__ == "__main__":
    kill_and_check(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
