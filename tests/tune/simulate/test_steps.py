"""Engines that compute in steps, worked out by hand: a second a block."""

import random
from dataclasses import replace

import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests.helpers.seeds import chosen_seed
from tests.tune.simulate._worlds import HOST, SIZE, link, make_setup, make_trace
from tiercel.costs import PrefillCurve
from tiercel.tune.simulate import EngineModel, simulate


def test_a_prompt_alone_takes_as_many_steps_as_it_needs() -> None:
    result = simulate(make_trace((0, [1, 2, 3, 4, 5])), make_setup(host=10, engine={"step_tokens": 2 * SIZE}))
    assert_allclose(result.first_token_s, [5])


def test_requests_share_what_is_left_of_a_step_and_have_their_tokens_at_its_end() -> None:
    trace = make_trace((0, [1, 2, 3, 4]), (1, [11, 12, 13, 14, 15, 16]), (1, [21, 22]))
    result = simulate(trace, make_setup(host=20, engine={"step_tokens": 4 * SIZE}))
    assert_allclose(result.first_token_s, [4, 12, 12])
    serial = simulate(trace, make_setup(host=20))
    assert_allclose(serial.first_token_s, [4, 10, 12])


def test_a_request_is_looked_up_when_a_step_has_room_for_it() -> None:
    names = [1, 2, 3, 4]
    trace = make_trace((0, names), (1, [11, 12, 13, 14]), (1, names))
    result = simulate(trace, make_setup(host=20, engine={"step_tokens": 2 * SIZE}))
    # Two steps each of 0 and 1, and before the last of them ends, the step of 2 is planned: by then 0 is stored.
    assert result.hit_blocks[HOST].tolist() == [0, 0, 3]
    assert_allclose(result.first_token_s, [4, 8, 9])
    assert simulate(trace, make_setup(host=20)).hit_blocks[HOST].tolist() == [0, 0, 0]


def test_a_load_begins_with_the_step_that_was_planned_for_it() -> None:
    setup = make_setup(host=20, reads={HOST: link(0.5)}, engine={"step_tokens": 4 * SIZE})
    trace = make_trace((0, [1, 2, 3]), (10, [11, 12, 13, 14]), (11, [1, 2, 3]))
    result = simulate(trace, setup)
    assert result.hit_blocks[HOST].tolist() == [0, 0, 2]
    assert_allclose(result.ready_s[2], 14 + 2 * 0.5)
    assert_allclose(result.first_token_s[2], 15 + 1)


def test_the_end_of_a_load_is_told_by_a_step_that_was_planned_after_it() -> None:
    setup = make_setup(host=60, reads={HOST: link(0.5)}, engine={"step_tokens": 4 * SIZE})
    first, busy, next_ = [1, 2, 3], list(range(100, 111)), list(range(200, 208))
    trace = make_trace((0, first), (10, busy), (11, first), (11, next_))
    result = simulate(trace, setup)
    # Steps from 10, 14, 18, 22 and 26. That from 18 begins the load, which has ended at 19; that from 26 has a block to
    # spare and was planned at 22: it notices the end, and tells it at 29.
    assert_allclose(result.ready_s[2], 19)
    assert_allclose(result.first_token_s[3], 29)
    assert_allclose(result.first_token_s[2], 29 + 1)


def test_the_fixed_part_of_the_curve_makes_nobody_else_wait() -> None:
    curve = PrefillCurve(fixed_s=0.75, token_s=1 / SIZE)
    setup = make_setup(host=20, engine={"step_tokens": SIZE, "prefill": curve})
    assert_allclose(simulate(make_trace((0, [1]), (0, [2]), (0, [3])), setup).first_token_s, [1.75, 2.75, 3.75])


def test_a_step_takes_as_long_as_a_token_of_decoding_and_a_request_has_it_once() -> None:
    curve = PrefillCurve(fixed_s=3.0, token_s=1 / SIZE)
    setup = make_setup(host=20, engine={"step_tokens": 4 * SIZE, "prefill": curve, "decode_token_s": 2.0})
    result = simulate(make_trace((0, [1]), (0, [2]), output_tokens=[3, 1]), setup)
    # Steps of 2 s: 0, its second token, then its third beside 1. Of the fixed 3 s a step that computes for 1 s has one in it.
    assert_allclose(result.first_token_s, [2 + 2, 6 + 2])
    assert_allclose(result.ended_s[0], 6 + 2)


def test_decoding_goes_on_beside_prompts_a_token_a_step() -> None:
    setup = make_setup(host=20, engine={"step_tokens": 2 * SIZE, "decode_token_s": 0.25})
    result = simulate(make_trace((0, [1]), (0.5, [11, 12, 13, 14]), output_tokens=[4, 1]), setup)
    # A token of each step beside the prompt goes to decoding, so the prompt takes three steps.
    assert_allclose(result.first_token_s[0], 1)
    assert result.ended_s[0] > 1 + 3 * 0.25
    assert 5 < result.first_token_s[1] < 6


def test_a_request_waits_for_room_in_gpu_memory() -> None:
    setup = make_setup(host=20, engine={"step_tokens": 4 * SIZE, "decode_token_s": 1.0, "gpu_blocks": 4})
    result = simulate(make_trace((0, [1, 2, 3]), (0, [11, 12, 13]), output_tokens=[6, 1]), setup)
    assert_allclose(result.ended_s[0], 3 + 5)
    assert_allclose(result.first_token_s[1], 8 + 3)


def test_requests_far_apart_are_served_as_by_an_engine_without_steps() -> None:
    draw = random.Random(chosen_seed())
    requests = []
    for number in range(60):
        document = 100 * draw.randrange(6)
        names = [document + at for at in range(draw.randrange(8))]
        requests.append((1000.0 * number, [*names, 10_000 + number]))
    trace = make_trace(*requests, output_tokens=[draw.randint(1, 40) for _ in requests])
    for host in (5, 12, 40):
        setup = make_setup(host=host, engine={"gpu_blocks": 11, "decode_token_s": 0.01, "stores_output": True})
        stepped = replace(setup, engine=replace(setup.engine, step_tokens=3 * SIZE))
        serial, found = simulate(trace, setup), simulate(trace, stepped)
        assert_array_equal(found.gpu_blocks, serial.gpu_blocks)
        assert_array_equal(found.hit_blocks[HOST], serial.hit_blocks[HOST])
        assert_allclose(found.ttft_s, serial.ttft_s)


def test_steps_of_less_than_no_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="step_tokens = -1: must not be negative"):
        EngineModel(prefill=PrefillCurve(), step_tokens=-1)
