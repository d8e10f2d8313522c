"""Orders of events between operations that share blocks, made to happen with gates, so that each test meets its race."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import Cache, Lookup, Sequence, TierName
from tiercel.cache.assembly import assemble
from tiercel.errors import ThrottledError
from tiercel.layout import EngineBlocks
from tiercel.tiers.base import Addresses, BlockMemory, Slots, Statuses, Tier


class GatedBlocks:
    """Engine blocks that are copied neither out nor in before a gate opens; a `BlockMemory`."""

    def __init__(self, blocks: EngineBlocks, gate: threading.Event, entered: threading.Event) -> None:
        self._blocks, self._gate, self._entered = blocks, gate, entered
        self.memory, self.num_blocks, self.are_distinct = blocks.memory, blocks.num_blocks, blocks.are_distinct
        self.addresses = None

    def scatter(self, sources: Addresses) -> None:
        self._entered.set()
        assert self._gate.wait(30)
        self._blocks.scatter(sources)

    def gather(self, targets: Addresses) -> None:
        self._entered.set()
        assert self._gate.wait(30)
        self._blocks.gather(targets)

    def slice(self, start: int, stop: int) -> "GatedBlocks":
        return GatedBlocks(self._blocks.slice(start, stop), self._gate, self._entered)


class GatedTier:
    """A tier whose reads and writes each wait for a gate."""

    def __init__(self, inner: Tier) -> None:
        self.reads, self.writes = threading.Event(), threading.Event()
        self.reads.set()
        self.writes.set()
        self.slots_read: set[int] = set()
        self._inner = inner

    def read(self, slots: Slots, target: BlockMemory) -> Statuses:
        self.slots_read |= set(slots.tolist())
        assert self.reads.wait(30)
        return self._inner.read(slots, target)

    def write(self, *args: object) -> object:
        assert self.writes.wait(30)
        return self._inner.write(*args)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


class Scene:
    """A cache with a gate at its disk and one at the way from the engine to the host tier."""

    def __init__(self, directory: Path) -> None:
        assembly = assemble(MODEL, config(directory, host=64, disk=512))
        self.disk = GatedTier(assembly.tiers[TierName.DISK])
        tiers: dict[TierName, Tier] = {**assembly.tiers, TierName.DISK: self.disk}  # type: ignore[dict-item]
        self.cache = Cache(replace(assembly, tiers=tiers))
        self.engine = SmallEngine(self.cache.geometry, 512)
        self.host_lane = threading.Event()

    def store(self, seed: int, num_blocks: int, *, at: int = 0) -> None:
        sequence = self.cache.sequence(tokens(num_blocks, seed=seed))
        assert self.cache.store(sequence, self.engine.fill(sequence, at=at)).wait(10).ok

    def hold_host_lane(self) -> None:
        """Keep stores from reaching the host tier until `host_lane` is set."""
        sequence = self.cache.sequence(tokens(1, seed=7777))
        entered = threading.Event()
        blocks = GatedBlocks(self.engine.fill(sequence, at=500), self.host_lane, entered)
        self.cache.store(sequence, blocks)  # type: ignore[arg-type]
        assert entered.wait(10)

    def hold_host_loads(self, seed: int) -> None:
        """Keep loads from the host tier from starting until `host_lane` is set, with one block of a sequence it has."""
        sequence = self.cache.sequence(tokens(1, seed=seed))
        for at in (501, 502):  # one for each worker
            entered = threading.Event()
            blocks = GatedBlocks(self.engine.blocks(at, at + 1), self.host_lane, entered)
            self.cache.load(sequence, blocks)  # type: ignore[arg-type]
            assert entered.wait(10)

    def wait_for(self, queue: str, depth: int) -> None:
        """Wait until so many moves are in a queue."""
        deadline = time.monotonic() + 10
        while self.cache.stats().queue_depths[queue] != depth:
            assert time.monotonic() < deadline, f"{queue} does not get to {depth}"
            time.sleep(0.005)

    def lookup_once(self, sequence: Sequence, segments: list[tuple[TierName, int]]) -> Lookup:
        """Look a sequence up when its blocks lie as given."""
        deadline = time.monotonic() + 10
        while True:
            lookup = self.cache.lookup(sequence)
            if [(s.tier, s.num_blocks) for s in lookup.segments] == segments:
                return lookup
            assert time.monotonic() < deadline, f"{lookup.segments} instead of {segments}"
            time.sleep(0.005)

    def settle(self) -> None:
        """Wait until no operation runs."""
        deadline = time.monotonic() + 10
        while self.cache.stats().tickets["running"]:
            assert time.monotonic() < deadline, "an operation does not end"
            time.sleep(0.005)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    with made.cache:
        yield made
        made.settle()
        made.cache._assembly.control.index.check()
        for tier in made.cache.stats().tiers:
            assert tier.num_free + tier.num_ready == tier.num_slots, f"{tier.name}: slots were leaked"


def attach_and_lose_the_first_half(scene: Scene) -> None:
    """Blocks 0 to 4 of sequence 1 lie on disk. One store brings them to the host tier, a second one attaches and adds 5 to 9;
    the first is cancelled, so that the host tier keeps none, while the disk goes on to take the second's blocks from there."""
    scene.store(1, 5)
    scene.store(2, 64, at=100)  # takes the whole host tier
    scene.hold_host_lane()
    half, whole = (scene.cache.sequence(tokens(10, seed=1)[: n * 16]) for n in (5, 10))
    first = scene.cache.store(half, scene.engine.fill(half))
    scene.disk.writes.clear()
    second = scene.cache.store(whole, scene.engine.fill(whole))
    first.cancel()
    scene.host_lane.set()
    second.wait_source(10)


def test_host_slots_are_not_reused_while_the_disk_still_copies_from_them(scene: Scene) -> None:
    attach_and_lose_the_first_half(scene)
    other = scene.cache.sequence(tokens(40, seed=3))
    scene.cache.store(other, scene.engine.fill(other, at=200)).wait_source(10)
    scene.disk.writes.set()
    scene.settle()
    scene.engine.poison()
    sequence = scene.cache.sequence(tokens(10, seed=1))
    result = scene.cache.load(sequence, scene.engine.blocks(0, 10)).wait(10)
    scene.engine.check(sequence, result.num_blocks_ok)


def test_host_blocks_lost_between_lookup_and_launch_are_not_read_from_the_disk_under_their_host_slots(
    scene: Scene,
) -> None:
    scene.store(1, 12)
    scene.store(2, 64, at=100)  # takes the whole host tier
    scene.hold_host_lane()
    sequence = scene.cache.sequence(tokens(12, seed=1))
    half = scene.cache.sequence(tokens(12, seed=1)[: 5 * 16])
    first = scene.cache.store(half, scene.engine.fill(half))
    scene.cache.prefetch(sequence, limit_tokens=10 * 16)  # waits for the store of the first five
    lookup = scene.lookup_once(sequence, [(TierName.DISK, 5), (TierName.HOST, 5), (TierName.DISK, 2)])
    first.cancel()
    scene.disk.slots_read.clear()
    result = scene.cache.load(lookup, scene.engine.blocks(0, 12)).wait(10)
    scene.host_lane.set()
    assert result.num_blocks_ok >= 5
    _, keys, slots = scene.cache._assembly.control.export_blocks(TierName.DISK)
    names = {key.tobytes() for key in sequence.keys()}
    own = {slot for key, slot in zip(keys, slots.tolist(), strict=True) if key.tobytes() in names}
    assert scene.disk.slots_read <= own, "another sequence's blocks were read"


def test_a_prefetch_waits_for_blocks_that_another_ticket_is_bringing(scene: Scene) -> None:
    scene.store(1, 10)
    scene.store(2, 64, at=100)  # takes the whole host tier
    scene.disk.reads.clear()
    sequence = scene.cache.sequence(tokens(10, seed=1))
    first, second = scene.cache.prefetch(sequence), scene.cache.prefetch(sequence)
    assert not second.done
    scene.disk.reads.set()
    assert first.wait(10).ok
    assert second.wait(10).ok
    assert second.wait().blocks_by_tier == {}, "the blocks were read twice"
    assert [(s.tier, s.num_blocks) for s in scene.cache.lookup(sequence).segments] == [(TierName.HOST, 10)]


def test_a_prefetch_behind_one_that_is_cancelled_reports_its_blocks_as_missing(scene: Scene) -> None:
    scene.store(1, 10)
    scene.store(2, 64, at=100)
    scene.disk.reads.clear()
    sequence = scene.cache.sequence(tokens(10, seed=1))
    first, second = scene.cache.prefetch(sequence), scene.cache.prefetch(sequence)
    reads = threading.Timer(0.05, scene.disk.reads.set)
    reads.start()
    first.cancel()
    assert second.wait(10).num_blocks_ok in (0, 10)
    reads.join()


@pytest.mark.parametrize("read_first", [True, False])
def test_a_load_behind_a_store_that_is_cancelled_still_delivers_what_the_disk_has(
    scene: Scene, read_first: bool
) -> None:
    scene.store(1, 10)
    scene.store(2, 64, at=100)  # takes the whole host tier
    scene.hold_host_lane()
    half = scene.cache.sequence(tokens(10, seed=1)[: 5 * 16])
    first = scene.cache.store(half, scene.engine.fill(half))
    scene.engine.poison()
    sequence = scene.cache.sequence(tokens(10, seed=1))
    scene.hold_host_loads(2)
    if not read_first:
        scene.disk.reads.clear()
    load = scene.cache.load(sequence, scene.engine.blocks(200, 210))
    if read_first:
        scene.wait_for("disk-load", 0)
    first.cancel()  # takes blocks 0 to 4 out of the host tier, and with them 5 to 9, which the load passes through it
    scene.disk.reads.set()
    scene.wait_for("disk-load", 0)
    scene.host_lane.set()
    assert load.wait(10).num_blocks_ok == 10
    scene.engine.check(sequence, 10, at=200)


def test_a_reset_ends_while_other_threads_go_on_storing(scene: Scene) -> None:
    stop = threading.Event()

    def store(worker: int) -> None:
        engine = SmallEngine(scene.cache.geometry, 32)
        seed = 0
        while not stop.is_set():
            seed += 1
            sequence = scene.cache.sequence(tokens(8, seed=1000 * worker + seed))
            try:
                scene.cache.store(sequence, engine.fill(sequence)).wait(10)
            except ThrottledError:
                continue

    threads = [threading.Thread(target=store, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(40):
            time.sleep(0.005)
            scene.cache.reset()
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
    scene.cache.reset()
    assert [tier.num_ready for tier in scene.cache.stats().tiers] == [0, 0]


def test_a_callback_that_raises_ends_neither_a_lane_nor_another_ticket(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("not ours")

    scene.hold_host_lane()
    first = scene.cache.sequence(tokens(4, seed=1))
    second = scene.cache.sequence(tokens(6, seed=1))
    owner = scene.cache.store(first, scene.engine.fill(first))
    owner.add_done_callback(fail)
    follower = scene.cache.store(second, scene.engine.fill(second))
    scene.host_lane.set()
    assert owner.wait(10).ok
    assert follower.wait(10).ok
    scene.store(3, 5)
    assert "done callback" in caplog.text
