"""What a cache of token sequences is to those who use it, wherever its tiers are: `Cache` in process, `NodeClient` of a node.

Connectors name this class. `Cache` has each method's full contract; a class that has them elsewhere says where it differs.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Self

import numpy as np
from numpy.typing import NDArray

from tiercel.cache.checks import Blocks, looked_up
from tiercel.cache.tickets import Ticket
from tiercel.control import HitCurve, Lookup, Priority
from tiercel.hashing import Sequence
from tiercel.layout import BlockGeometry
from tiercel.telemetry.logs import bind_request_id
from tiercel.telemetry.snapshot import StatusSnapshot
from tiercel.tiers.memory import SharedMemory
from tiercel.transfer import Devices


class Closeable(ABC):
    """What is closed at the end of a `with` block, sync or async."""

    @abstractmethod
    def close(self) -> None:
        """Release everything. Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # a signal ended the loop, and the block's coroutine is being closed
            self.close()
        else:
            await asyncio.to_thread(self.close)


class CacheFacade(Closeable):
    """Stores and gives back the KV blocks of one model.

    Attributes:
        geometry: the format of its blocks.
        devices: GPUs that engines' memory lies on; `devices.attach` prepares one.
        shared_memory: what ranks map (`RankGroup`): the host tier's slots, the disk tier's buffers. Empty if a cache was opened
            to share none.
    """

    geometry: BlockGeometry
    devices: Devices
    shared_memory: tuple[SharedMemory, ...]

    @abstractmethod
    def sequence(
        self, tokens: NDArray[np.int32] | NDArray[np.int64] | list[int] | None = None, *, namespace: str = ""
    ) -> Sequence:
        """Start a sequence; `extend` it as it grows, so that only new blocks are hashed."""

    @abstractmethod
    def lookup(
        self,
        sequence: Sequence,
        *,
        limit_tokens: int | None = None,
        engine_tokens: int = 0,
        request_id: str | None = None,
    ) -> Lookup:
        """Find the leading blocks that are stored and decide how many of them are worth loading."""

    def load(
        self,
        what: Lookup | Sequence,
        target: Blocks,
        *,
        limit_tokens: int | None = None,
        by_layer: bool = False,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Ticket:
        """Bring stored blocks into the engine's memory: block i of what is loaded to block i of `target`.

        Args:
            what: a lookup, or a sequence that is looked up now.
            target: at least as many blocks as are to be loaded; must stay valid until the ticket has resolved.
            limit_tokens: as in `lookup`, with a sequence only. timeout_s: deadline; by default `transfer_timeout_s`.
            by_layer: load the first layers first, as far as they lie in host memory; `Ticket.wait_layer` waits for one.

        Raises:
            ThrottledError: too many moves are waiting; the lookup keeps its pins.
            StaleTicketError: the lookup was used before, or the cache was reset since.
            ValueError: `target` is too small, read-only, of another geometry or names a block twice, the lookup is another
                cache's, or the timeout is not positive.
        """
        with bind_request_id(request_id), looked_up(self.lookup, what, limit_tokens) as lookup:
            return self.launch([(lookup, target)], by_layer=by_layer, timeout_s=timeout_s)[0]

    @abstractmethod
    def launch(
        self, batch: Iterable[tuple[Lookup, Blocks]], *, by_layer: bool = False, timeout_s: float | None = None
    ) -> list[Ticket]:
        """Launch several loads, all or none. Arguments and errors as in `load`; after an error no lookup was used."""

    @abstractmethod
    def prefetch(
        self,
        what: Lookup | Sequence,
        *,
        limit_tokens: int | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Ticket:
        """Bring stored blocks from slower tiers into the fastest one. Arguments and errors as in `load`."""

    @abstractmethod
    def store(
        self,
        sequence: Sequence,
        source: Blocks,
        *,
        first_block: int = 0,
        priority: Priority = 0,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Ticket:
        """Store the sequence's full blocks that are not stored yet: block first_block + i from block i of `source`."""

    @abstractmethod
    def observe_prefill(self, *, cached_tokens: int, computed_tokens: int, seconds: float) -> None:
        """Tell how long the engine took to compute tokens behind a prefix; `load_policy: auto` learns from it."""

    @abstractmethod
    def observe_recompute(self, reason: str) -> None:
        """Tell that an error of ours became recompute, and which; status and metrics count it."""

    @abstractmethod
    def note(self, text: str, *, kind: str) -> None:
        """Tell of something that is slower or less than it could be: logged once, counted under its kind, shown in the status."""

    @abstractmethod
    def settle(self, timeout_s: float) -> bool:
        """Wait until nothing is under way. Returns whether that was so before the time was over."""

    @abstractmethod
    def reset(self) -> None:
        """Forget every block in every tier, durably, because the weights changed."""

    @abstractmethod
    def stats(self) -> StatusSnapshot:
        """What the cache holds and did, frozen."""

    @abstractmethod
    def hit_curve(self, capacities_blocks: Iterable[int] | None = None) -> HitCurve:
        """The hit rate that an LRU cache of each capacity would have had of late."""
