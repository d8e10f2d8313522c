"""Random shards over ranks against the whole block: every byte that ranks gather and scatter together, and none beside."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.copy_cases import POISON, CopyCase, shards_of_one
from tests.helpers.seeds import chosen_seed
from tiercel import RankAgent, RankGroup
from tiercel._native import Arena
from tiercel.ranks import RankBlocks
from tiercel.tiers.memory import SharedArena, page_aligned_bytes

ROUNDS = 6
_SPARE_SLOTS = 5


def view_of(arena: Arena, stride: int) -> NDArray[np.uint8]:
    """The arena's slots, uint8[num_slots, stride]."""
    import ctypes

    flat = np.ctypeslib.as_array((ctypes.c_uint8 * arena.num_bytes).from_address(arena.address))
    return flat.reshape(-1, stride)


def whole_slots(cases: list[CopyCase]) -> NDArray[np.uint8]:
    """The moved blocks in slot format, of all ranks together."""
    whole = np.zeros((len(cases[0].ids), cases[0].geometry.block_bytes), np.uint8)
    covered = np.zeros(whole.shape, np.uint8)
    for case in cases:
        content, held = case.slots(case.logical())
        whole[held] = content[held]
        covered += held
    assert (covered == 1).all(), "the ranks do not hold each byte once"
    return whole


def check_gather(cases: list[CopyCase], blocks: RankBlocks, arena: Arena, slots: NDArray[np.int64]) -> None:
    stride = page_aligned_bytes(cases[0].geometry.block_bytes)
    memory = view_of(arena, stride)
    memory[...] = POISON
    expected = memory.copy()
    expected[slots, : cases[0].geometry.block_bytes] = whole_slots(cases)
    blocks.reach().gather((arena.address + slots * stride).astype(np.uint64))
    np.testing.assert_array_equal(memory, expected)


def check_scatter(
    cases: list[CopyCase], blocks: RankBlocks, arena: Arena, slots: NDArray[np.int64], rng: np.random.Generator
) -> None:
    stride = page_aligned_bytes(cases[0].geometry.block_bytes)
    memory = view_of(arena, stride)
    memory[...] = rng.integers(0, 256, memory.shape, np.uint8)
    untouched = memory.copy()
    before = [case.logical() for case in cases]
    for case in cases:
        for buffer in case.buffers:
            buffer[...] = POISON
    blocks.reach().scatter((arena.address + slots * stride).astype(np.uint64))
    np.testing.assert_array_equal(memory, untouched)
    np.testing.assert_array_equal(whole_slots(cases), memory[slots, : cases[0].geometry.block_bytes])
    for case, logical in zip(cases, before, strict=True):
        wanted = case.logical()
        others = np.setdiff1d(np.arange(case.num_blocks), case.ids)
        held = wanted[:, :, others, :, slice(*case.heads)]
        assert (held.view(np.uint8) == POISON).all(), "a block was written that was not asked for"
        wanted[:, :, others] = logical[:, :, others]
        case.put(wanted)


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_ranks_of_any_layouts_make_whole_blocks_and_take_their_share_of_them(tmp_path: Path, num_ranks: int) -> None:
    seed = chosen_seed()
    for turn in range(ROUNDS):
        rng = np.random.default_rng([seed, turn])
        cases = shards_of_one(seed % 2**31 + turn, num_ranks)
        geometry, num_moved = cases[0].geometry, len(cases[0].ids)
        num_slots = num_moved + _SPARE_SLOTS
        arena = Arena(num_slots * page_aligned_bytes(geometry.block_bytes), hugepages=False)
        directory = tmp_path / str(turn)
        with ExitStack() as stack:
            stack.callback(arena.close)
            shared = [SharedArena(arena, resident=bool(turn % 2), unit_bytes=4096)]
            group = stack.enter_context(RankGroup(geometry, shared, num_ranks=num_ranks, directory=directory))
            for rank, case in enumerate(cases):
                stack.enter_context(RankAgent(directory, rank, case.memory("cpu").memory))
            group.wait_ready(20)
            blocks = group.blocks(cases[0].ids)
            slots = rng.permutation(num_slots)[:num_moved]
            check_gather(cases, blocks, arena, slots)
            check_scatter(cases, blocks, arena, slots, rng)
            check_gather(cases, blocks, arena, slots)
