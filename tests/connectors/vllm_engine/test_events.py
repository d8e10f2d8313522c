"""Who follows vLLM's KV events knows which blocks lie in host memory and on disk, by vLLM's own hashes."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.simulated_disk import DiskFaults
from tests.helpers.vllm_checks import tier_of, with_cache
from tests.helpers.vllm_engine import TOKENS_PER_BLOCK, Engine, EngineSpec, why_no_vllm
from tests.helpers.vllm_requests import KvEvent, mixed_requests

pytestmark = [
    pytest.mark.skipif(bool(why_no_vllm()), reason=f"{why_no_vllm()}: KV events are NOT tested"),
    pytest.mark.timeout(600),
]

Followed = dict[str | None, dict[bytes, tuple[bytes | None, tuple[int, ...]]]]


def follow(events: Iterable[KvEvent], followed: Followed) -> None:
    """Take in events as a router does: by medium and hash, the parent's hash and the tokens of each block there."""
    for event in events:
        blocks = followed.setdefault(event.medium, {})
        if event.kind == "BlockStored":
            assert len(event.tokens) == len(event.hashes) * TOKENS_PER_BLOCK
            parent = event.parent
            for at, name in enumerate(event.hashes):
                blocks[name] = (parent, event.tokens[at * TOKENS_PER_BLOCK : (at + 1) * TOKENS_PER_BLOCK])
                parent = name
        elif event.medium in ("CPU", "STORAGE"):
            for name in event.hashes:
                del blocks[name]  # nothing leaves that was not there


def test_events_tell_what_lies_in_host_memory_and_on_disk(spec: EngineSpec, tmp_path: Path, seed: int) -> None:
    requests = [request for request in mixed_requests(seed, 60) if request.aborts_after is None]
    cached = replace(with_cache(spec, tmp_path / "cache", num_cpu_blocks=60), publishes_events=True)
    followed: Followed = {}
    with Engine(cached) as engine:
        engine.run(requests)
        engine.settle()
        follow(engine.take_events(), followed)
        assert tier_of(engine, "host").evicted > 0, "the host tier was never full"
        assert len(followed["CPU"]) == tier_of(engine, "host").num_ready
        assert len(followed["STORAGE"]) == tier_of(engine, "disk").num_ready
        for blocks in followed["CPU"], followed["STORAGE"]:
            agree = [name for name, about in followed["GPU"].items() if blocks.get(name, about) != about]
            assert not agree, "vLLM's own events say something else of the same blocks"
        assert followed["CPU"].keys() & followed["GPU"].keys(), "no block has the name that vLLM gives it"
        engine.close()


def test_what_a_slow_disk_writes_behind_the_last_answer_is_told_before_the_engine_sleeps(
    spec: EngineSpec, tmp_path: Path, seed: int
) -> None:
    (tmp_path / "cache").mkdir()
    request = replace(mixed_requests(seed, 1)[0], arrives_at=0, aborts_after=None, max_tokens=70)  # kept at its end
    slow = with_cache(spec, tmp_path / "cache", ssd_io_engine="threads")
    followed: Followed = {}
    with Engine(replace(slow, simulated=tmp_path / "cache", publishes_events=True)) as engine:
        engine.set_faults(DiskFaults(stall=1_000_000), stall_us=300_000)  # each write
        engine.run([request])
        engine.settle()
        follow(engine.take_events(), followed)
        assert len(followed["STORAGE"]) == tier_of(engine, "disk").num_ready > 0
        engine.close()


def test_blocks_from_before_a_restart_are_told_of_when_they_are_loaded(
    spec: EngineSpec, tmp_path: Path, seed: int
) -> None:
    longest = max(mixed_requests(seed, 20), key=lambda request: len(request.tokens))
    request = replace(longest, arrives_at=0, aborts_after=None)
    cached = replace(with_cache(spec, tmp_path / "cache"), publishes_events=True)
    with Engine(cached) as engine:
        engine.run_alone([request])
        engine.close()
    followed: Followed = {}
    with Engine(cached) as engine:
        follow(engine.take_events(), followed)
        assert not followed.get("CPU")
        answers = engine.run_alone([request])
        engine.settle()
        follow(engine.take_events(), followed)
        num_loaded = (len(request.tokens) - 1) // TOKENS_PER_BLOCK
        assert answers[request.name].cached_tokens == num_loaded * TOKENS_PER_BLOCK
        # The answer may have filled one more block.
        assert len(followed["CPU"]) == tier_of(engine, "host").num_ready >= num_loaded
        engine.close()
