"""Replays through the real cache: what is counted, what is checked, what is left behind."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.helpers.replay_samples import MODEL, TOKENS_PER_BLOCK, random_trace, settings, setup
from tests.helpers.seeds import chosen_seed
from tiercel import Cache, CacheConfig, ConfigError, ModelConfig, TierName
from tiercel.cache.assembly import assemble
from tiercel.costs import PrefillCurve
from tiercel.tiers.base import BlockMemory, Slots, Statuses, Tier
from tiercel.tiers.faulty import FaultyTier, TierFaults
from tiercel.tiers.wrapper import TierWrapper
from tiercel.tune.replay import FOLDER, Pace, replay
from tiercel.tune.replay.memory import EngineBuffers
from tiercel.tune.traces import Trace, TraceBuilder

HOST, DISK = TierName.HOST, TierName.DISK


def leading_hits(trace: Trace) -> list[int]:
    """Blocks of each request that an unbounded cache gives back, by a plain model: prefixes of tokens in a set."""
    stored: set[bytes] = set()
    hits = []
    for request in range(trace.num_requests):
        tokens = trace.tokens(request)
        own = np.full(max(0, int(trace.output_tokens[request]) - 1), trace.num_blocks + request, np.int32)
        limit = max(0, len(tokens) - 1) // TOKENS_PER_BLOCK
        count = 0
        while count < limit and tokens[: (count + 1) * TOKENS_PER_BLOCK].tobytes() in stored:
            count += 1
        hits.append(count)
        whole = np.concatenate([tokens, own])
        for block in range(len(whole) // TOKENS_PER_BLOCK):
            stored.add(whole[: (block + 1) * TOKENS_PER_BLOCK].tobytes())
    return hits


@pytest.mark.parametrize("pace", list(Pace))
@pytest.mark.parametrize("tier", [HOST, DISK])
def test_a_cache_that_holds_all_gives_back_every_block_that_came_before(
    tmp_path: Path, tier: TierName, pace: Pace
) -> None:
    trace = random_trace(chosen_seed(), span_s=0.3)
    sizes = {"host": 2000} if tier is HOST else {"host": 0, "disk": 2000}
    report = replay(trace, setup(settings(tmp_path, **sizes), pace=pace))
    expected = leading_hits(trace)
    assert report.wrong_blocks == report.failed_blocks == 0
    assert not report.result.refused
    assert not report.faults
    assert report.restored_blocks == report.result.hit_blocks[tier].sum() == report.result.tiers[tier].blocks_read
    if pace is Pace.LOCKSTEP:  # in real time a block may still be on its way when it is asked for again
        assert report.result.hit_blocks[tier].tolist() == expected
    assert (report.result.hit_blocks[tier] <= expected).all()


@pytest.mark.parametrize("admission", ["through", "on_second_hit", "on_evict"])
@pytest.mark.parametrize("policy", ["lru", "2q", "lfu", "arc"])
def test_a_lockstep_replay_comes_to_the_same_hits_every_time(tmp_path: Path, admission: str, policy: str) -> None:
    trace = random_trace(chosen_seed())
    config = settings(tmp_path, host=16, disk=48, ssd_admission=admission, eviction_policy=policy)
    first, second = replay(trace, setup(config)).result, replay(trace, setup(config)).result
    for tier in (HOST, DISK):
        assert_array_equal(first.hit_blocks[tier], second.hit_blocks[tier])
        assert first.tiers[tier].blocks_written == second.tiers[tier].blocks_written
        assert first.tiers[tier].evicted == second.tiers[tier].evicted


class LyingTier(TierWrapper):
    """A tier that changes one byte of a block and says that it is fine."""

    def __init__(self, inner: Tier, *, byte: int) -> None:
        super().__init__(inner)
        self._reads, self._byte = 0, byte

    def read(self, slots: Slots, target: BlockMemory) -> Statuses:
        statuses = self._inner.read(slots, target)
        self._reads += 1
        if self._reads == 3:
            scratch = np.zeros(self.block_bytes, np.uint8)
            where = np.array([scratch.ctypes.data], np.uint64)
            target.slice(0, 1).gather(where)
            scratch[self._byte] ^= 1
            target.slice(0, 1).scatter(where)
        return statuses


@pytest.mark.parametrize("byte", [0, 239, 479])
def test_one_wrong_byte_in_one_block_is_noticed_and_named(tmp_path: Path, byte: int) -> None:
    def open_lying(model: ModelConfig, config: CacheConfig) -> Cache:
        assembly = assemble(model, config)
        return Cache(dataclasses.replace(assembly, tiers={HOST: LyingTier(assembly.tiers[HOST], byte=byte)}))

    report = replay(random_trace(7), setup(settings(tmp_path)), open_cache=open_lying)
    assert report.wrong_blocks == 1 < report.restored_blocks
    assert report.wrong[0].startswith("block 0 of a prompt (key ")


def test_blocks_that_a_tier_loses_are_recomputed_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    faults = TierFaults(seed=chosen_seed(), corrupt_rate=0.2, write_error_rate=0.1)

    def open_faulty(model: ModelConfig, config: CacheConfig) -> Cache:
        assembly = assemble(model, config)
        return Cache(dataclasses.replace(assembly, tiers={HOST: FaultyTier(assembly.tiers[HOST], faults)}))

    report = replay(random_trace(7, num_requests=150), setup(settings(tmp_path)), open_cache=open_faulty)
    assert report.wrong_blocks == 0 < report.failed_blocks
    assert report.faults["host"] > report.failed_blocks  # those that could not be written, too
    assert not [record for record in caplog.records if record.exc_info], "the tier failed blocks, not calls"
    assert report.restored_blocks == report.result.hit_blocks[HOST].sum()


def test_what_a_block_held_before_is_never_taken_for_what_was_loaded(tmp_path: Path) -> None:
    class IdleTier(TierWrapper):
        def read(self, slots: Slots, target: BlockMemory) -> Statuses:
            return np.zeros(len(slots), np.uint8)

    def open_idle(model: ModelConfig, config: CacheConfig) -> Cache:
        assembly = assemble(model, config)
        return Cache(dataclasses.replace(assembly, tiers={HOST: IdleTier(assembly.tiers[HOST])}))

    builder = TraceBuilder("again", tokens_per_block=TOKENS_PER_BLOCK)
    for _ in range(2):  # the second prompt is loaded into the memory that the first one was computed in
        builder.add([0, 1, 2, 3], arrival_s=0.0, input_tokens=3 * TOKENS_PER_BLOCK + 1)
    report = replay(builder.build(), setup(settings(tmp_path)), open_cache=open_idle)
    assert report.wrong_blocks == report.restored_blocks == 3


def test_turns_of_a_conversation_wait_for_the_answer_before(tmp_path: Path) -> None:
    builder = TraceBuilder("closed", tokens_per_block=TOKENS_PER_BLOCK)
    before = builder.add([0, 1], arrival_s=0.0, input_tokens=8, output_tokens=3)
    builder.add([0, 1, 2], arrival_s=0.0, input_tokens=12, output_tokens=1, after=before, delay_s=0.1)
    builder.add([5], arrival_s=0.01, input_tokens=4, output_tokens=1)
    prefill = PrefillCurve(token_s=0.01)
    outcome = replay(
        builder.build(),
        setup(settings(tmp_path), pace=Pace.REALTIME, speedup=2.0, prefill=prefill, decode_token_s=0.03),
    ).result
    assert outcome.hit_blocks[HOST].tolist() == [0, 2, 0]
    ended_s, arrived_s = outcome.ended_s, outcome.arrived_s
    assert arrived_s[1] == pytest.approx(ended_s[0] + 0.05)
    assert arrived_s[2] == pytest.approx(0.005)
    assert outcome.started_s[1] >= arrived_s[1]
    assert outcome.started_s[2] >= outcome.first_token_s[0] >= 0.08
    assert ended_s[0] == pytest.approx(outcome.first_token_s[0] + 2 * 0.03)


def test_speedup_brings_arrivals_closer_together(tmp_path: Path) -> None:
    trace = random_trace(5, num_requests=20, span_s=1.0)
    outcome = replay(trace, setup(settings(tmp_path), pace=Pace.REALTIME, speedup=10.0)).result
    assert_array_equal(outcome.arrived_s, trace.arrivals_s / 10)
    assert outcome.ended_s.max() >= trace.span_s / 10
    with pytest.raises(ValueError, match="speedup = 0"):
        setup(settings(tmp_path), speedup=0)


def test_a_replay_keeps_to_a_folder_of_its_own_and_removes_it(tmp_path: Path) -> None:
    with Cache.open(MODEL, settings(tmp_path, host=0, disk=16)) as cache:
        before = sorted(tmp_path.rglob("*"))
        replay(random_trace(1), setup(settings(tmp_path, host=8, disk=16)))
        assert sorted(tmp_path.rglob("*")) == before
        assert cache.stats().tiers[0].num_ready == 0


def test_blocks_that_an_interrupted_replay_left_are_not_hit(tmp_path: Path) -> None:
    chosen = setup(settings(tmp_path, host=0, disk=500))
    trace = random_trace(1, num_requests=300)
    expected = replay(trace, chosen).result.hit_blocks[DISK]

    def interrupt(done: int, _total: int) -> None:
        if done == 256:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(trace, chosen, progress=interrupt)
    assert not (tmp_path / FOLDER).exists()
    with Cache.open(
        chosen.cache_model, chosen.cache_config
    ) as cache:  # as after a SIGKILL: the folder is there, and warm
        buffers = EngineBuffers(cache.geometry, 8, copy_threads=1)
        cache.store(
            cache.sequence(trace.tokens(int(trace.input_tokens.argmax()))), buffers.blocks(buffers.take(8))
        ).wait()
        assert cache.stats().tiers[0].num_ready == 8
    assert (tmp_path / FOLDER).exists()
    assert_array_equal(replay(trace, chosen).result.hit_blocks[DISK], expected)


def test_what_does_not_fit_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    builder = TraceBuilder("long", tokens_per_block=TOKENS_PER_BLOCK)
    builder.add([], arrival_s=0.0, input_tokens=2**50)
    with pytest.raises(ConfigError, match="the replayed engine"):
        replay(builder.build(), setup(settings(tmp_path, host=8, disk=8)))
    with pytest.raises(ConfigError, match="num_cpu_blocks"):
        replay(random_trace(1), setup(settings(tmp_path, host=2**31, disk=8)))
    assert not list(tmp_path.iterdir())


def test_a_trace_without_requests_or_without_full_blocks_is_replayed(tmp_path: Path) -> None:
    empty = replay(TraceBuilder("none", tokens_per_block=4).build(), setup(settings(tmp_path)))
    assert empty.restored_blocks == 0
    assert len(empty.result.ttft_s) == 0
    builder = TraceBuilder("short", tokens_per_block=TOKENS_PER_BLOCK)
    for _ in range(3):
        builder.add([0], arrival_s=0.0, input_tokens=3, output_tokens=0)
    for pace in Pace:
        short = replay(builder.build(), setup(settings(tmp_path), pace=pace)).result
        assert short.full_blocks.tolist() == [0, 0, 0] == short.hit_blocks[HOST].tolist()
