"""The slot format: the order and sizes in which the KV of one block lies in every tier."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from tiercel.config import DTYPE_BYTES, ModelConfig

FORMAT_VERSION = 1
"""Version of the slot format; part of the fingerprint, so that blocks of another version are never taken for these."""

SlotOrder = Literal["token_head", "head_token"]
"""Order of the axes in a slot: [layer, kv, token, head, dim] or [layer, kv, head, token, dim]."""

_AXES: Mapping[str, tuple[str, ...]] = {
    "token_head": ("layer", "kv", "token", "head", "dim"),
    "head_token": ("layer", "kv", "head", "token", "dim"),
}


@dataclass(frozen=True, kw_only=True)
class BlockGeometry:
    """Sizes and order of one block, dense, over all tensor-parallel ranks.

    Attributes:
        model_id: which weights made the KV.
        weights_epoch: version of those weights.
        tokens_per_block: tokens of a block, a power of two.
        num_layers: layers.
        kv_parts: 2 for keys and values, 1 for the one latent of MLA.
        num_kv_heads: heads over all ranks.
        head_size: elements of a head.
        dtype: element type, by torch's name.
        order: order of the axes.

    Raises:
        ValueError: a size is out of range, or the type or order is unknown.
    """

    model_id: str
    weights_epoch: str = ""
    tokens_per_block: int
    num_layers: int
    kv_parts: int
    num_kv_heads: int
    head_size: int
    dtype: str
    order: SlotOrder = "token_head"

    def __post_init__(self) -> None:
        for name in ("tokens_per_block", "num_layers", "kv_parts", "num_kv_heads", "head_size"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} = {value!r}: must be an integer, at least 1")
        if self.tokens_per_block & (self.tokens_per_block - 1):
            raise ValueError(f"tokens_per_block = {self.tokens_per_block}: must be a power of two")
        if self.kv_parts > 2:
            raise ValueError(f"kv_parts = {self.kv_parts}: must be 2 (keys and values) or 1 (MLA)")
        if self.dtype not in DTYPE_BYTES:
            raise ValueError(f"dtype = {self.dtype!r}: must be one of {', '.join(DTYPE_BYTES)}")
        if self.order not in get_args(SlotOrder):
            raise ValueError(f"order = {self.order!r}: must be one of {', '.join(get_args(SlotOrder))}")

    @classmethod
    def from_model(
        cls, model: ModelConfig, *, tokens_per_block: int, order: SlotOrder = "token_head"
    ) -> "BlockGeometry":
        """Return the geometry of a model's blocks. Raises ConfigError for a model that cannot be stored whole."""
        model.require_full_attention()
        return cls(
            model_id=model.model_id,
            weights_epoch=model.weights_epoch,
            tokens_per_block=tokens_per_block,
            num_layers=model.num_layers,
            kv_parts=1 if model.use_mla else 2,
            num_kv_heads=model.num_kv_heads,
            head_size=model.head_size,
            dtype=model.dtype,
            order=order,
        )

    @property
    def element_bytes(self) -> int:
        """Bytes of one element."""
        return DTYPE_BYTES[self.dtype]

    @property
    def block_bytes(self) -> int:
        """Bytes of one block."""
        shape = self.shape
        return shape["layer"] * shape["kv"] * shape["token"] * shape["head"] * shape["dim"] * self.element_bytes

    @property
    def shape(self) -> dict[str, int]:
        """Size of each axis of a slot, outermost first."""
        sizes = {
            "layer": self.num_layers,
            "kv": self.kv_parts,
            "token": self.tokens_per_block,
            "head": self.num_kv_heads,
            "dim": self.head_size,
        }
        return {axis: sizes[axis] for axis in _AXES[self.order]}

    @property
    def strides(self) -> dict[str, int]:
        """Bytes between neighbours along each axis of a slot, outermost first."""
        strides: dict[str, int] = {}
        step = self.element_bytes
        for axis, size in reversed(self.shape.items()):
            strides[axis] = step
            step *= size
        return dict(reversed(strides.items()))

    def fingerprint_parts(self) -> dict[str, str | int]:
        """Return what must be equal for two blocks to be exchangeable.

        The tensor-parallel size is not among it: a slot holds the heads of all ranks, however they are split.
        """
        return {
            "format_version": FORMAT_VERSION,
            "model_id": self.model_id,
            "weights_epoch": self.weights_epoch,
            "tokens_per_block": self.tokens_per_block,
            "num_layers": self.num_layers,
            "kv_parts": self.kv_parts,
            "num_kv_heads": self.num_kv_heads,
            "head_size": self.head_size,
            "dtype": self.dtype,
            "order": self.order,
        }


def difference(theirs: Mapping[str, str | int], ours: Mapping[str, str | int]) -> str:
    """Say what two processes' `BlockGeometry.fingerprint_parts` disagree on first, "" if on nothing."""
    for name in (*ours, *(name for name in theirs if name not in ours)):
        if theirs.get(name) != ours.get(name):
            return f"{name} = {theirs.get(name)!r}, the cache {ours.get(name)!r}"
    return ""
