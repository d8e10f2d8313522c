"""What a block is in memory: its slot format, and how an engine's KV memory maps onto it. Nobody else knows.

`BlockGeometry` is the format; `EngineMemory` is an engine's memory described by strides; `pieces` compiles one into
copies of the other. Tensor parallelism, MLA and every order of axes are data here, not classes.
"""

from tiercel.layout.events import stream_handle
from tiercel.layout.geometry import FORMAT_VERSION, BlockGeometry, SlotOrder
from tiercel.layout.memory import EngineBlocks, EngineMemory

__all__ = ["FORMAT_VERSION", "BlockGeometry", "EngineBlocks", "EngineMemory", "SlotOrder", "stream_handle"]
