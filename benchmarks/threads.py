"""What do many callers at once get from one cache?

1, 2, 4 and 8 Python threads look up, store and load small blocks through the facade, each kind by itself, for a fixed time. A
store and a load are waited for, so their latency holds the way through the worker threads. `fairness` is what the slowest
thread got done of what the fastest did. With the GIL the sum cannot grow with the callers; it shall not fall either, which is
what a lock convoy looks like: the bound of each row is a share of the one-caller row of the same run.

Which of several busy threads has the GIL, and for how long, is the interpreter's affair: a turn lasts 5 ms, so a few seconds
are a few dozen turns each. `plain loop` shows how it shares them out among threads that only count, and lookups, which
never wait for one another, are held to a share of that. `switches` is how often a thread gave up the processor by itself.
"""

import resource
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
from _harness import Row, parse_arguments, report

from tiercel import Cache, CacheConfig, EngineMemory, ModelConfig
from tiercel.layout import EngineBlocks

MODEL = ModelConfig(num_layers=1, num_kv_heads=1, head_size=64, dtype="float16", model_id="threads-benchmark")
NUM_TOKENS = 512
NUM_BLOCKS = NUM_TOKENS // 16
CALLERS = (1, 2, 4, 8)
SECONDS = 2.0
SHARE_KEPT = 0.8
"""Least part of one caller's throughput that many are to reach together."""
FAIRNESS = 0.5
TITLES = {"count": "plain loop"} | {kind: f"{kind} of {NUM_TOKENS} tokens" for kind in ("look_up", "store", "load")}

Step = Callable[[], object]


class Caller:
    """One thread's sequences and engine memory."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        # Of this run and thread alone: what an earlier run stored would be stored at once, without a move.
        self._random = np.random.default_rng()
        shape = (NUM_BLOCKS, 16, 1, 64)
        memory = EngineMemory.from_arrays(
            cache.geometry, [np.zeros(shape, np.uint16)], [np.zeros(shape, np.uint16)], axes="block token head dim"
        )
        self._blocks: EngineBlocks = memory.blocks(np.arange(NUM_BLOCKS))
        self._known = self._random.integers(0, 50_000, NUM_TOKENS, dtype=np.int32)
        cache.store(cache.sequence(self._known), self._blocks).wait(10)

    def look_up(self) -> None:
        with self._cache.lookup(self._cache.sequence(self._known)):
            pass

    def store(self) -> None:
        new = self._random.integers(0, 50_000, NUM_TOKENS, dtype=np.int32)
        self._cache.store(self._cache.sequence(new), self._blocks).wait(10)

    def load(self) -> None:
        self._cache.load(self._cache.sequence(self._known), self._blocks).wait(10)

    def count(self) -> None:
        """About what a lookup takes, without a lock or a call out of the interpreter."""
        total = 0
        for number in range(300):
            total += number & 1


def run(steps: list[Step], seconds: float) -> tuple[list[list[float]], int]:
    """Run each step in a thread of its own again and again; returns the seconds of each call, by thread, and how often the
    threads gave up the processor."""
    ready = threading.Barrier(len(steps) + 1)
    stop = threading.Event()
    taken: list[list[float]] = [[] for _ in steps]
    switches: list[int] = []

    def work(step: Step, times: list[float]) -> None:
        ready.wait()
        while not stop.is_set():
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        switches.append(resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(steps, taken, strict=True)]
    for thread in threads:
        thread.start()
    ready.wait()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    return taken, sum(switches)


def measure_kind(
    cache: Cache, kind: str, seconds: float, shares: dict[int, float]
) -> tuple[list[Row], dict[int, float]]:
    """Measure one kind of call. shares: the least fairness for each number of callers. Returns the rows and the fairness."""
    rows: list[Row] = []
    fairness: dict[int, float] = {}
    alone = 0.0
    for count in CALLERS:
        callers = [Caller(cache) for _ in range(count)]
        taken, switches = run([getattr(caller, kind) for caller in callers], seconds)
        every = np.concatenate([np.array(times) for times in taken])
        rate = len(every) / seconds
        alone = alone or rate
        name = f"{TITLES[kind]}, {count} callers"
        bound = SHARE_KEPT * alone if count > 1 and kind != "count" else None
        rows.append(Row(name=name, value=rate, unit="1/s", bound=bound, higher_is_better=True))
        p50, p99 = np.percentile(every, [50, 99]) * 1e6
        rows.append(Row(name=f"{name}: p50", value=float(p50), unit="us"))
        rows.append(Row(name=f"{name}: p99", value=float(p99), unit="us"))
        rows.append(Row(name=f"{name}: switches", value=switches / len(every), unit="/call"))
        if count > 1:
            each = [len(times) for times in taken]
            share = fairness[count] = min(each) / max(each)
            least = shares.get(count)
            rows.append(Row(name=f"{name}: fairness", value=share, unit="", bound=least, higher_is_better=True))
    return rows, fairness


def main() -> int:
    arguments = parse_arguments(__doc__)
    seconds = SECONDS * (arguments.repeats or 1)
    with Cache.open(MODEL, CacheConfig(num_cpu_blocks=100_000, load_policy="always")) as cache:
        rows, plain = measure_kind(cache, "count", seconds, {})
        rows += measure_kind(cache, "look_up", seconds, {count: FAIRNESS * share for count, share in plain.items()})[0]
        for kind in ("store", "load"):
            rows += measure_kind(cache, kind, seconds, dict.fromkeys(CALLERS, FAIRNESS))[0]
    return report(rows, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
