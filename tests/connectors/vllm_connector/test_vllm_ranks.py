"""Workers in processes of their own, as the scheduler's process sees them: each rank stores and loads its share of a block.

The workers run in this process, one `RankWorker` for each rank with its own tensors; what vLLM carries between them is pickled.
"""

import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.connectors.vllm_connector.mini_vllm import BLOCK, MiniRequest, request
from tiercel import ConfigError
from tiercel.connectors.vllm.engine import SharedEngine
from tiercel.connectors.vllm.launching import Launcher
from tiercel.connectors.vllm.plans import RankPlan
from tiercel.connectors.vllm.rank_working import RankDescription, RankWorker, agreed_blocks
from tiercel.connectors.vllm.reach import meeting_place
from tiercel.connectors.vllm.scheduling import SchedulerSide
from tiercel.connectors.vllm.settings import read_settings

WAIT_S = 20.0
NUM_BLOCKS, LAYERS, HEADS, DIM = 32, 2, 4, 8


def _vllm_config(num_ranks: int, total_heads: int, name: str) -> Any:
    hf = SimpleNamespace(model_type="small")
    model = SimpleNamespace(
        hf_config=hf, dtype="float32", quantization=None, max_model_len=512, model="small", revision=None,
        code_revision=None, seed=0, get_total_num_kv_heads=lambda: total_heads,
    )  # fmt: skip
    return SimpleNamespace(
        model_config=model,
        parallel_config=SimpleNamespace(
            tensor_parallel_size=num_ranks, distributed_executor_backend="mp", data_parallel_index=0
        ),
        cache_config=SimpleNamespace(cache_dtype="auto"),
        load_config=SimpleNamespace(load_format="dummy", model_loader_extra_config={}),
        speculative_config=None,
        compilation_config=SimpleNamespace(static_forward_context={}),
        device_config=SimpleNamespace(device_type="cpu"),
        kv_transfer_config=SimpleNamespace(engine_id=name),
        instance_id="abcde",
    )


class RankedEngine:
    """Ranks with random KV, and the scheduler's half over them."""

    def __init__(
        self, num_ranks: int, *, total_heads: int = HEADS, latent: bool = False, name: str, **extra: object
    ) -> None:
        """extra: settings beside those of a small cache."""
        kind = "MLAAttentionSpec" if latent else "FullAttentionSpec"
        local_heads = 1 if latent else max(1, total_heads // num_ranks)
        spec = type(kind, (), {"block_size": BLOCK, "num_kv_heads": local_heads})()
        names = [f"layer{number}" for number in range(LAYERS)]
        group = SimpleNamespace(layer_names=names, kv_cache_spec=spec)
        kv_config = SimpleNamespace(kv_cache_groups=[group], num_blocks=NUM_BLOCKS)
        shape = (NUM_BLOCKS, BLOCK, DIM) if latent else (NUM_BLOCKS, 2, BLOCK, local_heads, DIM)
        self.tensors = [{name: torch.rand(shape) for name in names} for _ in range(num_ranks)]
        config = _vllm_config(num_ranks, total_heads, name)
        given = {"num_cpu_blocks": 64, "load_policy": "always", **extra}
        settings = read_settings(given, block_size=BLOCK, environ={})
        self.workers = [RankWorker(config, rank, settings) for rank in range(num_ranks)]
        for worker, tensors in zip(self.workers, self.tensors, strict=True):
            worker.register(config, kv_config, tensors, "0.32.0")
        described = {rank: pickle.loads(pickle.dumps(worker.describe())) for rank, worker in enumerate(self.workers)}
        self.engine = SharedEngine(name)
        self.engine.open_for_ranks(agreed_blocks(described, num_ranks), config, settings)
        assert not meeting_place(config).exists(), "nothing stays on disk once all have joined"
        self.scheduler, self.launcher = SchedulerSide(self.engine, settings), Launcher(self.engine, settings)

    def step(self, new: MiniRequest | None = None, *, marks: bool = True) -> tuple[set[str], set[str]]:
        """Schedule the whole of a new request, or nothing. Returns what every worker reported."""
        scheduled = {} if new is None else {new.request_id: new.num_tokens - new.num_computed_tokens}
        output = SimpleNamespace(
            num_scheduled_tokens=scheduled,
            scheduled_new_reqs=[]
            if new is None
            else [SimpleNamespace(req_id=new.request_id, block_ids=(new.block_ids,))],
            scheduled_cached_reqs=SimpleNamespace(req_ids=[], new_block_ids=[], resumed_req_ids=set()),
        )
        plan = pickle.loads(pickle.dumps(self.launcher.launch(self.scheduler.build_plan(output))))
        assert isinstance(plan, RankPlan)
        reported = []
        for worker in self.workers:
            worker.fence(plan)
            worker.begin(plan)
            worker.load(plan)
            if marks:
                worker.store(plan)
            reported.append((*worker.finished(set()), worker.take_failed_blocks()))
        assert all(each == reported[0] for each in reported), "vLLM takes as ended what all ranks report"
        sent, received, failed = reported[0]
        assert not failed
        self.scheduler.loads_ended(received)
        return sent, received

    def store(self, one: MiniRequest, blocks: list[int]) -> None:
        """Compute a request and end it."""
        one.block_ids = blocks
        self.scheduler.on_new_request(one)
        self.step(one)
        one.num_computed_tokens = one.num_tokens
        if self.scheduler.request_finished(one, blocks):
            self.until(one.request_id, sent=True)

    def until(self, name: str, *, sent: bool = False) -> None:
        deadline = time.monotonic() + WAIT_S
        while name not in self.step()[0 if sent else 1]:
            assert time.monotonic() < deadline, f"{name} was never reported"
            time.sleep(0.001)

    def load(self, one: MiniRequest, blocks: list[int]) -> int:
        """Load what is stored of a request. Returns the tokens."""
        self.scheduler.on_new_request(one)
        found = self.scheduler.num_new_matched_tokens(one, 0)[0] or 0
        self.scheduler.update_after_alloc(one, blocks, found)
        if found:
            self.until(one.request_id)
        return found

    def close(self) -> None:
        self.scheduler.close()
        self.launcher.close()
        for worker in self.workers:
            worker.close()
        self.engine.close()


@pytest.fixture
def made() -> Iterator[list[RankedEngine]]:
    engines: list[RankedEngine] = []
    yield engines
    for engine in engines:
        engine.close()


@pytest.mark.parametrize(
    ("num_ranks", "total_heads", "latent"), [(1, 4, False), (2, 4, False), (4, 2, False), (2, 1, True)]
)
def test_each_rank_gets_back_the_share_that_it_stored(
    made: list[RankedEngine], num_ranks: int, total_heads: int, latent: bool
) -> None:
    engine = RankedEngine(num_ranks, total_heads=total_heads, latent=latent, name=f"share{num_ranks}{latent}")
    made.append(engine)
    if latent or num_ranks > total_heads:  # ranks that hold the same hold the same bytes
        copies = num_ranks if latent else num_ranks // total_heads
        for rank in range(num_ranks):
            for name, tensor in engine.tensors[rank].items():
                tensor.copy_(engine.tensors[rank - rank % copies][name])
    before = [{name: tensor.clone() for name, tensor in tensors.items()} for tensors in engine.tensors]
    engine.store(request("a", 6 * BLOCK), [3, 1, 4, 5, 9, 2])
    assert engine.load(request("b", 6 * BLOCK), [20, 21, 22, 23, 24, 25]) == 5 * BLOCK
    for rank, tensors in enumerate(engine.tensors):
        for name, tensor in tensors.items():
            assert torch.equal(tensor[[20, 21, 22, 23, 24]], before[rank][name][[3, 1, 4, 5, 9]]), (
                f"rank {rank}, {name}"
            )
            assert torch.equal(tensor[:20], before[rank][name][:20])
            assert torch.equal(tensor[25:], before[rank][name][25:])


def test_nothing_is_stored_of_a_step_that_the_ranks_have_not_enqueued(made: list[RankedEngine]) -> None:
    engine = RankedEngine(2, name="order")
    made.append(engine)
    one = request("a", 2 * BLOCK)
    one.block_ids = [1, 2]
    engine.scheduler.on_new_request(one)
    engine.step(one, marks=False)
    (ticket,) = engine.engine.stores["a"]
    with pytest.raises(TimeoutError):
        ticket.wait(0.2)
    for worker in engine.workers:
        worker.store(RankPlan(step=1, marks_end=True))
    assert ticket.wait(WAIT_S).ok


def test_a_block_of_several_ranks_lies_in_one_run_for_each(made: list[RankedEngine]) -> None:
    engine = RankedEngine(2, name="runs")
    made.append(engine)
    cache = engine.engine.require_cache()
    geometry = cache.geometry
    assert (geometry.order, geometry.num_kv_heads, geometry.head_size) == ("head_token", 2, HEADS // 2 * DIM)


def test_workers_that_hold_different_blocks_are_refused_by_name(made: list[RankedEngine], tmp_path: Path) -> None:
    one, two = RankedEngine(1, name="one"), RankedEngine(2, name="two")
    made += [one, two]
    described = {0: one.workers[0].describe(), 1: two.workers[1].describe()}
    assert all(isinstance(each, RankDescription) for each in described.values())
    with pytest.raises(ConfigError, match=r"workers \[1\] keep other blocks"):
        agreed_blocks(described, 2)
    with pytest.raises(ConfigError, match=r"workers \[0\] of 2"):
        agreed_blocks({0: described[0]}, 2)
