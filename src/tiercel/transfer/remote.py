"""Engine memory that other processes hold and copy: what a cache needs to know of it.

Implemented by `tiercel.ranks` and `tiercel.node`. An engine gives a cache such blocks where it gives `EngineBlocks` of its own;
a tier sees the `RemoteMemory` behind them and knows no difference. Classes and no protocols: each load and store asks which
kind it was given.
"""

from abc import ABC, abstractmethod
from typing import Protocol

from tiercel.layout import BlockGeometry
from tiercel.tiers.base import Addresses


class RemoteLayout(Protocol):
    """What a cache checks of memory that others hold, as of an `EngineMemory`."""

    @property
    def geometry(self) -> BlockGeometry: ...

    @property
    def writable(self) -> bool: ...

    @property
    def on_gpu(self) -> bool: ...

    @property
    def holds_whole_blocks(self) -> bool: ...


class RemoteMemory(ABC):
    """Blocks for the copies of one ticket, which other processes make; a `tiers.base.BlockMemory`."""

    @property
    @abstractmethod
    def num_blocks(self) -> int: ...

    @property
    @abstractmethod
    def holder(self) -> object:
        """Whose processes make the copies: one that takes its time holds up no other holder's transfers."""

    @property
    def addresses(self) -> None:
        return None

    @abstractmethod
    def gather(self, targets: Addresses) -> None: ...

    @abstractmethod
    def scatter(self, sources: Addresses) -> None: ...

    @abstractmethod
    def slice(self, start: int, stop: int) -> "RemoteMemory": ...

    @abstractmethod
    def give_up(self) -> None:
        """End the waits for copies, now and from now on: nobody wants them any more. Returns at once; the copies then raise
        `RevokedError` or `UnsettledError` within a bound, and what a process was told of them it forgets or finishes."""


class RemoteBlocks(ABC):
    """Some blocks of memory that other processes hold."""

    @property
    @abstractmethod
    def memory(self) -> RemoteLayout: ...

    @property
    @abstractmethod
    def num_blocks(self) -> int: ...

    @property
    @abstractmethod
    def are_distinct(self) -> bool: ...

    @abstractmethod
    def reach(self) -> RemoteMemory:
        """Return them for the copies of one ticket."""
