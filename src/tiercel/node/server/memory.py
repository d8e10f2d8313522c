"""A client's memory, as the node's cache sees it: blocks of a ticket, which the client copies when it is asked to.

What a client does not do concerns nobody else. A load that it fails, or does not answer, counts as given up: that says nothing of
the blocks, which others may go on to use. A store's slots that it may still write to stay reserved until it has answered or its
process is gone.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final, final

from tiercel.errors import DeviceError
from tiercel.layout import BlockGeometry
from tiercel.node.codec import encode
from tiercel.node.events import CancelCopy, Copy
from tiercel.node.protocol import BLOCKS_MAX
from tiercel.ranks.asked import AskedMemory
from tiercel.ranks.asking import Asker, CopyRequest
from tiercel.ranks.copies import Claim, CopyTable
from tiercel.ranks.regions import RegionTable
from tiercel.tiers.base import Addresses
from tiercel.tiers.memory import SharedMemory
from tiercel.transfer.guard import RevokedError
from tiercel.transfer.remote import RemoteBlocks

_log = logging.getLogger(__name__)

_CLIENT: Final = 0
"""The only peer of a client's copies."""

COPY_S: Final = 30.0
"""Longest wait for a copy's answer; mostly the ticket's deadline ends it. It holds up nobody else (`transfer.lanes`)."""

BUFFER_COPY_S: Final = 1.0
"""The same for a copy to or from the disk tier's buffers, which are few and which all clients need."""

CANCEL_S: Final = 0.25
"""Longest wait for the answer to a cancelled copy."""


@final
class ClientCopies:
    """The copies of one client. Thread-safe."""

    def __init__(
        self,
        number: int,
        name: str,
        geometry: BlockGeometry,
        shared: Sequence[SharedMemory],
        send: Callable[[bytes], bool],
    ) -> None:
        """Ask nothing yet.

        Args:
            number: the client's: its moves wait in a queue of their own.
            name: the client's, for messages.
            shared: the cache's memory.
            send: sends a datagram to the client; False if it is gone or does not read.
        """
        self.number = number
        self.geometry = geometry
        self._send_bytes = send
        self._regions = RegionTable(shared, geometry.block_bytes)
        self._buffers = {number for number, memory in enumerate(shared) if not memory.resident}
        self._storing = threading.Lock()  # one buffer at a time: one that does not answer has no more than that
        self._table = CopyTable(lambda _: name)
        self._asker = Asker(self._table, lambda _: name, copy_s=COPY_S, cancel_s=CANCEL_S)

    def __len__(self) -> int:
        """Copies that it was asked for and has not answered."""
        return len(self._table)

    def run(self, blocks: "ClientBlocks", claim: Claim, addresses: Addresses, *, loading: bool) -> None:
        """Have blocks copied. Blocks; releases the GIL. For `AskedMemory` alone.

        Raises:
            ValueError: not one address for each block, or addresses that are not shared.
            DeviceError: the client failed, died, or does not answer, in a store.
            RevokedError: nobody wants it any more, or the same in a load.
            UnsettledError: as the two before, but the client may still write to the addresses.
        """
        if len(addresses) != blocks.num_blocks:
            raise ValueError(f"{len(addresses)} addresses for {blocks.num_blocks} blocks: must be one each")
        try:
            for start in range(0, len(addresses), BLOCKS_MAX):
                part = addresses[start : start + BLOCKS_MAX]
                self._run_part(blocks.ticket, blocks.first_block + start, claim, part, loading)
        except DeviceError as error:
            if not loading:
                raise
            _log.warning("a load failed: %s", error)
            raise RevokedError from error

    def give_up(self, claim: Claim) -> None:
        """End the waits for a claim's copies."""
        self._table.give_up(claim)

    def answer(self, number: int, failure: str) -> None:
        """Enter the client's answer. Raises `ranks.messages.MessageError` if it was not asked."""
        self._table.answer(number, _CLIENT, failure)

    def fail_all(self, reason: str) -> None:
        """End the waits for all copies; what the client may still write to stays reserved."""
        self._table.fail_all(reason)

    def lose(self, reason: str) -> None:
        """Enter that the client touches nothing any more."""
        self._table.lose(_CLIENT, reason)

    def _run_part(self, ticket: int, first_block: int, claim: Claim, addresses: Addresses, loading: bool) -> None:
        region, pages = self._regions.locate(addresses)
        places = pages.tobytes()

        def ask(number: int) -> bytes:
            copy = Copy(
                number=number, ticket=ticket, first_block=first_block, loading=loading, region=region, pages=places
            )
            return encode(copy)

        request = CopyRequest(ask=ask, cancel=lambda number: encode(CancelCopy(number)), loading=loading)
        is_buffer = region in self._buffers
        with self._storing if is_buffer and not loading else nullcontext():
            self._asker.run(claim, {_CLIENT: self._send}, request, BUFFER_COPY_S if is_buffer else None)

    def _send(self, data: bytes) -> None:
        if not self._send_bytes(data):
            raise OSError("it has left, or does not read")


@dataclass(frozen=True, slots=True)
class ClientLayout:
    """What a cache checks of a client's blocks."""

    geometry: BlockGeometry
    on_gpu: bool
    writable: bool = True
    holds_whole_blocks: bool = True


@final
class ClientBlocks(RemoteBlocks):
    """Blocks [first_block, first_block + num_blocks) of what a client launched a ticket with."""

    def __init__(
        self, copies: ClientCopies, ticket: int, num_blocks: int, *, on_gpu: bool = False, first_block: int = 0
    ) -> None:
        """ticket: the client's own number."""
        self.copies = copies
        self.ticket = ticket
        self.first_block = first_block
        self._num_blocks = num_blocks
        self._layout = ClientLayout(copies.geometry, on_gpu)

    @property
    def memory(self) -> ClientLayout:
        """What is known of the memory."""
        return self._layout

    @property
    def num_blocks(self) -> int:
        """Number of blocks."""
        return self._num_blocks

    @property
    def are_distinct(self) -> bool:
        """Whether no block is named twice; the client checks it."""
        return True

    @property
    def client(self) -> int:
        """Whose queue their moves wait in."""
        return self.copies.number

    def slice(self, start: int, stop: int) -> "ClientBlocks":
        """Return the blocks [start, stop)."""
        return ClientBlocks(
            self.copies, self.ticket, stop - start, on_gpu=self._layout.on_gpu, first_block=self.first_block + start
        )

    def reach(self) -> "AskedMemory[ClientBlocks]":
        """Return them for the copies of their ticket."""
        return AskedMemory(self.copies, self, Claim())
