"""What must hold of any engine that ran with Tiercel: right answers, and nothing held that nobody uses."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from tests.helpers.vllm_engine import Engine, EngineSpec
from tests.helpers.vllm_requests import Answer, Request, alone, same_numbers
from tiercel.telemetry.snapshot import TierStatus

ENOUGH_BLOCKS = 2000
"""More than any test stores."""


def with_cache(spec: EngineSpec, folder: Path | None = None, **settings: object) -> EngineSpec:
    """The engine with a cache in memory and, with a folder, on disk; both have enough blocks. It loads whatever it finds."""
    extra: dict[str, object] = {"load_policy": "always", "num_cpu_blocks": ENOUGH_BLOCKS}
    if folder is not None:
        extra |= {"enable_ssd": True, "ssd_cache_dir": str(folder), "num_ssd_blocks": ENOUGH_BLOCKS}
    return replace(spec, extra={**extra, **settings})


class Reference:
    """Answers of an engine without any cache, with room for everything. Made once for each request."""

    def __init__(self, spec: EngineSpec) -> None:
        self._engine = Engine(replace(spec, num_blocks=600, max_num_seqs=16, max_num_batched_tokens=1024))
        self._known: dict[tuple[tuple[int, ...], int], Answer] = {}

    def answers(self, requests: Iterable[Request]) -> dict[str, Answer]:
        requests = list(requests)
        new = [alone(request) for request in requests if (request.tokens, request.max_tokens) not in self._known]
        made = self._engine.run(new) if new else {}
        self._known |= {(request.tokens, request.max_tokens): made[request.name] for request in new}
        return {request.name: self._known[request.tokens, request.max_tokens] for request in requests}

    def check(self, requests: Iterable[Request], answers: Mapping[str, Answer]) -> None:
        """Assert that every answer is the engine's own, bit for bit; one cut short by an abort as far as it goes."""
        requests = list(requests)
        expected = self.answers(requests)
        for request in requests:
            answer, right = answers[request.name], expected[request.name]
            length = len(answer.tokens)
            assert answer.is_finished or request.aborts_after is not None, f"{request.name} was never answered"
            if answer.is_finished:
                assert length == len(right.tokens), f"{request.name}: {length} tokens"
            assert answer.tokens == right.tokens[:length], f"{request.name}: wrong tokens"
            assert same_numbers(answer, right), f"{request.name}: computed from wrong KV"

    def close(self) -> None:
        self._engine.close()


def tier_of(engine: Engine, name: str) -> TierStatus:
    (tier,) = [tier for tier in engine.status().tiers if tier.name == name]
    return tier


def check_nothing_is_held(engine: Engine, spec: EngineSpec) -> None:
    """Assert that no ticket runs, no block is pinned or half written, no slot is lost, and the engine has all its blocks."""
    engine.settle()
    status = engine.status()
    assert status.tickets == {"running": 0}
    for tier in status.tiers:
        assert (tier.num_pinned, tier.num_writing) == (0, 0), f"{tier.name}: pins or reservations were leaked"
        assert tier.num_free + tier.num_ready == tier.num_slots, f"{tier.name}: slots were leaked"
    engine.call("forget")
    assert engine.call("free_blocks") == spec.num_blocks - 1, "the engine's own blocks were leaked"


def check_hits(requests: Iterable[Request], answers: Mapping[str, Answer], expected: Mapping[str, int]) -> None:
    """Assert how many prompt tokens of each request were found."""
    found = {request.name: answers[request.name].cached_tokens for request in requests}
    assert found == dict(expected)
