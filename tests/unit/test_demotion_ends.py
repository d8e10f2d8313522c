"""Relief of a host tier comes to an end, whatever the disk tier has room for and whichever block it would give up first."""

import pytest

from tests.helpers.control_samples import DISK, HOST, Bench, sequence
from tiercel.control import Admission
from tiercel.index import EVICTION_POLICIES

HOST_BLOCKS = 40


def relieve(made: Bench) -> int:
    """Demote and evict as the dispatcher does until nothing has to leave. Returns the blocks written to disk."""
    relief = made.control.relief
    num_written = ticket = 0
    while num_written <= 2 * HOST_BLOCKS:
        relief.evict(made.now_s)
        found = []
        while operation := relief.begin_demotion(1000 + ticket, made.now_s, 1.0):
            found.append(operation)
            ticket += 1
        for operation in found:
            relief.end(made.finish(operation), made.now_s)
            num_written += operation.plan.num_blocks
        if not found and not relief.evict_undemoted(made.now_s)[0]:
            break
    return num_written


@pytest.mark.parametrize("disk", [8, 40, 100])
@pytest.mark.parametrize("policy", EVICTION_POLICIES)
def test_a_block_is_written_to_disk_once_for_each_time_it_leaves(policy: str, disk: int) -> None:
    """A full disk tier that gave up what was demoted last for what is demoted next would be written to without end."""
    made = Bench(
        host=HOST_BLOCKS,
        disk=disk,
        ssd_admission=Admission.ON_EVICT,
        evict_start_threshold=0.75,
        evict_stop_threshold=0.25,
        ssd_eviction_policy=policy,
    )
    for seed in range(60):
        made.now_s += 1
        made.store(sequence(4 + seed % 4, seed=seed))
        if seed % 3 == 0:
            made.look_up(sequence(4 + seed // 2 % 4, seed=seed // 2))
        num_written = relieve(made)
        assert num_written <= HOST_BLOCKS, (
            f"{num_written} blocks written to relieve a tier of {HOST_BLOCKS} after store {seed}"
        )
        assert made.num_ready(HOST) <= 30
    assert made.num_ready(DISK) > 0
    made.check()


def test_a_path_longer_than_the_disk_tier_leaves_all_the_same() -> None:
    made = Bench(host=40, disk=8, ssd_admission=Admission.ON_EVICT, evict_start_threshold=0.75)
    made.store(sequence(36, seed=1))
    assert relieve(made) == 8
    assert (made.num_ready(HOST), made.num_ready(DISK)) == (30, 8)
    made.check()
