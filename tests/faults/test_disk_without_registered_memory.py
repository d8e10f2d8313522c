"""A process that may pin little memory, as most containers: plain transfers take over, and it is said."""

import ctypes
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.tier_samples import FINGERPRINT, random_bytes, random_labels, slots_of, why_no_io_uring

CAP_IPC_LOCK, VERSION = 14, 0x20080522
BLOCK_BYTES, NUM_SLOTS = 5000, 64


def give_up_pinning() -> None:
    """Take from this process the right to pin more than RLIMIT_MEMLOCK."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, both = ctypes.create_string_buffer(struct.pack("II", VERSION, 0)), ctypes.create_string_buffer(24)
    assert libc.capget(header, both) == 0
    effective_low, permitted_low, inherited_low, *high = struct.unpack("6I", both.raw)
    kept = ~(1 << CAP_IPC_LOCK) & 0xFFFFFFFF
    ctypes.memmove(both, struct.pack("6I", effective_low & kept, permitted_low & kept, inherited_low & kept, *high), 24)
    assert libc.capset(header, both) == 0, os.strerror(ctypes.get_errno())


def limit_pinned_memory(num_bytes: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (num_bytes, hard))


def move_blocks(directory: Path, limit_at_opening: int, limit_later: int) -> None:
    from tests.helpers.tier_samples import ScatteredMemory
    from tiercel.tiers.disk import DiskTier
    from tiercel.tiers.disk_options import DiskOptions

    give_up_pinning()
    limit_pinned_memory(limit_at_opening)
    options = DiskOptions(
        directories=[directory],
        fingerprint=FINGERPRINT,
        num_slots=NUM_SLOTS,
        block_bytes=BLOCK_BYTES,
        bounce_bytes=1 << 20,
    )
    tier = DiskTier.open(options)
    sys.stdout.write(f"opened {tier.fallbacks}\n")
    limit_pinned_memory(limit_later)
    random = np.random.default_rng(5)
    slots, source = slots_of(*range(NUM_SLOTS)), random_bytes(random, NUM_SLOTS, BLOCK_BYTES)
    target = np.zeros_like(source)
    tier.reserve(slots)
    tier.write(slots, ScatteredMemory(source), random_labels(random, NUM_SLOTS))
    tier.read(slots, ScatteredMemory(target))
    sys.stdout.write(f"used {tier.fallbacks}\nsame {bool((source == target).all())}\n")
    tier.close()


@pytest.mark.skipif(bool(why_no_io_uring()), reason=why_no_io_uring())
@pytest.mark.parametrize(
    ("limits", "opened", "used"),
    [
        ((512 << 10, 512 << 10), "RLIMIT_MEMLOCK allows 512 KiB", "RLIMIT_MEMLOCK allows 512 KiB"),
        ((4 << 20, 4096), "opened {}", "did not register memory with io_uring (Cannot allocate memory)"),
        ((4 << 20, 4 << 20), "opened {}", "used {}"),
    ],
    ids=["seen when opened", "seen when used", "enough"],
)
def test_plain_transfers_take_over_aloud(tmp_path: Path, limits: tuple[int, int], opened: str, used: str) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from pathlib import Path\n"
        "import tests.faults.test_disk_without_registered_memory as t\n"
        f"t.move_blocks(Path({str(tmp_path)!r}), *{limits})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    told = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert opened in f"opened {told['opened']}"
    assert used in f"used {told['used']}"
    assert told["same"] == "True"
