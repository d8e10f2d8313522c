"""The cases of tests/gpu over host memory: any layout, gathered and scattered, equals numpy and touches nothing else."""

import numpy as np
import pytest

from tests.helpers.copy_cases import (
    LAYOUTS,
    check_gather,
    check_layers,
    check_scatter,
    random_case,
    shard_case,
    slot_stride,
)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(8))
def test_random_blocks_of_any_layout_come_and_go_on_the_host(layout: str, seed: int) -> None:
    case = random_case(seed, layout)
    placed = case.memory("cpu")
    slots = np.empty((len(case.ids) + 1, slot_stride(case)), np.uint8)
    check_gather(case, placed.blocks(), slots)
    check_gather(case, placed.blocks(), slots, offset=1 + seed)
    check_scatter(case, placed, placed.blocks(), slots)


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "mla"])
@pytest.mark.parametrize("seed", range(3))
def test_a_tensor_parallel_rank_leaves_the_other_ranks_bytes_alone(layout: str, seed: int) -> None:
    case = shard_case(seed, layout)
    placed = case.memory("cpu")
    slots = np.empty((len(case.ids) + 1, slot_stride(case)), np.uint8)
    check_gather(case, placed.blocks(), slots)
    check_scatter(case, placed, placed.blocks(), slots)


@pytest.mark.parametrize("layout", [*LAYOUTS, "shard"])
@pytest.mark.parametrize("seed", range(4))
def test_some_layers_of_blocks_come_and_go_by_themselves(layout: str, seed: int) -> None:
    case = shard_case(seed, "together, kv first") if layout == "shard" else random_case(seed, layout)
    slots = np.empty((len(case.ids) + 1, slot_stride(case)), np.uint8)
    check_layers(case, case.memory("cpu"), lambda blocks: blocks, slots)
