"""SIGKILL at random moments: after a restart every hit is byte for byte what was stored, and nothing is lost or leaked."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import Cache

CYCLES = 12
PROMPTS = 12

ROOT = Path(__file__).parents[2]
CHILD = """
import random, sys
from pathlib import Path
from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import Cache

directory, seed, prompts = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
cache = Cache.open(MODEL, config(directory, host=32, disk=160, journal_checkpoint_bytes=4096))
engine = SmallEngine(cache.geometry, 64)
print("open", flush=True)
while True:
    sequence = cache.sequence(tokens(24, seed=rng.randrange(prompts)))
    if rng.random() < 0.7:
        cache.store(sequence, engine.fill(sequence)).wait(10)
        print("stored", flush=True)
    else:
        engine.poison()
        engine.check(sequence, cache.load(sequence, engine.blocks(0, 24)).wait(10).num_blocks_ok)
"""


def run_until_killed(directory: Path, rng: random.Random) -> int:
    """Let a child store and load until it is killed. Returns how many stores it reported."""
    words = [sys.executable, "-c", CHILD, str(directory), str(rng.randrange(2**32)), str(PROMPTS)]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n", "the child did not come up"
    time.sleep(rng.uniform(0.0, 0.25))
    os.kill(child.pid, signal.SIGKILL)
    stored = child.stdout.read().count("stored")
    assert child.wait(10) == -signal.SIGKILL, "the child failed by itself"
    child.stdout.close()
    return stored


def test_no_kill_ever_leads_to_a_wrong_byte_a_leak_or_a_cold_cache(tmp_path: Path) -> None:
    seed = int(os.environ.get("TIERCEL_TEST_SEED", random.randrange(2**32)))
    sys.stdout.write(f"TIERCEL_TEST_SEED={seed}\n")
    rng = random.Random(seed)
    total_hits = 0
    for _ in range(CYCLES):
        stored = run_until_killed(tmp_path, rng)
        with Cache.open(MODEL, config(tmp_path, host=32, disk=160)) as cache:
            engine = SmallEngine(cache.geometry, 64)
            hits = 0
            for prompt in range(PROMPTS):
                sequence = cache.sequence(tokens(24, seed=prompt))
                result = cache.load(sequence, engine.blocks(0, 24)).wait(10)
                engine.check(sequence, result.num_blocks_ok)
                hits += result.num_blocks_ok
            assert hits >= 24 or stored == 0, "everything that was stored is gone"
            cache._assembly.control.index.check()
            total_hits += hits
    assert total_hits > 0
