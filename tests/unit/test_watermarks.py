"""Room ahead of need: where the watermarks lie, and what is evicted between them."""

from typing import Any

import pytest

from tests.helpers.control_samples import DISK, HOST, Bench, sequence
from tiercel.control import DEMOTION_START, Admission
from tiercel.control.settings import Watermarks


def relieve(bench: Bench) -> int:
    return sum(len(free.slots) // 4 for free in bench.control.relief.evict(bench.now_s))


def test_without_watermarks_a_tier_is_left_full() -> None:
    bench = Bench(host=40)
    for seed in range(5):
        bench.store(sequence(10, seed=seed))
    assert bench.num_ready(HOST) == 40
    assert not bench.control.relief.is_due()
    assert relieve(bench) == 0


def test_a_tier_above_the_high_watermark_is_brought_down_to_the_low_one() -> None:
    bench = Bench(host=40, disk=400, evict_start_threshold=0.75, evict_stop_threshold=0.5)
    for seed in range(3):
        bench.store(sequence(10, seed=seed))
        assert not bench.control.relief.is_due(), "30 of 40 is not above the watermark"
    bench.store(sequence(1, seed=9))
    assert bench.control.relief.is_due()
    assert relieve(bench) == 11
    assert (bench.num_ready(HOST), bench.num_ready(DISK)) == (20, 31)
    assert not bench.control.relief.is_due()
    assert relieve(bench) == 0
    assert bench.num_held(HOST, sequence(1, seed=9)) == 1, "the youngest left"
    bench.check()


def test_both_tiers_have_watermarks() -> None:
    bench = Bench(host=40, disk=20, evict_start_threshold=0.9, evict_ratio=0.1)
    bench.store(sequence(19, seed=1))
    assert relieve(bench) == 3
    assert (bench.num_ready(HOST), bench.num_ready(DISK)) == (19, 16)


def test_pinned_blocks_stay_and_the_rest_leaves_when_they_are_let_go() -> None:
    bench = Bench(host=40, evict_start_threshold=0.5, evict_stop_threshold=0.25)
    bench.store(sequence(30, seed=1))
    with bench.control.lookup(sequence(30, seed=1)):
        assert relieve(bench) == 0
    assert relieve(bench) == 20
    bench.check()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, Watermarks(100, 100)),
        ({"evict_ratio": 0.1}, Watermarks(100, 90)),
        ({"evict_start_threshold": 0.8, "evict_ratio": 0.1}, Watermarks(80, 70)),
        ({"evict_start_threshold": 0.8, "evict_stop_threshold": 0.5, "evict_ratio": 0.1}, Watermarks(80, 50)),
        ({"ssd_admission": Admission.ON_EVICT}, Watermarks(int(100 * DEMOTION_START), int(100 * DEMOTION_START))),
        ({"ssd_admission": Admission.ON_EVICT, "evict_start_threshold": 0.7}, Watermarks(70, 70)),
    ],
)
def test_the_watermarks_follow_from_the_settings(settings: dict[str, Any], expected: Watermarks) -> None:
    assert Bench(host=100, disk=256, **settings).control.settings.watermarks(HOST) == expected


def test_on_evict_leaves_the_disk_its_own_watermark() -> None:
    bench = Bench(disk=100, ssd_admission=Admission.ON_EVICT)
    assert bench.control.settings.watermarks(DISK) == Watermarks(100, 100)
