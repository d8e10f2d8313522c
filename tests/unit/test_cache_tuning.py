"""Auto-tuning of a real cache: what it changes, tells and leaves alone, while every byte stays right."""

import logging
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.helpers.control_samples import DISK, HOST, Bench, sequence
from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tests.helpers.telemetry_samples import sample_snapshot
from tiercel import Cache
from tiercel.cache.tuning import AutoTuner
from tiercel.cache.upkeep import Upkeep
from tiercel.cli.stats import print_snapshot
from tiercel.control import Admission, ControlSettings, Tuned
from tiercel.control.settings import Watermarks
from tiercel.control.tuning import Action, Change, Knob, Limits

LIMITS = Limits(window_lookups=12, window_s=1.0, num_windows=2, rest_s=10.0, rest_s_max=100.0)
WINDOW = 12
PROMPT_BLOCKS = 4


class Served:
    """A cache whose tuner looks after every window of requests. The times that it is told lie far ahead, so that the looks of
    the cache's own thread close no window."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.engine = SmallEngine(cache.geometry)
        self.tuner = AutoTuner(cache._assembly, cache._dispatcher, LIMITS)
        cache._reporter._tuning = self.tuner.status
        self.now_s = 1e6
        self.tuner.look(self.now_s)

    def request(self, seed: int) -> int:
        """Serve a prompt as an engine does: load what is stored, compute the rest, store. Returns the blocks loaded."""
        wanted = self.cache.sequence(tokens(PROMPT_BLOCKS, seed))
        self.engine.poison()
        with self.cache.lookup(wanted) as lookup:
            num_loaded = lookup.num_blocks
            if num_loaded:
                assert self.cache.load(lookup, self.engine.blocks(0, num_loaded)).wait(30).num_blocks_ok == num_loaded
        self.engine.check(wanted, num_loaded)
        self.engine.fill(wanted, start=num_loaded, at=num_loaded)
        self.cache.store(wanted, self.engine.blocks(0, wanted.num_blocks)).wait(30)
        return num_loaded

    def window(self, seeds: list[int]) -> Change | None:
        """Serve a window of requests and look."""
        assert len(seeds) == WINDOW
        for seed in seeds:
            self.request(seed)
        self.now_s += LIMITS.window_s
        return self.tuner.look(self.now_s)


def test_a_flood_of_one_shot_prompts_is_kept_from_the_disk_and_no_byte_is_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tiercel")
    conversations = [1, 2, 3, 4] * 3
    with Cache.open(MODEL, config(tmp_path, host=8, disk=48, auto_tune=True)) as cache:
        served = Served(cache)
        done = [served.window(conversations) for _ in range(8)]
        assert done == [None] * 8, "what is written once and read again and again is worth its writes"
        fresh = iter(range(1000, 10_000))
        flood: list[Change] = []
        while len(flood) < 2:
            change = served.window([next(fresh) for _ in range(WINDOW)])
            flood += [change] if change is not None else []
        assert [(change.knob, change.action) for change in flood] == [
            (Knob.ADMISSION, Action.TRIED),
            (Knob.ADMISSION, Action.KEPT),
        ]
        written = cache.stats().tiers[1].blocks_written
        served.window([next(fresh) for _ in range(WINDOW)])
        assert cache.stats().tiers[1].blocks_written == written, "what nobody asked for twice stays off the disk"
        served.window(conversations)
        assert served.request(1) == PROMPT_BLOCKS, "what is asked for again is stored"
        cache._assembly.control.index.check()
        stats = cache.stats()
    assert stats.tuning is not None
    assert stats.tuning.values["ssd_admission"] == "on_second_hit"
    assert [change.action for change in stats.tuning.changes[:2]] == ["tried", "kept"]
    assert stats.activity.counters["tuning_changes"]["kept"] == 1
    told = [record.getMessage() for record in caplog.records if getattr(record, "event", None) == "tuning"]
    assert told[0].startswith("auto-tuning: ssd_admission tried (on_second_hit, was through): none was read back")
    assert "blocks written to disk per block looked up" in told[1]
    assert stats.activity.counters["errors"].get("DeadlineError", 0) == 0


def test_a_change_that_costs_a_real_cache_hits_is_undone(tmp_path: Path) -> None:
    """Of each twelve prompts two come again: a fifth of what is written is read back."""
    with Cache.open(MODEL, config(tmp_path, host=0, disk=48, auto_tune=True)) as cache:
        served = Served(cache)
        made: list[Change] = []
        for number in range(12):
            fresh = list(range(1000 * number, 1000 * number + WINDOW - 2))
            change = served.window([*fresh, *fresh[:2]])
            made += [change] if change is not None else []
            if len(made) == 2:
                break
        assert [change.action for change in made] == [Action.TRIED, Action.UNDONE]
        assert [change.after for change in made] == ["on_second_hit", "through"]
        assert "hit share 16.7% before, 0.0% after" in made[1].reason
        written = cache.stats().tiers[0].blocks_written
        served.request(99_999)
        assert cache.stats().tiers[0].blocks_written == written + PROMPT_BLOCKS, "every block goes to disk again"
        assert served.request(99_999) == PROMPT_BLOCKS
        cache._assembly.control.index.check()


def test_the_thread_of_the_upkeep_looks_and_no_other(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, host=8, disk=48, auto_tune=True)) as cache:
        tuner = cache._tuner
        assert tuner is not None
        looked = threading.Event()
        threads: list[str] = []
        look = tuner.look

        def watched(now_s: float) -> Change | None:
            threads.append(threading.current_thread().name)
            looked.set()
            return look(now_s)

        tuner.look = watched  # type: ignore[method-assign]
        Served(cache).request(1)
        cache._upkeep.wake()
        assert looked.wait(10)
        for _ in range(100):
            cache._upkeep.wake()
        assert set(threads) == {"tiercel-upkeep"}


def test_a_cache_tunes_nothing_unless_it_is_asked_to(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, host=8, disk=48)) as cache:
        assert cache.stats().tuning is None
        assert not cache._assembly.control._admission.sees, "nor is anything counted for it"
    with Cache.open(MODEL, config(tmp_path, host=8, disk=48, auto_tune=True)) as cache:
        tuning = cache.stats().tuning
    assert tuning is not None
    assert (tuning.values, tuning.changes) == ({"ssd_admission": "through", "host_watermark": "1"}, ())


def test_admission_that_is_switched_knows_what_was_seen_before() -> None:
    bench = Bench(auto_tune=True)
    bench.store(sequence(8, seed=1))
    bench.control.tune(Tuned(admission=Admission.ON_SECOND_HIT))
    bench.store(sequence(8, seed=2))
    assert (bench.num_ready(HOST), bench.num_ready(DISK)) == (16, 8), "seen once: not written"
    assert bench.control.promotes_hits
    bench.store(sequence(8, seed=2))
    assert bench.num_ready(DISK) == 16
    bench.control.tune(Tuned(admission=Admission.THROUGH))
    assert not bench.control.promotes_hits
    bench.store(sequence(8, seed=3))
    assert bench.num_ready(DISK) == 24
    bench.check()


def test_on_evict_is_not_switched_and_its_watermark_may_be() -> None:
    bench = Bench(auto_tune=True, ssd_admission=Admission.ON_EVICT, host=100)
    bench.control.tune(Tuned(admission=Admission.ON_EVICT, host_room=0.125))
    assert bench.control.settings.watermarks(HOST, 0.125) == Watermarks(88, 82)
    with pytest.raises(AssertionError):
        bench.control.tune(Tuned(admission=Admission.THROUGH))


def test_room_ahead_of_need_is_made_from_the_next_store_on_and_not_after_it_was_given_back() -> None:
    bench = Bench(auto_tune=True, host=100, disk=400)
    for seed in range(10):
        bench.store(sequence(10, seed=seed))
    assert not bench.control.relief.is_due()
    bench.control.tune(Tuned(admission=Admission.THROUGH, host_room=0.125))
    assert bench.control.relief.is_due()
    bench.control.relief.evict(bench.now_s)
    assert bench.num_ready(HOST) == 87
    assert bench.num_ready(DISK) == 100, "the disk's watermarks stay"
    bench.control.tune(Tuned(admission=Admission.THROUGH))
    bench.store(sequence(10, seed=99))
    assert not bench.control.relief.is_due()
    bench.check()


def test_a_store_that_has_to_evict_or_finds_no_slot_counts_as_cramped() -> None:
    bench = Bench(auto_tune=True, host=16, disk=0)
    relief = bench.control.relief
    bench.store(sequence(8, seed=1))
    bench.store(sequence(8, seed=2))
    bench.store(sequence(8, seed=2))
    assert (relief.num_stores, relief.num_cramped) == (2, 0), "what is stored already needs no room"
    bench.store(sequence(8, seed=3))
    assert (relief.num_stores, relief.num_cramped) == (3, 1)
    held = [bench.control.lookup(sequence(8, seed=seed), now_s=bench.now_s) for seed in (2, 3)]
    bench.store(sequence(8, seed=4))
    assert (relief.num_stores, relief.num_cramped) == (4, 2)
    for lookup in held:
        lookup.release()
    bench.check()


@pytest.mark.parametrize(
    ("values", "room", "expected"),
    [
        ({}, 0.0, Watermarks(100, 100)),
        ({}, 0.125, Watermarks(93, 87)),
        ({"evict_ratio": 0.25}, 0.125, Watermarks(93, 68)),
        ({"evict_stop_threshold": 0.5}, 0.125, Watermarks(93, 50)),
        ({"evict_stop_threshold": 1.0}, 0.125, Watermarks(93, 87)),
        ({"evict_start_threshold": 0.0625}, 0.125, Watermarks(3, 0)),
    ],
)
def test_room_lies_beside_what_the_settings_say(values: dict[str, float], room: float, expected: Watermarks) -> None:
    settings = ControlSettings(capacities={HOST: 100}, tokens_per_block=16, block_bytes=1, **values)  # type: ignore[arg-type]
    assert settings.watermarks(HOST, room) == expected


def test_upkeep_with_an_interval_needs_nobody_to_wake_it() -> None:
    rounds = threading.Semaphore(0)
    upkeep = Upkeep((rounds.release,), interval_s=0.001)
    upkeep.start()
    try:
        for _ in range(3):
            assert rounds.acquire(timeout=10)
    finally:
        upkeep.end()
        assert upkeep.join(10)


def test_stats_tells_what_is_tuned_and_each_change_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = sample_snapshot()
    print_snapshot(snapshot)
    shown = " ".join(capsys.readouterr().out.split())
    assert "auto-tuned: host_watermark 0.99, ssd_admission on_second_hit" in shown
    assert (
        " ago ssd_admission through to on_second_hit, tried: 12.0 blocks per block read back were written to disk"
        in shown
    )
    print_snapshot(replace(snapshot, tuning=None))
    assert "auto-tuned" not in capsys.readouterr().out
