"""A process forked from the one that uses a cache cannot use it, and leaves it alone when it ends."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, sys
from pathlib import Path
from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import Cache
from tiercel.errors import CacheClosedError

def refused(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except CacheClosedError as error:
        assert "forked" in str(error)
        return
    raise AssertionError(f"{call} was not refused")

directory = Path(sys.argv[1])
with Cache.open(MODEL, config(directory, host=8, disk=64)) as cache:
    engine = SmallEngine(cache.geometry)
    before = sorted(path.name for path in directory.glob("*/*"))
    child = os.fork()
    if child == 0:
        forked = cache.sequence(tokens(4, seed=2))
        refused(cache.lookup, forked)
        refused(cache.store, forked, engine.fill(forked))
        refused(cache.load, forked, engine.blocks(0, 4))
        refused(cache.prefetch, forked)
        refused(cache.reset)
        sys.exit(0)  # runs what is registered at exit
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert sorted(path.name for path in directory.glob("*/*")) == before
    sequence = cache.sequence(tokens(4, seed=2))
    stored = cache.store(sequence, engine.fill(sequence)).wait(10)
    assert [count for _, count in sorted(stored.blocks_by_tier.items())] == [4, 4], stored
with Cache.open(MODEL, config(directory, host=8, disk=64)) as cache:
    assert cache.lookup(cache.sequence(tokens(4, seed=2))).num_blocks == 4
"""


def test_a_forked_child_is_refused_and_leaves_the_cache_of_its_parent_alone(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
