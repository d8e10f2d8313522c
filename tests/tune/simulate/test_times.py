"""When things happen, worked out by hand."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.tune.simulate._worlds import DISK, HOST, SIZE, link, make_setup, make_trace
from tiercel.transfer import TransferSettings
from tiercel.tune.simulate import simulate


def test_prompts_are_computed_one_after_the_other_in_order_of_arrival() -> None:
    result = simulate(make_trace((0, [1, 2]), (1, [3]), (1.5, [4, 5, 6])), make_setup(host=10))
    assert_allclose(result.arrived_s, [0, 1, 1.5])
    assert_allclose(result.started_s, [0, 2, 3])
    assert_allclose(result.first_token_s, [2, 3, 6])
    assert result.prefill_busy_s == 6


def test_two_replicas_take_the_request_that_would_wait() -> None:
    trace = make_trace((0, [1, 2]), (1, [3]), (1.5, [4, 5, 6]))
    result = simulate(trace, make_setup(host=10, engine={"replicas": 2}))
    assert_allclose(result.started_s, [0, 1, 2])


def test_tokens_are_generated_beside_other_prompts() -> None:
    trace = make_trace((0, [1, 2]), (0, [3]), output_tokens=[5, 1])
    result = simulate(trace, make_setup(host=10, engine={"decode_token_s": 0.5}))
    assert_allclose(result.first_token_s, [2, 3])
    assert_allclose(result.ended_s, [4, 3])


def test_a_request_that_waits_for_another_arrives_behind_its_end() -> None:
    trace = make_trace((0, [1]), (0.25, [2]), output_tokens=[3, 1], after=[-1, 0], delay_s=[0, 4.0])
    result = simulate(trace, make_setup(host=10, engine={"decode_token_s": 0.5}, speedup=2.0))
    assert_allclose(result.ended_s[0], 2)
    assert_allclose(result.arrived_s[1], 2 + 4 / 2)


def test_speedup_divides_arrivals_and_nothing_else() -> None:
    result = simulate(make_trace((0, [1]), (10, [2])), make_setup(host=10, speedup=5.0))
    assert_allclose(result.arrived_s, [0, 2])
    assert_allclose(result.ttft_s, [1, 1])


def test_the_last_token_of_a_prompt_is_computed_even_if_all_of_it_is_stored() -> None:
    result = simulate(make_trace((0, [1, 2, 3]), (10, [1, 2, 3])), make_setup(host=10))
    assert result.hit_blocks[HOST].tolist() == [0, 2]
    assert_allclose(result.ttft_s, [3, 1])
    assert_allclose(result.prefill_saved_s, 2)


def test_a_load_takes_the_links_latency_and_its_bytes_over_the_rate() -> None:
    setup = make_setup(host=10, reads={HOST: link(0.1, latency_s=0.05)})
    result = simulate(make_trace((0, [1, 2, 3, 4]), (10, [1, 2, 3, 4, 5])), setup)
    assert_allclose(result.ready_s[1], 10 + 0.05 + 4 * 0.1)
    assert_allclose(result.ttft_s[1], 0.45 + 1)


def test_requests_load_while_the_engine_computes() -> None:
    setup = make_setup(host=10, reads={HOST: link(0.5)})
    result = simulate(make_trace((0, [1, 2, 3]), (10, [7, 8]), (10.5, [1, 2, 3])), setup)
    assert_allclose(result.ready_s[2], 11.5)
    assert_allclose(result.started_s[2], 12)


def test_two_loads_share_a_link_in_turns() -> None:
    # A1 A2 B1 A3 B2, a second each: A's rest stood in the queue before B came.
    setup = make_setup(host=20, reads={HOST: link(1.0)}, engine={"replicas": 2})
    trace = make_trace((0, [1, 2, 3, 4]), (0, [11, 12, 13]), (10, [1, 2, 3, 4]), (10, [11, 12, 13]))
    result = simulate(trace, setup)
    assert_allclose(result.ready_s[2:], [14, 15])


def test_whoever_arrives_waits_for_the_chunk_in_progress_only() -> None:
    # A1 A2 A3 B1 B2: B comes half way through A2, when A3 waits already.
    setup = make_setup(host=20, reads={HOST: link(1.0)}, engine={"replicas": 2})
    trace = make_trace((0, [1, 2, 3, 4]), (0, [11, 12, 13]), (10, [1, 2, 3, 4]), (11.5, [11, 12, 13]))
    result = simulate(trace, setup)
    assert_allclose(result.ready_s[2:], [13, 15])


def test_a_load_from_disk_passes_through_the_host_tier_chunk_by_chunk() -> None:
    # Three blocks of a second each from disk; the last one's copy to the engine takes another 0.25.
    setup = make_setup(host=4, disk=20, reads={HOST: link(0.25), DISK: link(1.0)})
    trace = make_trace((0, [1, 2, 3, 4]), (10, [11, 12, 13, 14]), (20, [1, 2, 3, 4]))
    result = simulate(trace, setup)
    assert result.hit_blocks[DISK].tolist() == [0, 0, 3]
    assert_allclose(result.ready_s[2], 23.25)


def test_a_load_goes_ahead_of_stores_on_a_shared_device() -> None:
    # The store of five blocks begins at 25 with seconds a block; the load comes at 25.5, waits half a second for the chunk.
    slow = {HOST: link(1e-9), DISK: link(1.0)}
    setup = make_setup(host=6, disk=40, reads=slow, writes=slow)
    trace = make_trace((0, [1, 2, 3]), (10, list(range(11, 17))), (20, list(range(21, 26))), (25.5, [1, 2, 3]))
    result = simulate(trace, setup)
    assert result.hit_blocks[DISK].tolist() == [0, 0, 0, 2]
    assert_allclose(result.ready_s[3], 28, atol=1e-6)


def test_reads_and_writes_of_a_device_that_is_not_shared_do_not_meet() -> None:
    slow = {HOST: link(1e-9), DISK: link(1.0)}
    setup = make_setup(host=6, disk=40, reads=slow, writes=slow, shared=frozenset())
    trace = make_trace((0, [1, 2, 3]), (10, list(range(11, 17))), (20, list(range(21, 26))), (25.5, [1, 2, 3]))
    assert_allclose(simulate(trace, setup).ready_s[3], 27.5, atol=1e-6)


def test_a_load_that_is_late_is_given_up_and_what_arrived_is_kept() -> None:
    setup = make_setup(host=10, reads={HOST: link(1.0)}, deadline_s=2.5)
    result = simulate(make_trace((0, [1, 2, 3, 4, 5]), (10, [1, 2, 3, 4, 5])), setup)
    # The move reports when it has ended, so nothing of it is known to have arrived at the deadline.
    assert_allclose(result.ready_s[1], 12.5)
    assert result.hit_blocks[HOST][1] == 0
    assert result.refused == {"deadline": 1}


def test_what_another_request_computed_meanwhile_is_not_computed_again() -> None:
    setup = make_setup(host=10, engine={"gpu_blocks": 10})
    result = simulate(make_trace((0, [1, 2, 3]), (1, [1, 2, 3, 4])), setup)
    assert result.matched_blocks[1] == 0, "it was looked up while the first one was computed"
    assert result.gpu_blocks[1] == 3
    assert_allclose(result.first_token_s, [3, 4])


def test_the_engine_is_asked_before_the_cache() -> None:
    setup = make_setup(host=10, engine={"gpu_blocks": 2})
    result = simulate(make_trace((0, [1, 2, 3, 4]), (10, [1, 2, 3, 4])), setup)
    assert result.gpu_blocks[1] == 2
    assert result.hit_blocks[HOST][1] == 1


@pytest.mark.parametrize("stores", [True, False])
def test_an_answer_is_there_for_the_next_turn_if_answers_are_stored(stores: bool) -> None:
    trace = make_trace(
        (0, [1]), (0, [1, 2, 3]), output_tokens=[2 * SIZE + 1, 1], session=["a", "a"], after=[-1, 0], delay_s=[0, 5]
    )
    result = simulate(trace, make_setup(host=10, engine={"stores_output": stores}))
    assert result.hit_blocks[HOST][1] == (2 if stores else 1)


def test_an_answer_that_nobody_asks_for_again_is_still_written() -> None:
    trace = make_trace((0, [1]), output_tokens=[2 * SIZE + 1])
    result = simulate(trace, make_setup(host=10, engine={"stores_output": True}))
    assert result.tiers[HOST].blocks_written == 3


def test_a_full_queue_refuses_a_load_and_the_prompt_is_computed() -> None:
    transfer = TransferSettings(chunk_bytes=1000, gpu_chunk_bytes=1000, queue_depth_max=1)
    setup = make_setup(host=20, reads={HOST: link(1.0)}, transfer=transfer, engine={"replicas": 2})
    trace = make_trace((0, [1, 2, 3]), (0, [11, 12]), (10, [1, 2, 3]), (10, [11, 12]))
    result = simulate(trace, setup)
    assert result.refused["host-load"] == 1
    assert np.array_equal(result.hit_blocks[HOST], [0, 0, 2, 0])
