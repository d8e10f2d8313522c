"""Copies between NVIDIA GPUs and host memory. Imported when an engine's memory first lies on one; needs NVIDIA's driver.

`CudaCopier` moves one GPU's blocks; `PinnedHost` says which host memory GPUs reach by themselves; `nvrtc` compiles
`copy_blocks.cu`. What runs without Python is in `native/core/cuda`.
"""

from tiercel.transfer.cuda.copier import CudaBlocks, CudaCopier
from tiercel.transfer.cuda.options import CopyWay, CudaCopyOptions
from tiercel.transfer.cuda.pinned import PinnedHost

__all__ = ["CopyWay", "CudaBlocks", "CudaCopier", "CudaCopyOptions", "PinnedHost"]
