"""vLLM's host memory as the cache reads and writes it."""

import ctypes

import numpy as np

from tiercel import EngineMemory, KeyedCache


def describe_view(cache: KeyedCache, view: memoryview) -> EngineMemory:
    """Describe vLLM's host memory, chunk i being view[i]. Keeps no hold on the view: vLLM releases it after `shutdown`."""
    if view.shape is None or view.strides is None or view.ndim != 2 or view.strides[1] != 1 or view.readonly:
        raise ValueError(
            f"primary_kv_view of shape {view.shape} and strides {view.strides}: must be rows of bytes, writable"
        )
    address = np.asarray(view).__array_interface__["data"][0]
    rows, row_bytes = view.shape
    array = np.ctypeslib.as_array((ctypes.c_uint8 * (rows * row_bytes)).from_address(address))
    return EngineMemory.from_arrays(cache.geometry, [array.reshape(rows, 1, row_bytes)], axes="block token dim")
