"""The threads that read blocks of the node's host memory for loads of this process. Used by `link` and `launching` only.

Where all that a lookup found lies in that memory, its pins keep it there, and the lookup told where: nothing needs to be asked
before the blocks are copied. The node is asked afterwards whether the lookup held all the time; what was read without is void.

    begun ──chunk by chunk──► copied ──held──► resolved as done
      └──fenced, or a chunk failed      └──void, or the node is gone──► resolved without a block
"""

import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

import numpy as np

from tiercel.config import CacheConfig
from tiercel.config.sizes import size_in_bytes
from tiercel.errors import ThrottledError, TiercelError
from tiercel.node.client.calls import NodeGoneError
from tiercel.node.client.pins import RemotePins
from tiercel.node.client.threads import CopyThreads
from tiercel.node.client.tickets import OpenTicket, TicketTable
from tiercel.ranks.regions import MappedRegion
from tiercel.tiers.base import Addresses, BlockStatus, TierName, UnsettledError
from tiercel.transfer import LaneName
from tiercel.transfer.guard import RevokedError

_log = logging.getLogger(__name__)

LANE = LaneName(TierName.HOST, True)
"""Whose place these threads take."""

NUM_THREADS = 2
"""Chunks copied at once, as by a lane of a cache in process."""

_SHARE_BYTES = 4 << 20
"""Least part of a load that another thread is woken for."""

_CANCELLED, _FAILED = BlockStatus.CANCELLED, BlockStatus.IO_ERROR

EndRead = Callable[[int, int, int, float], bool]
"""Ends a lookup of which slots were read, from a block on so many, which took so many seconds; whether it held all the time.
Raises NodeGoneError, ThrottledError."""


class _Read:
    """One load; what is written here is guarded by its lock. Wherever it is dropped, its pins go back."""

    def __init__(
        self, opened: OpenTicket, pins: RemotePins, first_block: int, addresses: Addresses, chunk_blocks: int
    ) -> None:
        self.opened = opened
        self.pins = pins
        self.first_block = first_block
        self.addresses = addresses
        self.chunk_blocks = chunk_blocks
        self.lock = threading.Lock()
        self.num_begun = 0
        self.num_left = -(-len(addresses) // chunk_blocks)
        self.busy_s = 0.0
        self.failure: BlockStatus | None = None


def share_of(num_blocks: int, least: int) -> int:
    """Blocks of a load that each thread copies, `least` at least: what is less than two of these is one thread's."""
    num_threads = max(1, min(NUM_THREADS, num_blocks // least))
    return max(1, -(-num_blocks // num_threads))


class HostReads:
    """Loads of one connection from the node's host memory. Thread-safe."""

    def __init__(
        self,
        tickets: TicketTable,
        region: MappedRegion,
        end_read: EndRead,
        *,
        block_bytes: int,
        config: CacheConfig,
        on_defect: Callable[[str], None],
    ) -> None:
        """Make the threads, without starting them.

        Args:
            region: the host memory.
            config: the node's; its chunks are what is copied between two looks at whether it is still wanted, and as many loads
                as one of its queues takes have room.
            on_defect: ends the connection.
        """
        self._tickets = tickets
        self._region = region
        self._end_read = end_read
        chunk_bytes = size_in_bytes("transfer_chunk_bytes", config.transfer_chunk_bytes)
        gpu_chunk_bytes = size_in_bytes("transfer_gpu_chunk_bytes", config.transfer_gpu_chunk_bytes)
        self._share_blocks = max(1, _SHARE_BYTES // block_bytes)
        self._chunk_blocks = max(1, chunk_bytes // block_bytes)
        self._gpu_chunk_blocks = max(self._chunk_blocks, gpu_chunk_bytes // block_bytes)
        self._queue_depth_max = config.transfer_queue_depth_max
        self._on_defect = on_defect
        self._num_open = 0
        self._waiting: SimpleQueue[_Read | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._ended = False
        self._threads = CopyThreads("tiercel-node-read", NUM_THREADS, self._work)
        self.start = self._threads.start

    def check_room(self, num_loads: int) -> None:
        """Raise ThrottledError if so many more are too many."""
        if self._num_open + num_loads > self._queue_depth_max:
            raise LANE.no_room(num_loads)

    def begin(self, opened: OpenTicket, pins: RemotePins, first_block: int) -> None:
        """Copy blocks into the memory of a ticket that has slots soon, and resolve it. Takes the pins over.

        Args:
            first_block: of the pinned sequence, the ticket's first.
        """
        slots = np.frombuffer(opened.packed_slots, np.uint32)
        addresses = slots.astype(np.uint64) * np.uint64(self._region.unit_bytes) + np.uint64(self._region.address)
        chunk_blocks = self._gpu_chunk_blocks
        if not opened.on_gpu:
            chunk_blocks = min(self._chunk_blocks, share_of(len(slots), self._share_blocks))
        read = _Read(opened, pins, first_block, addresses, chunk_blocks)
        with self._lock:
            ended = self._ended
            if not ended:
                self._num_open += 1
                self._waiting.put(read)
        if ended:
            self._tickets.finish(opened, _FAILED)

    def end(self, timeout_s: float) -> bool:
        """Begin nothing more and wait for the rest, a device's copies too. Returns False if one goes on after that time.
        Idempotent."""
        with self._lock:
            if not self._ended:
                self._ended = True
                for _ in range(NUM_THREADS):
                    self._waiting.put(None)
        return self._threads.join(timeout_s)

    def _work(self) -> None:
        while (read := self._waiting.get()) is not None:
            try:
                self._copy_chunk(read)
            except BaseException:
                self._on_defect("a read of the node's memory met a defect")
                raise

    def _copy_chunk(self, read: _Read) -> None:
        """Copy a load's next chunk, behind which it waits for its turn again."""
        with read.lock:
            start = read.num_begun * read.chunk_blocks
            read.num_begun += 1
            stop = min(start + read.chunk_blocks, len(read.addresses))
            wanted = read.failure is None
        if stop < len(read.addresses):
            self._waiting.put(read)
        failure: BlockStatus | None = None
        begun_at = time.monotonic()
        try:
            if wanted:
                memory = read.opened.memory
                assert memory is not None, "a load that goes nowhere was begun"
                memory.slice(start, stop).scatter(read.addresses[start:stop])
        except RevokedError:
            failure = _CANCELLED
        except UnsettledError as error:
            _log.warning("a read of the node's memory failed: %s", error)
            self._threads.leave(error.settled, lambda: self._end_chunk(read, _FAILED, 0.0))
            return
        except (TiercelError, ValueError) as error:
            _log.warning("a read of the node's memory failed: %s", error)
            failure = _FAILED
        self._end_chunk(read, failure, time.monotonic() - begun_at)

    def _end_chunk(self, read: _Read, failure: BlockStatus | None, busy_s: float) -> None:
        with read.lock:
            read.failure = read.failure or failure
            read.busy_s += busy_s
            read.num_left -= 1
            is_last = not read.num_left
        if not is_last:
            self._tickets.settle(read.opened.ticket.number)  # who stopped it may not have waited for this chunk
            return
        with self._lock:
            self._num_open -= 1
        failure = read.failure or self._end_lookup(read)
        read.pins.release()
        if failure is None:
            self._tickets.finish_read(read.opened)
        else:
            self._tickets.finish(read.opened, failure)

    def _end_lookup(self, read: _Read) -> BlockStatus | None:
        """End the lookup of blocks that were all read. Returns what the read failed with after all, None for nothing."""
        try:
            held = self._end_read(read.pins.lookup, read.first_block, len(read.addresses), read.busy_s)
        except (NodeGoneError, ThrottledError) as error:
            _log.debug("what was read of the node's memory is void: %s", error)
            return _FAILED
        read.pins.hand_over()
        return None if held else _CANCELLED  # the cache was reset meanwhile
