"""Arrays in host memory as address, shape and strides, from whatever library they belong to, without importing it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class HostArray:
    """An array in host memory.

    Attributes:
        address: of the element at index 0 of every axis.
        shape: size of each axis.
        strides: bytes between neighbours along each axis; may be negative.
        dtype: element type, by torch's or numpy's name.
        element_bytes: bytes of an element.
        writable: whether its elements may be changed; never so if one element stands for several.
        owner: what keeps the memory alive.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    element_bytes: int
    writable: bool
    owner: object


def host_array(array: object) -> HostArray:
    """Describe an array: numpy, a torch CPU tensor, or anything with DLPack or the buffer protocol.

    A tensor with data_ptr, stride and element_size, as torch's have, is asked through these, because numpy has no
    bfloat16 and no float8.

    Raises:
        TypeError: it is none of these.
        ValueError: it does not lie in host memory, or in another byte order.
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
            f"a {type(array).__name__} is no array: needs numpy, a torch CPU tensor, DLPack or the buffer protocol"
        ) from error


def _from_numpy(array: NDArray[Any], owner: object) -> HostArray:
    if not array.dtype.isnative:
        raise ValueError(f"array of {array.dtype}: must be in this machine's byte order")
    return HostArray(
        address=int(array.__array_interface__["data"][0]),
        shape=array.shape,
        strides=array.strides,
        dtype=array.dtype.name,
        element_bytes=array.dtype.itemsize,
        writable=array.flags.writeable and not _repeats(array.shape, array.strides),
        owner=(array, owner),
    )


def _from_tensor(tensor: Any) -> HostArray:
    kind = str(getattr(tensor.device, "type", tensor.device))
    if kind != "cpu":
        raise ValueError(f"tensor on device {tensor.device}: must lie in host memory (device cpu)")
    element_bytes = int(tensor.element_size())
    shape = tuple(int(size) for size in tensor.shape)
    strides = tuple(int(step) * element_bytes for step in tensor.stride())
    return HostArray(
        address=int(tensor.data_ptr()),
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
