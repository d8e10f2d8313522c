"""What the other tests here rest on: an engine whose answers are the same bits each time, and show wrong KV."""

import pytest

from tests.helpers.vllm_engine import Engine, EngineSpec, why_no_vllm
from tests.helpers.vllm_requests import mixed_requests, same_numbers

pytestmark = [
    pytest.mark.skipif(bool(why_no_vllm()), reason=f"{why_no_vllm()}: the vLLM connector is NOT tested"),
    pytest.mark.timeout(600),
]


def test_an_answer_is_the_same_bits_whatever_else_the_engine_does(spec: EngineSpec, seed: int) -> None:
    requests = mixed_requests(seed, 80)
    with Engine(spec) as engine:
        together = engine.run(requests)
        finished = [request for request in requests if together[request.name].is_finished]
        by_itself = engine.run_alone(finished)
        engine.close()
    assert len(finished) < len(requests), "none was aborted"
    assert any(answer.was_preempted for answer in together.values()), "there was room for all"
    assert sum(answer.cached_tokens for answer in together.values()), "nothing was shared"
    for request in finished:
        assert together[request.name].tokens == by_itself[request.name].tokens, request.name
        assert same_numbers(together[request.name], by_itself[request.name]), request.name


def test_a_small_change_of_cached_kv_shows_in_the_answer(spec: EngineSpec, seed: int) -> None:
    requests = [request for request in mixed_requests(seed, 30) if len(request.tokens) > 100][:3]
    with Engine(spec) as engine:
        for request in requests:
            expected = engine.run_alone([request])[request.name]
            again = engine.run([request])[request.name]
            assert again.cached_tokens > 0
            assert same_numbers(again, expected)
            engine.call("spoil_memory")
            spoiled = engine.run([request])[request.name]
            assert spoiled.cached_tokens > 0
            assert not same_numbers(spoiled, expected)
