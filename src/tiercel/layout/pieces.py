"""Compiles a strided box in an engine's memory into the pieces that `CopyProgram` takes: boxes of equal runs of bytes.

Runs are made as long as both sides allow: axes that are contiguous in the engine and in the slot become one. An
engine that keeps whole blocks in slot order is one run; a tensor per layer is one run per layer and K or V.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

Piece = tuple[int, int, int, int, int, int, int, int, int]
"""engine address of block 0, engine stride of a block, offset in the slot, outer count, outer engine stride, outer slot
stride, inner count, inner engine stride, run bytes; the inner slot stride is the run."""


@dataclass(frozen=True)
class Axis:
    """One axis of a box: how many, and the bytes between neighbours on either side."""

    count: int
    engine_stride: int
    slot_stride: int


def compile_box(
    address: int, block_stride: int, slot_offset: int, axes: Sequence[Axis], element_bytes: int
) -> list[Piece]:
    """Return the pieces of one box.

    Args:
        address: of the box's first element in block 0 of the engine.
        block_stride: bytes between neighbouring blocks in the engine.
        slot_offset: of the box's first element in the slot.
        axes: the box's axes in any order.
        element_bytes: bytes of an element.
    """
    merged = _merge(sorted((axis for axis in axes if axis.count > 1), key=lambda axis: -axis.slot_stride))
    run = element_bytes
    if merged and merged[-1].slot_stride == run and merged[-1].engine_stride == run:
        run *= merged.pop().count
    inner = Axis(1, 0, run)
    if merged and merged[-1].slot_stride == run:
        inner = merged.pop()
    outer = Axis(1, 0, 0)
    if merged:
        outer = max(merged, key=lambda axis: axis.count)
        merged.remove(outer)
    pieces: list[Piece] = []
    for indices in itertools.product(*(range(axis.count) for axis in merged)):
        engine = address + sum(i * axis.engine_stride for i, axis in zip(indices, merged, strict=True))
        offset = slot_offset + sum(i * axis.slot_stride for i, axis in zip(indices, merged, strict=True))
        head = (engine, block_stride, offset)
        pieces.append(
            (*head, outer.count, outer.engine_stride, outer.slot_stride, inner.count, inner.engine_stride, run)
        )
    return pieces


def _merge(axes: Sequence[Axis]) -> list[Axis]:
    """Join neighbours that step alike on both sides. Axes are given outermost in the slot first."""
    merged: list[Axis] = []
    for axis in axes:
        outer = merged[-1] if merged else None
        if (
            outer is not None
            and outer.engine_stride == axis.count * axis.engine_stride
            and outer.slot_stride == axis.count * axis.slot_stride
        ):
            merged[-1] = Axis(outer.count * axis.count, axis.engine_stride, axis.slot_stride)
        else:
            merged.append(axis)
    return merged
