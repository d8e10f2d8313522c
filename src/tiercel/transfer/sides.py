"""The engine's side of a plan: its blocks as tiers take them, and how they are best moved. Made by `devices`."""

from collections.abc import Callable
from dataclasses import dataclass

from tiercel.tiers.base import BlockMemory
from tiercel.transfer.guard import Guard
from tiercel.transfer.layers import LayeredTarget
from tiercel.transfer.remote import RemoteMemory


@dataclass(frozen=True, eq=False)
class EngineSide:
    """An engine's blocks, of a load or a store.

    Attributes:
        memory: the blocks.
        on_gpu: whether they lie on a GPU, which moves much in little time: its chunks are larger.
        ready: waits at most so many seconds for the engine to be done with the blocks, and says whether it is; None: it is.
        layers: the same blocks layer by layer, for a load whose layers are waited for one by one.
    """

    memory: BlockMemory
    on_gpu: bool = False
    layers: LayeredTarget | None = None
    ready: Callable[[float], bool] | None = None

    @property
    def num_blocks(self) -> int:
        """Number of blocks."""
        return self.memory.num_blocks

    def guard(self) -> Guard:
        """Return a fence for one ticket's copies from and to these blocks."""
        return Guard(self.memory.give_up if isinstance(self.memory, RemoteMemory) else None)
