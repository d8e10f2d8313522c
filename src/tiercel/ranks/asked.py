"""Blocks in other processes for the copies of one ticket: of a group's ranks, and of a node's client."""

from typing import Generic, Protocol, Self, TypeVar, final

from tiercel.ranks.copies import Claim
from tiercel.tiers.base import Addresses
from tiercel.transfer.remote import RemoteMemory


class Sliceable(Protocol):
    """Some blocks, of which a part can be named."""

    @property
    def num_blocks(self) -> int:
        """Number of blocks."""
        ...

    def slice(self, start: int, stop: int) -> Self:
        """Return the blocks [start, stop)."""
        ...


BlocksT = TypeVar("BlocksT", bound=Sliceable)
_Asked = TypeVar("_Asked", contravariant=True)


class BlockCopier(Protocol[_Asked]):
    """Has other processes copy their blocks."""

    def run(self, blocks: _Asked, claim: Claim, addresses: Addresses, *, loading: bool) -> None:
        """Copy each block from its address, or to it unless `loading`."""

    def give_up(self, claim: Claim) -> None:
        """End the waits for a claim's copies."""


@final
class AskedMemory(RemoteMemory, Generic[BlocksT]):
    """Blocks that a copier's processes hold."""

    def __init__(self, copier: BlockCopier[BlocksT], blocks: BlocksT, claim: Claim) -> None:
        """copier: has the blocks copied; it is also their holder. claim: what all copies of the ticket have in common."""
        self._copier = copier
        self._blocks = blocks
        self._claim = claim

    @property
    def num_blocks(self) -> int:
        """Number of blocks."""
        return self._blocks.num_blocks

    @property
    def holder(self) -> object:
        """The copier: its processes copy together."""
        return self._copier

    def gather(self, targets: Addresses) -> None:
        """Copy every block to its target address. Raises as the copier's `run`."""
        self._copier.run(self._blocks, self._claim, targets, loading=False)

    def scatter(self, sources: Addresses) -> None:
        """Copy every block from its source address. Raises as the copier's `run`."""
        self._copier.run(self._blocks, self._claim, sources, loading=True)

    def slice(self, start: int, stop: int) -> "AskedMemory[BlocksT]":
        """The blocks [start, stop), for the same ticket."""
        return AskedMemory(self._copier, self._blocks.slice(start, stop), self._claim)

    def give_up(self) -> None:
        """End the waits for their copies."""
        self._copier.give_up(self._claim)
