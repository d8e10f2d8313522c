"""vLLM's workers in processes of their own, one and two of them: the answers stay the engine's own, each rank gets its share."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.helpers.vllm_checks import Reference, check_hits, check_nothing_is_held, tier_of, with_cache
from tests.helpers.vllm_engine import TOKENS_PER_BLOCK, Engine, EngineFailedError, EngineSpec, why_no_vllm
from tests.helpers.vllm_requests import Request, StoredBlocks, mixed_requests

pytestmark = [
    pytest.mark.skipif(bool(why_no_vllm()), reason=f"{why_no_vllm()}: the vLLM connector is NOT tested"),
    pytest.mark.timeout(600),
    pytest.mark.processes,
]

END_S = 20.0


def _ranks(spec: EngineSpec, num_ranks: int) -> EngineSpec:
    return replace(spec, in_one_process=False, options={"tensor_parallel_size": num_ranks})


@pytest.fixture(scope="module")
def references(spec: EngineSpec, reference: Reference) -> Iterator[dict[int, Reference]]:
    """Engines whose answers are right, by their ranks: sums over ranks round otherwise than sums in one process."""
    two = Reference(_ranks(spec, 2))
    yield {1: reference, 2: two}
    two.close()


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_mixed_requests_get_the_engines_own_answers_and_find_after_a_restart_what_they_stored(
    spec: EngineSpec, references: dict[int, Reference], tmp_path: Path, seed: int, num_ranks: int
) -> None:
    requests = mixed_requests(seed, 60)
    cached = with_cache(_ranks(spec, num_ranks), tmp_path / "cache", host=60)
    for life in range(2):
        with Engine(cached) as engine:
            references[num_ranks].check(requests, engine.run(requests))
            check_nothing_is_held(engine, cached)
            assert engine.status().activity.recompute == {}
            if life:
                assert tier_of(engine, "disk").blocks_read > 0
            engine.close()


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_hits_over_ranks_are_those_of_a_plain_dict(
    spec: EngineSpec, references: dict[int, Reference], seed: int, num_ranks: int
) -> None:
    requests = [request for request in mixed_requests(seed, 30) if request.aborts_after is None][:15]
    cached = with_cache(_ranks(spec, num_ranks))
    stored = StoredBlocks(TOKENS_PER_BLOCK)
    expected: dict[str, int] = {}
    for request, answer in zip(requests, references[num_ranks].answers(requests).values(), strict=True):
        expected[request.name] = stored.hit_tokens(request)
        stored.add(request, answer)
    assert sum(expected.values()), "no request shares a block with one before it"
    with Engine(cached) as engine:
        answers = engine.run_alone(requests)
        references[num_ranks].check(requests, answers)
        check_hits(requests, answers, expected)
        check_nothing_is_held(engine, cached)
        engine.close()


def _left_behind() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("tiercel-" + "[0-9a-f]" * 20))


def _all_end(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=END_S)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_scheduler_that_is_killed_leaves_neither_workers_nor_files(
    spec: EngineSpec, seed: int, number: signal.Signals
) -> None:
    before = _left_behind()
    with Engine(with_cache(_ranks(spec, 2))) as engine:
        assert _left_behind() == before, "the directory is gone once the workers have joined"
        engine.run(mixed_requests(seed, 5))
        workers = psutil.Process(engine.pid).children(recursive=True)
        assert len(workers) >= 2
        os.kill(engine.pid, number)
        assert engine.wait_for_end(END_S)
        assert _all_end(workers)
    assert _left_behind() == before


def test_a_killed_worker_ends_the_engine_in_bounded_time(spec: EngineSpec, seed: int) -> None:
    with Engine(with_cache(_ranks(spec, 2))) as engine:
        requests = mixed_requests(seed, 5)
        engine.run(requests)
        worker = max(psutil.Process(engine.pid).children(), key=lambda child: child.memory_info().rss)
        os.kill(worker.pid, signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(EngineFailedError):
            engine.run([Request(name="late", tokens=requests[0].tokens)], timeout_s=60)
        assert time.monotonic() - started < 60
