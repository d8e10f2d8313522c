"""Random strided layouts: gather and scatter against numpy, byte for byte, with nothing else touched."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiercel._native import CopyProgram, copy_blocks

SEEDS = st.integers(0, 2**32 - 1)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A paged engine tensor, [layers][pages][2][heads][tokens][bytes] in some order, and its slot format.

    A slot is [layers][2][heads][tokens][run], of which this shard holds the heads [first_head, first_head + num_heads).
    """

    num_layers: int
    num_pages: int
    num_heads: int
    num_shards: int
    num_tokens: int
    run_bytes: int
    pad_bytes: int
    heads_before_tokens: bool

    @property
    def page_shape(self) -> tuple[int, ...]:
        inner = (self.num_heads, self.num_tokens) if self.heads_before_tokens else (self.num_tokens, self.num_heads)
        return (self.num_layers, self.num_pages, 2, *inner, self.run_bytes + self.pad_bytes)

    @property
    def slot_shape(self) -> tuple[int, ...]:
        return (self.num_layers, 2, self.num_heads * self.num_shards, self.num_tokens, self.run_bytes)

    @property
    def block_bytes(self) -> int:
        return int(np.prod(self.slot_shape))

    def slot_view(self, engine: np.ndarray, page: int) -> np.ndarray:
        """A page as [layers][2][heads][tokens][run]."""
        block = engine[:, page, ..., : self.run_bytes]
        return block if self.heads_before_tokens else block.swapaxes(2, 3)

    def program(self, engine: np.ndarray, shard: int) -> CopyProgram:
        strides, slot_strides = engine.strides, np.empty(self.slot_shape, np.uint8).strides
        head_stride, token_stride = (strides[3], strides[4]) if self.heads_before_tokens else (strides[4], strides[3])
        pieces = [
            [
                engine.ctypes.data + layer * strides[0] + half * strides[2],
                strides[1],
                layer * slot_strides[0] + half * slot_strides[1] + shard * self.num_heads * slot_strides[2],
                self.num_heads,
                head_stride,
                slot_strides[2],
                self.num_tokens,
                token_stride,
                self.run_bytes,
            ]
            for layer in range(self.num_layers)
            for half in range(2)
        ]
        return CopyProgram(np.array(pieces, np.int64), self.block_bytes)


LAYOUTS = st.builds(
    Layout,
    num_layers=st.integers(1, 4),
    num_pages=st.integers(1, 8),
    num_heads=st.integers(1, 4),
    num_shards=st.integers(1, 3),
    num_tokens=st.integers(1, 16),
    run_bytes=st.sampled_from([1, 7, 64, 128, 1000, 1024, 1100, 4096]),
    pad_bytes=st.sampled_from([0, 0, 3, 64]),
    heads_before_tokens=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(layout=LAYOUTS, seed=SEEDS, num_threads=st.integers(1, 3), data=st.data())
def test_gather_and_scatter_equal_numpy_and_touch_nothing_else(
    layout: Layout, seed: int, num_threads: int, data: st.DataObject
) -> None:
    random = np.random.default_rng(seed)
    shard = data.draw(st.integers(0, layout.num_shards - 1))
    pages = np.array(data.draw(st.permutations(range(layout.num_pages))), np.int64)
    engine = random.integers(0, 256, layout.page_shape, np.uint8)
    slots = random.integers(0, 256, (layout.num_pages, layout.block_bytes), np.uint8)
    addresses = np.array([slot.ctypes.data for slot in slots], np.uint64)
    heads = slice(shard * layout.num_heads, (shard + 1) * layout.num_heads)
    copies = layout.program(engine, shard)

    expected = slots.copy()
    for page, slot in zip(pages, expected, strict=True):
        slot.reshape(layout.slot_shape)[:, :, heads] = layout.slot_view(engine, page)
    unchanged = engine.copy()
    copies.gather(pages, addresses, num_threads)
    np.testing.assert_array_equal(slots, expected)
    np.testing.assert_array_equal(engine, unchanged)

    slots[:] = random.integers(0, 256, slots.shape, np.uint8)
    untouched = slots.copy()
    for page, slot in zip(pages, slots, strict=True):
        layout.slot_view(unchanged, page)[:] = slot.reshape(layout.slot_shape)[:, :, heads]
    copies.scatter(pages, addresses, num_threads)
    np.testing.assert_array_equal(engine, unchanged)
    np.testing.assert_array_equal(slots, untouched)


@pytest.mark.parametrize("run_bytes", [512, 4096, 20_011, 1 << 20])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_copies_larger_than_the_caches_are_exact(run_bytes: int, num_threads: int) -> None:
    num_runs = (24 << 20) // run_bytes
    random = np.random.default_rng(run_bytes)
    engine = random.integers(0, 256, (num_runs, run_bytes), np.uint8)
    target = np.zeros(engine.size + 13, np.uint8)
    order = random.permutation(num_runs).astype(np.int64)
    addresses = (target.ctypes.data + 5 + np.arange(num_runs) * run_bytes).astype(np.uint64)
    piece = np.array([[engine.ctypes.data, run_bytes, 0, 1, 0, 0, 1, 0, run_bytes]], np.int64)
    copies = CopyProgram(piece, run_bytes)
    copies.gather(order, addresses, num_threads)
    np.testing.assert_array_equal(target[5:-8].reshape(engine.shape), engine[order])
    assert not target[:5].any()
    assert not target[-8:].any()
    expected = engine.copy()
    engine[:] = 0
    copies.scatter(order, addresses, num_threads)
    np.testing.assert_array_equal(engine, expected)


@settings(deadline=None)
@given(seed=SEEDS, num_blocks=st.integers(0, 20), block_bytes=st.integers(1, 5000), num_threads=st.integers(1, 4))
def test_copy_blocks_equals_numpy(seed: int, num_blocks: int, block_bytes: int, num_threads: int) -> None:
    random = np.random.default_rng(seed)
    source = random.integers(0, 256, (num_blocks, block_bytes), np.uint8)
    target = np.zeros_like(source)
    order = random.permutation(num_blocks)
    sources = (source.ctypes.data + np.arange(num_blocks) * block_bytes).astype(np.uint64)
    targets = (target.ctypes.data + order * block_bytes).astype(np.uint64)
    copy_blocks(sources, targets, block_bytes, num_threads)
    np.testing.assert_array_equal(target[order], source)
