"""Real vLLM over Tiercel gives the answers that it gives alone, bit for bit, and finds what a plain dict says it must."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.vllm_checks import Reference, check_hits, check_nothing_is_held, tier_of, with_cache
from tests.helpers.vllm_engine import TOKENS_PER_BLOCK, Engine, EngineSpec, why_no_vllm
from tests.helpers.vllm_requests import Request, StoredBlocks, alone, mixed_requests, same_numbers

pytestmark = [
    pytest.mark.skipif(bool(why_no_vllm()), reason=f"{why_no_vllm()}: the vLLM connector is NOT tested"),
    pytest.mark.timeout(600),
]

REQUESTS_A_LIFE = 80


def test_hundreds_of_mixed_requests_over_three_lives_get_the_engines_own_answers(
    spec: EngineSpec, reference: Reference, tmp_path: Path, seed: int
) -> None:
    requests = mixed_requests(seed, 3 * REQUESTS_A_LIFE)
    cached = with_cache(spec, tmp_path / "cache", num_cpu_blocks=60)
    preempted = read = 0
    for life, start in enumerate(range(0, len(requests), REQUESTS_A_LIFE)):
        now = [
            replace(request, arrives_at=request.arrives_at - requests[start].arrives_at)
            for request in requests[start : start + REQUESTS_A_LIFE]
        ]
        with Engine(cached) as engine:
            answers = engine.run(now)
            reference.check(now, answers)
            preempted += sum(answer.was_preempted for answer in answers.values())
            check_nothing_is_held(engine, cached)
            if life:
                read += tier_of(engine, "disk").blocks_read
            assert tier_of(engine, "host").evicted > 0, "the host tier was never full"
            # A store may end early, where vLLM needs the blocks of a request that it puts off.
            given_up = engine.status().activity.recompute.keys() - {"store: NO_ROOM"}
            assert given_up <= {"load: CANCELLED"}, "only aborts end loads"
            if life == 0:
                engine.kill()
            else:
                engine.close()
    assert preempted, "no request was preempted"
    assert read, "nothing was read back after a restart"


@pytest.mark.parametrize("tiers", ["host", "disk"])
def test_one_tier_by_itself_serves_mixed_requests(
    spec: EngineSpec, reference: Reference, tmp_path: Path, seed: int, tiers: str
) -> None:
    requests = mixed_requests(seed, 60)
    cached = with_cache(spec) if tiers == "host" else with_cache(spec, tmp_path / "cache", enable_cpu=False)
    with Engine(cached) as engine:
        reference.check(requests, engine.run(requests))
        again = engine.run_alone(requests[:20])
        reference.check(requests[:20], again)
        assert tier_of(engine, tiers).blocks_read > 0
        check_nothing_is_held(engine, cached)
        engine.close()


def test_hits_are_those_of_a_plain_dict_before_and_after_a_restart(
    spec: EngineSpec, reference: Reference, tmp_path: Path, seed: int
) -> None:
    requests = [request for request in mixed_requests(seed, 40) if request.aborts_after is None][:30]
    cached = with_cache(spec, tmp_path / "cache")
    stored = StoredBlocks(TOKENS_PER_BLOCK)
    expected: dict[str, int] = {}
    for request, answer in zip(requests, reference.answers(requests).values(), strict=True):
        expected[request.name] = stored.hit_tokens(request)
        stored.add(request, answer)
    assert sum(expected.values()), "no request shares a block with one before it"
    with Engine(cached) as engine:
        answers = engine.run_alone(requests)
        reference.check(requests, answers)
        check_hits(requests, answers, expected)
        check_nothing_is_held(engine, cached)
        assert tier_of(engine, "disk").num_ready == len(stored.blocks)
        engine.close()
    with Engine(cached) as engine:
        assert tier_of(engine, "disk").num_ready == len(stored.blocks)
        answers = engine.run_alone(requests)
        reference.check(requests, answers)
        check_hits(requests, answers, {request.name: stored.hit_tokens(request) for request in requests})
        check_nothing_is_held(engine, cached)
        engine.close()


def test_a_salt_keeps_what_was_stored_under_it_to_itself(spec: EngineSpec, reference: Reference, seed: int) -> None:
    prompt = mixed_requests(seed, 20)
    longest = max(prompt, key=lambda request: len(request.tokens)).tokens
    requests = [
        Request(name=f"{salt}{turn}", tokens=longest, salt=salt) for turn in range(2) for salt in (None, "a", "b")
    ]
    cached = with_cache(spec)
    with Engine(cached) as engine:
        answers = engine.run_alone(requests)
        check_nothing_is_held(engine, cached)
        engine.close()
    reference.check(requests, answers)
    full = (len(longest) - 1) // TOKENS_PER_BLOCK * TOKENS_PER_BLOCK
    check_hits(requests, answers, {request.name: full * int(request.name[-1]) for request in requests})


def test_many_requests_with_one_prompt_at_once_store_it_once(spec: EngineSpec, reference: Reference, seed: int) -> None:
    longest = max(mixed_requests(seed, 20), key=lambda request: len(request.tokens)).tokens
    requests = [Request(name=f"r{number}", tokens=longest, max_tokens=1) for number in range(6)]
    cached = with_cache(replace(spec, options={"enable_prefix_caching": False}))
    with Engine(cached) as engine:
        reference.check(requests, engine.run(requests))
        check_nothing_is_held(engine, cached)
        host = tier_of(engine, "host")
        assert host.blocks_written == host.num_ready == len(longest) // TOKENS_PER_BLOCK
        engine.close()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_kv_of_any_type_comes_back_as_the_bits_that_the_engine_had(spec: EngineSpec, seed: int, dtype: str) -> None:
    requests = [request for request in mixed_requests(seed, 30) if len(request.tokens) > 100][:6]
    cached = with_cache(replace(spec, dtype=dtype))
    with Engine(cached) as engine:
        for request in requests:
            engine.run_alone([request])
            kept = engine.run([alone(request)])[request.name]
            restored = engine.run_alone([request])[request.name]
            assert restored.cached_tokens == kept.cached_tokens > 0
            assert restored.tokens == kept.tokens
            assert same_numbers(restored, kept)
        check_nothing_is_held(engine, cached)
        engine.close()
