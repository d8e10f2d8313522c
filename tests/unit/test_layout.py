"""The slot format, and the pieces that an engine's memory compiles into."""

import ctypes
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tiercel.config import LayerGroup, ModelConfig
from tiercel.errors import ConfigError
from tiercel.layout import BlockGeometry, EngineMemory
from tiercel.tiers.base import BlockMemory

GEOMETRY = BlockGeometry(
    model_id="m", tokens_per_block=4, num_layers=3, kv_parts=2, num_kv_heads=2, head_size=8, dtype="float16"
)
NUM_BLOCKS = 5


def logical(geometry: BlockGeometry, num_blocks: int = NUM_BLOCKS) -> NDArray[Any]:
    """Distinct values in [layer, kv, block, token, head, dim], of the geometry's element width."""
    shape = (geometry.num_layers, geometry.kv_parts, num_blocks, geometry.tokens_per_block, geometry.num_kv_heads)
    count = int(np.prod(shape)) * geometry.head_size
    carrier = np.dtype(f"u{geometry.element_bytes}")
    return np.random.default_rng(7).integers(0, 250, count).astype(carrier).reshape(*shape, geometry.head_size)


def slots_of(data: NDArray[Any], order: str = "token_head") -> NDArray[np.uint8]:
    """The slot format by the book: [block] + the order's axes, as bytes."""
    axes = (2, 0, 1, 3, 4, 5) if order == "token_head" else (2, 0, 1, 4, 3, 5)
    return np.ascontiguousarray(data.transpose(axes)).view(np.uint8).reshape(data.shape[2], -1)


def interpret(pieces: NDArray[np.int64], block: int, slot: NDArray[np.uint8]) -> None:
    """Gather one block by carrying out the pieces as tiercel/_native.pyi defines them, run by run."""
    for base, block_stride, offset, outer, outer_engine, outer_slot, inner, inner_engine, run in pieces.tolist():
        for i in range(outer):
            for j in range(inner):
                source = base + block * block_stride + i * outer_engine + j * inner_engine
                target = offset + i * outer_slot + j * run
                slot[target : target + run] = np.frombuffer(ctypes.string_at(source, run), np.uint8)


def gathered(memory: EngineMemory, ids: list[int], slots: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Gather through the native program."""
    out = np.zeros((len(ids), memory.geometry.block_bytes), np.uint8) if slots is None else slots
    memory.blocks(ids).gather(addresses(out))
    return out


def addresses(slots: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Address of each row."""
    return (slots.ctypes.data + np.arange(len(slots)) * slots.strides[0]).astype(np.uint64)


def apart(data: NDArray[Any], axes: tuple[int, ...]) -> tuple[list[Any], list[Any]]:
    """One array per layer for keys and for values; axes: order of block 0, token 1, head 2, dim 3."""
    keys, values = ([np.ascontiguousarray(layer[part].transpose(axes)) for layer in data] for part in (0, 1))
    return keys, values


def test_the_geometry_counts_the_bytes_of_a_block() -> None:
    assert GEOMETRY.block_bytes == 3 * 2 * 4 * 2 * 8 * 2
    assert GEOMETRY.strides == {"layer": 256, "kv": 128, "token": 32, "head": 16, "dim": 2}
    assert replace(GEOMETRY, order="head_token").strides == {"layer": 256, "kv": 128, "head": 64, "token": 16, "dim": 2}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tokens_per_block": 12}, "tokens_per_block"),
        ({"num_layers": 0}, "num_layers"),
        ({"kv_parts": 3}, "kv_parts"),
        ({"dtype": "float12"}, "dtype"),
        ({"order": "dim_first"}, "order"),
    ],
)
def test_a_geometry_out_of_range_is_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        replace(GEOMETRY, **change)


def test_the_geometry_of_a_model_is_that_of_all_ranks_and_mla_has_one_part() -> None:
    model = ModelConfig(
        model_id="deepseek", num_layers=61, num_kv_heads=1, head_size=576, dtype="bfloat16", use_mla=True, tp_size=8
    )
    geometry = BlockGeometry.from_model(model, tokens_per_block=64)
    assert geometry.kv_parts == 1
    assert geometry.block_bytes == 64 * model.token_size_in_bytes


def test_a_hybrid_model_has_no_geometry() -> None:
    groups = (
        LayerGroup(name="sliding_attention", layers=(0,), window=128),
        LayerGroup(name="full_attention", layers=(1,)),
    )
    model = ModelConfig(model_id="m", num_layers=2, num_kv_heads=1, head_size=8, dtype="float16", layer_groups=groups)
    with pytest.raises(ConfigError, match="sliding_attention"):
        BlockGeometry.from_model(model, tokens_per_block=16)


def test_the_fingerprint_changes_with_every_part_and_not_with_the_tensor_parallel_size() -> None:
    changes: list[dict[str, Any]] = [
        {"model_id": "n"},
        {"weights_epoch": "2"},
        {"tokens_per_block": 8},
        {"num_layers": 4},
        {"kv_parts": 1},
        {"num_kv_heads": 4},
        {"head_size": 16},
        {"dtype": "bfloat16"},
        {"order": "head_token"},
    ]
    parts = [
        tuple(geometry.fingerprint_parts().items())
        for geometry in (GEOMETRY, *(replace(GEOMETRY, **c) for c in changes))
    ]
    assert len(set(parts)) == len(changes) + 1
    assert "tp_size" not in GEOMETRY.fingerprint_parts()


def test_a_block_first_engine_in_slot_order_is_one_copy_per_block_and_knows_its_addresses() -> None:
    geometry = replace(GEOMETRY, head_size=512)
    data = logical(geometry)
    raw = np.zeros(NUM_BLOCKS * geometry.block_bytes + 4096, np.uint8)
    start = -raw.ctypes.data % 4096
    whole = raw[start : start + NUM_BLOCKS * geometry.block_bytes].view(data.dtype)
    whole = whole.reshape(NUM_BLOCKS, 3, 2, 4, 2, 512)
    whole[...] = data.transpose(2, 0, 1, 3, 4, 5)
    memory = EngineMemory.from_arrays(geometry, [whole], axes="block layer kv token head dim")
    assert memory.pieces[:, 3:].tolist() == [[1, 0, 0, 1, 0, geometry.block_bytes]]
    found = memory.blocks([3, 1]).addresses
    assert found is not None
    assert found.tolist() == [whole.ctypes.data + i * geometry.block_bytes for i in (3, 1)]
    some: BlockMemory = memory.blocks([3, 1, 0])
    assert some.slice(1, 3).num_blocks == 2
    whole.flags.writeable = False
    read_only = EngineMemory.from_arrays(geometry, [whole], axes="block layer kv token head dim")
    assert read_only.blocks([0]).addresses is None


def test_a_memory_that_is_not_in_slot_format_or_not_page_aligned_has_no_addresses() -> None:
    data = logical(GEOMETRY)
    block_first = np.ascontiguousarray(data.transpose(2, 0, 1, 3, 4, 5))
    memory = EngineMemory.from_arrays(GEOMETRY, [block_first], axes="block layer kv token head dim")
    assert len(memory.pieces) == 1
    assert memory.blocks([0]).addresses is None  # blocks of 768 bytes are not page-aligned


def test_a_tensor_per_layer_is_one_run_per_layer_and_part() -> None:
    keys, values = apart(logical(GEOMETRY), (0, 1, 2, 3))
    memory = EngineMemory.from_arrays(GEOMETRY, keys, values, axes="block token head dim")
    assert memory.pieces[:, 3:].tolist() == [[1, 0, 0, 1, 0, 128]] * 6


def test_one_tensor_for_all_layers_is_one_piece_of_equal_runs() -> None:
    memory = EngineMemory.from_arrays(GEOMETRY, [logical(GEOMETRY)], axes="layer kv block token head dim")
    assert memory.pieces[:, 3:].tolist() == [[1, 0, 0, 6, NUM_BLOCKS * 128, 128]]


@pytest.mark.parametrize("order", ["token_head", "head_token"])
@pytest.mark.parametrize(
    ("axes", "permutation"),
    [
        ("block token head dim", (0, 1, 2, 3)),
        ("block head token dim", (0, 2, 1, 3)),
        ("token block head dim", (1, 0, 2, 3)),
        ("block head dim token", (0, 2, 3, 1)),
        ("dim head token block", (3, 2, 1, 0)),
    ],
)
def test_pieces_and_native_copies_give_the_slot_format(order: Any, axes: str, permutation: tuple[int, ...]) -> None:
    geometry, data = replace(GEOMETRY, order=order), logical(GEOMETRY)
    memory = EngineMemory.from_arrays(geometry, *apart(data, permutation), axes=axes)
    expected = slots_of(data, order)
    for block in range(NUM_BLOCKS):
        slot = np.zeros(geometry.block_bytes, np.uint8)
        interpret(memory.pieces, block, slot)
        np.testing.assert_array_equal(slot, expected[block])
    np.testing.assert_array_equal(gathered(memory, [4, 0, 2]), expected[[4, 0, 2]])


def test_a_sequence_is_cut_into_blocks_and_its_ragged_end_is_left_out() -> None:
    data = logical(GEOMETRY)
    per_layer = data.reshape(3, 2, NUM_BLOCKS * 4, 2, 8).transpose(0, 1, 3, 2, 4)  # layer kv head token dim
    ragged = np.concatenate([per_layer, np.full((3, 2, 2, 3, 8), 255, data.dtype)], axis=3)
    keys, values = ([np.ascontiguousarray(layer[part]) for layer in ragged] for part in (0, 1))
    memory = EngineMemory.from_arrays(GEOMETRY, keys, values, axes="head token dim")
    assert memory.num_blocks == NUM_BLOCKS
    np.testing.assert_array_equal(gathered(memory, [0, 4]), slots_of(data)[[0, 4]])


def test_two_ranks_fill_one_slot_and_each_takes_back_its_own_heads() -> None:
    data = logical(GEOMETRY)
    ranks = [np.ascontiguousarray(data[..., head : head + 1, :]) for head in (0, 1)]
    axes = "layer kv block token head dim"
    shards = [
        EngineMemory.from_arrays(GEOMETRY, [rank], axes=axes, head_range=(i, i + 1)) for i, rank in enumerate(ranks)
    ]
    slots = gathered(shards[0], [1, 2])
    gathered(shards[1], [1, 2], slots)
    np.testing.assert_array_equal(slots, slots_of(data)[[1, 2]])
    ranks[1][...] = 0
    shards[1].blocks([3, 4]).scatter(addresses(slots))
    np.testing.assert_array_equal(ranks[1][:, :, 3:5], data[:, :, 1:3, :, 1:2])
    assert not ranks[1][:, :, :3].any()


def test_mla_needs_neither_values_nor_a_head_axis() -> None:
    geometry = replace(GEOMETRY, kv_parts=1, num_kv_heads=1)
    data = logical(geometry)
    memory = EngineMemory.from_arrays(geometry, [layer[0, :, :, 0] for layer in data], axes="block token dim")
    np.testing.assert_array_equal(gathered(memory, [4]), slots_of(data)[[4]])
    with pytest.raises(ValueError, match="MLA"):
        EngineMemory.from_arrays(geometry, [layer[0] for layer in data], [], axes="block token head dim")


class FakeTensor:
    """What torch's tensors offer, over a numpy array: numpy itself has no bfloat16."""

    def __init__(self, array: NDArray[Any], device: str = "cpu") -> None:
        self._array, self.device, self.shape, self.dtype = array, device, array.shape, "torch.bfloat16"

    def data_ptr(self) -> int:
        return self._array.ctypes.data

    def stride(self) -> tuple[int, ...]:
        return tuple(step // 2 for step in self._array.strides)

    def element_size(self) -> int:
        return 2


def test_a_tensor_is_read_by_its_own_strides() -> None:
    geometry, data = replace(GEOMETRY, dtype="bfloat16"), logical(GEOMETRY)
    memory = EngineMemory.from_arrays(geometry, [FakeTensor(data)], axes="layer kv block token head dim")
    np.testing.assert_array_equal(gathered(memory, [2]), slots_of(data)[[2]])
    with pytest.raises(ValueError, match="xpu"):
        EngineMemory.from_arrays(geometry, [FakeTensor(data, "xpu:0")], axes="layer kv block token head dim")


def test_a_torch_bfloat16_tensor_that_is_not_contiguous_comes_and_goes() -> None:
    torch = pytest.importorskip("torch")
    geometry, data = replace(GEOMETRY, dtype="bfloat16"), logical(GEOMETRY)
    tensor = torch.from_numpy(data.view(np.int16)).view(torch.bfloat16).permute(2, 5, 4, 3, 1, 0)
    wide = torch.zeros((*tensor.shape[:-1], 6), dtype=torch.bfloat16)[..., 1::2]
    wide.copy_(tensor)
    memory = EngineMemory.from_arrays(geometry, [wide], axes="block dim head token kv layer")
    slots = gathered(memory, [0, 3])
    np.testing.assert_array_equal(slots, slots_of(data)[[0, 3]])
    wide.zero_()
    memory.blocks([3, 0]).scatter(addresses(slots))
    assert torch.equal(wide[3], tensor[0])
    assert torch.equal(wide[0], tensor[3])


def test_the_buffer_protocol_and_dlpack_are_taken() -> None:
    class OnlyDlpack:
        def __init__(self, array: NDArray[Any]) -> None:
            self._array = array

        def __dlpack__(self, **options: Any) -> Any:
            return self._array.__dlpack__(**options)

        def __dlpack_device__(self) -> tuple[int, int]:
            return self._array.__dlpack_device__()

    data = logical(GEOMETRY)
    buffer: Any = data
    for array in (memoryview(buffer), OnlyDlpack(data)):
        memory = EngineMemory.from_arrays(GEOMETRY, [array], axes="layer kv block token head dim")
        np.testing.assert_array_equal(gathered(memory, [1]), slots_of(data)[[1]])
    with pytest.raises(TypeError, match="int"):
        EngineMemory.from_arrays(GEOMETRY, [7], axes="layer kv block token head dim")


def test_the_arrays_live_as_long_as_the_memory() -> None:
    expected = slots_of(logical(GEOMETRY))
    memory = EngineMemory.from_arrays(GEOMETRY, [logical(GEOMETRY)], axes="layer kv block token head dim")
    churn = [np.full(4096, 255, np.uint8) for _ in range(64)]
    np.testing.assert_array_equal(gathered(memory, [4]), expected[[4]])
    assert len(churn) == 64


def test_read_only_and_broadcast_memory_can_be_stored_but_not_loaded_into() -> None:
    data = logical(GEOMETRY)
    slots = slots_of(data)
    data.flags.writeable = False
    repeated = np.broadcast_to(np.zeros((), data.dtype), data.shape)
    for array in (data, repeated):
        memory = EngineMemory.from_arrays(GEOMETRY, [array], axes="layer kv block token head dim")
        gathered(memory, [0])
        with pytest.raises(ValueError, match="cannot be loaded into"):
            memory.blocks([0]).scatter(addresses(slots[:1]))


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        ((5, 4, 2, 9), "block token head dim", r"keys\[0\]: axis dim has size 9, must be 8"),
        ((5, 4, 3, 8), "block token head dim", r"keys\[0\]: axis head has size 3, must be 2"),
        ((5, 8, 2, 8), "block token head dim", r"keys\[0\]: axis token has size 8, must be 4"),
        ((5, 4, 16), "block token head dim", r"keys\[0\]: has 3 axes"),
        ((5, 4, 2, 8), "block token heads dim", "axes = "),
        ((5, 4, 2, 8), "block token token dim", "axes = "),
        ((5, 4, 8), "block token dim", "lacks head"),
    ],
)
def test_an_array_that_does_not_fit_is_told_by_axis_and_size(shape: tuple[int, ...], axes: str, message: str) -> None:
    arrays = [np.zeros(shape, np.float16) for _ in range(3)]
    with pytest.raises(ValueError, match=message):
        EngineMemory.from_arrays(GEOMETRY, arrays, arrays, axes=axes)


def test_mistakes_around_the_arrays_are_named() -> None:
    arrays = [np.zeros((5, 4, 2, 8), np.float16) for _ in range(3)]
    axes = "block token head dim"
    with pytest.raises(ValueError, match="lacks kv"):
        EngineMemory.from_arrays(GEOMETRY, arrays, axes=axes)
    with pytest.raises(ValueError, match="keys: 2 arrays, must be 3"):
        EngineMemory.from_arrays(GEOMETRY, arrays[:2], arrays, axes=axes)
    with pytest.raises(ValueError, match=r"values\[1\]: elements of float32"):
        EngineMemory.from_arrays(GEOMETRY, arrays, [arrays[0], arrays[1].astype(np.float32), arrays[2]], axes=axes)
    with pytest.raises(ValueError, match=r"keys\[0\]: holds 5 blocks, another array 3"):
        EngineMemory.from_arrays(GEOMETRY, arrays, [arrays[0], arrays[1][:3], arrays[2]], axes=axes)
    with pytest.raises(ValueError, match="head_range"):
        EngineMemory.from_arrays(GEOMETRY, arrays, arrays, axes=axes, head_range=(1, 3))


@pytest.mark.parametrize(("ids", "message"), [([0, 5], "block id 5"), ([-1], "block id -1"), ([[1]], "2 axes")])
def test_block_ids_out_of_range_are_refused(ids: list[Any], message: str) -> None:
    memory = EngineMemory.from_arrays(GEOMETRY, [logical(GEOMETRY)], axes="layer kv block token head dim")
    with pytest.raises(ValueError, match=message):
        memory.blocks(ids)
    with pytest.raises(TypeError, match="integers"):
        memory.blocks(np.array([0.0]))  # pyright: ignore[reportArgumentType]
    assert memory.blocks([]).num_blocks == 0
    with pytest.raises(ValueError, match="1 addresses for 2 blocks"):
        memory.blocks([0, 1]).gather(np.zeros(1, np.uint64))
