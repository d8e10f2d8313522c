"""The whole cache over tiers that fail: whatever happens, no wrong byte, no leak, no hang."""

import gc
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import BlockStatus, Cache, Outcome, TierName
from tiercel.cache.assembly import assemble
from tiercel.errors import DeadlineError, ThrottledError, TierFailedError
from tiercel.tiers.base import Tier
from tiercel.tiers.faulty import FaultyTier, TierFaults
from tiercel.tiers.throttled import ThrottledTier, TierLimits


def open_with(
    directory: Path, wrap: Callable[[Tier], Tier], *, host: int = 64, disk: int = 256, **settings: object
) -> Cache:
    """A cache whose disk tier is wrapped."""
    assembly = assemble(MODEL, config(directory, host=host, disk=disk, **settings))
    return Cache(replace(assembly, tiers={**assembly.tiers, TierName.DISK: wrap(assembly.tiers[TierName.DISK])}))


def assert_nothing_is_held(cache: Cache) -> None:
    gc.collect()
    cache._assembly.control.index.check()
    for tier in cache.stats().tiers:
        assert (tier.num_pinned, tier.num_writing) == (0, 0), f"{tier.name}: pins or reservations were leaked"
        assert tier.num_free + tier.num_ready == tier.num_slots, f"{tier.name}: slots were leaked"


def push_to_disk(cache: Cache, engine: SmallEngine, num_blocks: int = 64) -> None:
    """Fill the host tier with something else."""
    other = cache.sequence(tokens(num_blocks, seed=999))
    cache.store(other, engine.fill(other, at=128)).wait(10)


def test_a_corrupt_block_ends_the_hit_there_and_is_forgotten(tmp_path: Path) -> None:
    with open_with(tmp_path, lambda disk: FaultyTier(disk, TierFaults(seed=3, corrupt_rate=0.3))) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(20, seed=1))
        cache.store(sequence, engine.fill(sequence)).wait(10)
        push_to_disk(cache, engine)
        engine.poison()
        result = cache.load(sequence, engine.blocks(0, 20)).wait(10)
        assert result.num_blocks_ok < 20
        assert result.statuses[result.num_blocks_ok] == BlockStatus.CORRUPT
        engine.check(sequence, result.num_blocks_ok)
        with cache.lookup(sequence) as lookup:
            assert lookup.matched_blocks == result.num_blocks_ok
        assert_nothing_is_held(cache)


def test_a_disk_that_fails_altogether_costs_misses_not_errors(tmp_path: Path) -> None:
    with open_with(tmp_path, lambda disk: FaultyTier(disk, TierFaults(fail_after_calls=2))) as cache:
        engine = SmallEngine(cache.geometry)
        sequences = [cache.sequence(tokens(20, seed=seed)) for seed in range(6)]
        for sequence in sequences:
            result = cache.store(sequence, engine.fill(sequence)).wait(10)
            assert result.ok
            assert result.blocks_by_tier[TierName.HOST] == 20
        engine.poison()
        result = cache.load(cache.sequence(tokens(20, seed=0)), engine.blocks(0, 20)).wait(10)
        assert result.num_blocks_ok < 20
        result = cache.load(sequences[-1], engine.blocks(0, 20)).wait(10)
        assert result.num_blocks_ok == 20
        engine.check(sequences[-1], 20)
        assert_nothing_is_held(cache)


def test_a_full_disk_leaves_the_host_copy(tmp_path: Path) -> None:
    with open_with(tmp_path, lambda disk: FaultyTier(disk, TierFaults(no_space_rate=1.0))) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(10, seed=2))
        result = cache.store(sequence, engine.fill(sequence)).wait(10)
        assert result.ok
        assert result.blocks_by_tier == {TierName.HOST: 10, TierName.DISK: 0}
        assert_nothing_is_held(cache)


class StallingTier:
    """A tier whose reads wait for a gate."""

    def __init__(self, inner: Tier) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self._inner = inner

    def read(self, *args: object) -> object:
        self.gate.wait(30)
        return self._inner.read(*args)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


def open_stalling(directory: Path) -> tuple[Cache, threading.Event]:
    """A cache whose disk reads wait while the event is clear."""
    stalling: list[StallingTier] = []

    def wrap(disk: Tier) -> Tier:
        stalling.append(StallingTier(disk))
        return stalling[0]  # type: ignore[return-value]

    cache = open_with(directory, wrap)
    return cache, stalling[0].gate


def test_a_stalled_device_costs_the_deadline_and_memory_is_left_alone_after_it(tmp_path: Path) -> None:
    cache, gate = open_stalling(tmp_path)
    with cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(20, seed=4))
        cache.store(sequence, engine.fill(sequence)).wait(10)
        push_to_disk(cache, engine)
        engine.poison()
        gate.clear()
        started = time.monotonic()
        result = cache.load(sequence, engine.blocks(0, 20), timeout_s=0.2).wait(5)
        assert time.monotonic() - started < 2
        assert result.outcome is Outcome.DEADLINE
        assert result.num_blocks_ok == 0
        hot = cache.sequence(tokens(64, seed=999))
        in_host = cache.load(hot, engine.blocks(64, 128), limit_tokens=40 * 16)
        assert in_host.wait(5).num_blocks_ok == 40, "a stalled disk must not hold up the host tier"
        engine.poison()
        gate.set()
        deadline = time.monotonic() + 10
        while cache.stats().tickets["running"] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert all((array == 0xEE).all() for array in engine.keys), "the engine's memory was touched after the deadline"
        assert_nothing_is_held(cache)


def test_reset_waits_for_the_device_and_says_so_if_it_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiercel.cache.core._RESET_TIMEOUT_S", 0.2)
    cache, gate = open_stalling(tmp_path)
    with cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(20, seed=5))
        cache.store(sequence, engine.fill(sequence)).wait(10)
        push_to_disk(cache, engine)
        gate.clear()
        ticket = cache.load(sequence, engine.blocks(0, 20))
        time.sleep(0.05)
        with pytest.raises(DeadlineError, match="reset again"):
            cache.reset()
        assert ticket.wait(1).outcome is Outcome.CANCELLED
        gate.set()
        time.sleep(0.1)
        cache.reset()
        assert cache.lookup(sequence).matched_blocks == 0
        assert_nothing_is_held(cache)


def test_loads_go_ahead_of_stores_on_a_slow_disk(tmp_path: Path) -> None:
    limits = TierLimits(write_bytes_per_s=2e6)
    with open_with(tmp_path, lambda disk: ThrottledTier(disk, limits), transfer_chunk_bytes=32768) as cache:
        engine = SmallEngine(cache.geometry)
        first = cache.sequence(tokens(20, seed=6))
        cache.store(first, engine.fill(first)).wait(20)
        push_to_disk(cache, engine)
        slow = cache.sequence(tokens(100, seed=7))
        store = cache.store(slow, engine.fill(slow, at=0))
        result = cache.load(first, engine.blocks(200, 220)).wait(10)
        assert result.ok
        assert not store.done
        assert store.wait(30).kind.value == "store"
        engine.check(first, 20, at=200)


def test_random_operations_from_many_threads_over_a_failing_disk(tmp_path: Path) -> None:
    seed = int(os.environ.get("TIERCEL_TEST_SEED", random.randrange(2**32)))
    sys.stdout.write(f"TIERCEL_TEST_SEED={seed}\n")
    faults = TierFaults(
        seed=seed, read_error_rate=0.02, corrupt_rate=0.02, missing_rate=0.02, write_error_rate=0.05, no_space_rate=0.02
    )
    failures: list[BaseException] = []
    with open_with(
        tmp_path, lambda disk: FaultyTier(disk, faults), host=48, disk=128, transfer_chunk_bytes=16384
    ) as cache:

        def work(worker: int) -> None:
            rng = random.Random(seed + worker)
            engine = SmallEngine(cache.geometry, 64)
            try:
                for _ in range(150):
                    one_operation(cache, engine, rng)
            except BaseException as error:
                failures.append(error)
                raise

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
            assert not thread.is_alive(), f"hang; seed {seed}"
        assert not failures, f"seed {seed}: {failures}"
        deadline = time.monotonic() + 10
        while cache.stats().tickets["running"] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert_nothing_is_held(cache)


def one_operation(cache: Cache, engine: SmallEngine, rng: random.Random) -> None:
    """Store, load or prefetch a random conversation of a few shared ones; cancel or forget some."""
    prompt = np.concatenate(
        [tokens(rng.randint(1, 8), seed=rng.randrange(3)), tokens(rng.randint(0, 12), seed=rng.randrange(50))]
    )
    sequence = cache.sequence(prompt, namespace=rng.choice(["", "a"]))
    choice = rng.random()
    try:
        if choice < 0.4:
            ticket = cache.store(sequence, engine.fill(sequence))
        elif choice < 0.8:
            engine.poison()
            ticket = cache.load(sequence, engine.blocks(0, sequence.num_blocks))
        elif choice < 0.9:
            ticket = cache.prefetch(sequence)
        else:
            cache.lookup(sequence)
            return
    except ThrottledError:
        return
    if rng.random() < 0.2:
        ticket.cancel()
    result = ticket.wait(20)
    if result.kind.value == "load":
        engine.check(sequence, result.num_blocks_ok)


def test_a_reset_that_cannot_be_made_durable_says_so_and_works_when_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cache.open(MODEL, config(tmp_path, host=16, disk=64)) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(8, seed=1))
        cache.store(sequence, engine.fill(sequence)).wait(10)
        disk = cache._assembly.disk
        assert disk is not None
        with monkeypatch.context() as patched:
            patched.setattr(disk._records, "checkpoint", lambda order: (_ for _ in ()).throw(OSError(28, "no space")))
            with pytest.raises(TierFailedError, match="reset again"):
                cache.reset()
        assert cache.lookup(sequence).matched_blocks == 0
        cache.reset()
    with Cache.open(MODEL, config(tmp_path, host=16, disk=64)) as cache:
        assert cache.lookup(cache.sequence(tokens(8, seed=1))).matched_blocks == 0


def test_a_submission_that_is_interrupted_before_it_was_taken_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cache.open(MODEL, config(tmp_path, host=16, disk=64)) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(8, seed=1))
        source = engine.fill(sequence)
        with monkeypatch.context() as patched:
            patched.setattr(cache._dispatcher.transfer, "submit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
            with pytest.raises(KeyboardInterrupt):
                cache.store(sequence, source)
        assert cache.stats().tickets["running"] == 0
        assert_nothing_is_held(cache)
        assert cache.store(sequence, source).wait(10).ok
