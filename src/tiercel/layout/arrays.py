"""Arrays in host or GPU memory as address, shape and strides, from whatever library they belong to, without importing it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

HOST_DEVICE = "cpu"
"""Name of host memory, as torch has it."""

_DEVICE_KINDS = (HOST_DEVICE, "cuda")


@dataclass(frozen=True, kw_only=True)
class EngineArray:
    """An array in an engine's memory.

    Attributes:
        address: of the element at index 0 of every axis, on its device.
        device: where it lies: "cpu" for host memory, "cuda:0" for the first NVIDIA GPU that the process sees.
        shape: size of each axis.
        strides: bytes between neighbours along each axis; may be negative.
        dtype: element type, by torch's or numpy's name.
        element_bytes: bytes of an element.
        writable: whether its elements may be changed; never so if one element stands for several.
        owner: what keeps the memory alive.
    """

    address: int
    device: str = HOST_DEVICE
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    element_bytes: int
    writable: bool
    owner: object


def engine_array(array: object) -> EngineArray:
    """Describe an array: numpy, a torch tensor on the CPU or an NVIDIA GPU, or host memory with DLPack or the buffer protocol.

    A tensor with data_ptr, stride and element_size, as torch's have, is asked through these, because numpy has no
    bfloat16 and no float8.

    Raises:
        TypeError: it is none of these.
        ValueError: it lies on a device of another kind, or in another byte order.
    """
    if all(hasattr(array, name) for name in ("data_ptr", "stride", "element_size", "device")):
        return _from_tensor(array)
    return _from_numpy(_as_numpy(array), array)


def _as_numpy(array: Any) -> NDArray[Any]:
    if isinstance(array, np.ndarray):
        return array
    if hasattr(array, "__dlpack__"):
        try:
            return np.from_dlpack(array)
        except (BufferError, RuntimeError) as error:
            raise ValueError(f"a {type(array).__name__} cannot be reached as host memory: {error}") from error
    try:
        return np.asarray(memoryview(array))
    except TypeError as error:
        raise TypeError(
            f"a {type(array).__name__} is no array: needs numpy, a torch tensor, DLPack or the buffer protocol"
        ) from error


def _from_numpy(array: NDArray[Any], owner: object) -> EngineArray:
    if not array.dtype.isnative:
        raise ValueError(f"array of {array.dtype}: must be in this machine's byte order")
    return EngineArray(
        address=int(array.__array_interface__["data"][0]),
        shape=array.shape,
        strides=array.strides,
        dtype=array.dtype.name,
        element_bytes=array.dtype.itemsize,
        writable=array.flags.writeable and not _repeats(array.shape, array.strides),
        owner=(array, owner),
    )


def _from_tensor(tensor: Any) -> EngineArray:
    kind = str(getattr(tensor.device, "type", tensor.device))
    if kind not in _DEVICE_KINDS:
        raise ValueError(f"tensor on device {tensor.device}: must lie on a device of kind {' or '.join(_DEVICE_KINDS)}")
    element_bytes = int(tensor.element_size())
    shape = tuple(int(size) for size in tensor.shape)
    strides = tuple(int(step) * element_bytes for step in tensor.stride())
    return EngineArray(
        address=int(tensor.data_ptr()),
        device=kind if kind == HOST_DEVICE else f"{kind}:{tensor.device.index or 0}",
        shape=shape,
        strides=strides,
        dtype=str(tensor.dtype).removeprefix("torch."),
        element_bytes=element_bytes,
        writable=not _repeats(shape, strides),
        owner=tensor,
    )


def _repeats(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether one element stands for several, as in a broadcast array."""
    return any(size > 1 and stride == 0 for size, stride in zip(shape, strides, strict=True))
