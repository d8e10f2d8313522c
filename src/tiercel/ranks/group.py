"""An engine's memory that lies in other processes, one for each tensor-parallel rank, as a cache sees it.

    group = RankGroup(cache.geometry, cache.shared_memory, num_ranks=2, directory=directory)
    group.wait_ready(60)
    ticket = cache.store(sequence, group.blocks(ids, after_step=step))

Each rank holds some heads of every block and copies them itself (`agent`); a block's number is the same in all of them. What
goes to them is which blocks and where. A copy ends when all ranks have answered; plans, chunks, deadlines and cancelling
are `transfer`'s and know nothing of ranks.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import DeviceError
from tiercel.layout import BlockGeometry
from tiercel.layout.arrays import HOST_DEVICE
from tiercel.layout.numbers import are_distinct, checked_numbers
from tiercel.ranks import sockets
from tiercel.ranks.asked import AskedMemory
from tiercel.ranks.asking import Asker, CopyRequest
from tiercel.ranks.copies import Claim, CopyTable
from tiercel.ranks.messages import BLOCKS_MAX, RANKS_MAX, Cancel, Copy, Hello, Region, Welcome, encode
from tiercel.ranks.regions import RegionTable
from tiercel.ranks.service import RankService
from tiercel.ranks.shards import ranks_to_gather_from
from tiercel.ranks.timeouts import RankTimeouts
from tiercel.tiers.base import Addresses
from tiercel.tiers.memory import SharedMemory
from tiercel.transfer.remote import RemoteBlocks

_DEFAULT_TIMEOUTS: Final = RankTimeouts()


@final
class RankGroup:
    """The ranks of one engine. Use as a context manager, or call `close`, before the cache is closed. Thread-safe.

    A rank that dies ends the group: every copy of it fails, and so do all later ones. One that stops answering costs a copy its
    deadline; until it answers again, later copies fail at once.
    """

    def __init__(
        self,
        geometry: BlockGeometry,
        shared: Sequence[SharedMemory],
        *,
        num_ranks: int,
        directory: Path,
        timeouts: RankTimeouts = _DEFAULT_TIMEOUTS,
    ) -> None:
        """Listen for the ranks.

        Args:
            geometry: the cache's.
            shared: the cache's memory, `Cache.shared_memory`.
            num_ranks: how many there are.
            directory: where they find the cache: of this user alone, made if it is missing, one for each group.

        Raises:
            ValueError: num_ranks is out of range, or no memory is shared.
            ConfigError: the directory is open to others, its path too long, or another group's.
            OSError: the socket cannot be made.
        """
        if not 1 <= num_ranks <= RANKS_MAX:
            raise ValueError(f"num_ranks = {num_ranks}: must lie in [1, {RANKS_MAX}]")
        if not shared:
            raise ValueError(
                "the cache shares no memory: open it with shares_memory=True, and a host tier or a disk tier"
            )
        self.geometry = geometry
        self.num_blocks = 0
        """Blocks that every rank has; 0 until all have joined."""
        self.writable = False
        self.on_gpu = False
        self.holds_whole_blocks = True
        self._timeouts = timeouts
        self._regions = RegionTable(shared, geometry.block_bytes)
        self._copies = CopyTable()
        self._asker = Asker(self._copies, _named, copy_s=timeouts.copy_s, cancel_s=timeouts.cancel_s)
        self._all_ranks = tuple(range(num_ranks))
        self._gathering: tuple[int, ...] = ()
        self._path = directory / sockets.SOCKET_NAME
        self._service = RankService(
            sockets.listen(directory),
            Welcome([Region(memory.num_bytes, memory.resident) for memory in shared]),
            shared,
            geometry=geometry.fingerprint_parts(),
            num_ranks=num_ranks,
            copies=self._copies,
            check=self._enter_ranks,
        )

    def wait_ready(self, timeout_s: float) -> None:
        """Wait until every rank has joined and mapped the cache's memory.

        Raises:
            DeadlineError: ranks are missing after that time; call again.
            ConfigError: a rank does not fit the cache, or the ranks do not fit each other.
            DeviceError: a rank died, or could not map or pin the memory.
        """
        self._service.wait_ready(timeout_s)

    @property
    def failure(self) -> str:
        """Why the group cannot be used any more, or ""."""
        return self._service.failure

    def blocks(self, ids: Sequence[int] | NDArray[np.integer], *, after_step: int | None = None) -> "RankBlocks":
        """Return blocks by their numbers, in that order, for `Cache.load` and `Cache.store`.

        Args:
            ids: numbers in [0, num_blocks); without repetition if they are to be loaded into.
            after_step: the step before which no rank touches them: each waits until its agent has been told of that step
                (`RankAgent.mark_step`), and for its event. None: they are not in use.

        Raises:
            DeviceError: not all ranks have joined yet.
            ValueError: a number is out of range, ids has more than one axis, or the step is negative.
            TypeError: ids are no integers.
        """
        if not self.num_blocks:
            raise DeviceError(self.failure or "not all ranks have joined yet: wait for them with wait_ready")
        if after_step is not None and after_step < 0:
            raise ValueError(f"after_step = {after_step}: must not be negative")
        return RankBlocks(self, checked_numbers(ids, self.num_blocks), after_step)

    def close(self) -> None:
        """Let the ranks go and wait a bounded time until they have left. Idempotent. What is under way fails."""
        self._copies.fail_all("the group of ranks is closed")
        self._service.close(self._timeouts.close_s)
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> "RankGroup":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, blocks: "RankBlocks", claim: Claim, addresses: Addresses, *, loading: bool) -> None:
        """Copy blocks in every rank that has to. Blocks; releases the GIL. For `AskedMemory` alone.

        Raises:
            ValueError: not one address for each block, or addresses that are not shared.
            DeviceError: a rank failed, died, or does not answer.
            RevokedError: the claim was given up.
            UnsettledError: as the two before, but a rank may still write to the addresses.
        """
        if len(addresses) != blocks.num_blocks:
            raise ValueError(f"{len(addresses)} addresses for {blocks.num_blocks} blocks: must be one each")
        for start in range(0, len(addresses), BLOCKS_MAX):
            part = blocks.slice(start, start + BLOCKS_MAX)
            self._run_part(part, claim, addresses[start : start + BLOCKS_MAX], loading)

    def give_up(self, claim: Claim) -> None:
        """End the waits for a claim's copies. For `AskedMemory` alone."""
        self._copies.give_up(claim)

    def _run_part(self, blocks: "RankBlocks", claim: Claim, addresses: Addresses, loading: bool) -> None:
        region, pages = self._regions.locate(addresses)
        ranks = self._all_ranks if loading else self._gathering
        connections = self._service.connections(ranks)
        silent = self._copies.silent(self._all_ranks)
        if silent:
            raise DeviceError(f"{_named(silent)} has not answered an earlier copy yet")
        ids = blocks.ids.astype("<u4").tobytes()

        def ask(number: int) -> bytes:
            return encode(
                Copy(
                    number=number,
                    loading=loading,
                    region=region,
                    after_step=blocks.after_step,
                    ids=ids,
                    pages=pages.tobytes(),
                )
            )

        request = CopyRequest(ask=ask, cancel=lambda number: encode(Cancel(number)), loading=loading)
        send_s = self._timeouts.cancel_s
        peers = {
            rank: partial(connection.send_bytes, timeout_s=send_s)
            for rank, connection in zip(ranks, connections, strict=True)
        }
        self._asker.run(claim, peers, request)

    def _enter_ranks(self, hellos: Sequence[Hello]) -> None:
        heads = [(hello.head_start, hello.head_stop) for hello in hellos]
        self._gathering = ranks_to_gather_from(heads, self.geometry.num_kv_heads)
        self.writable = all(hello.writable for hello in hellos)
        self.on_gpu = any(hello.device != HOST_DEVICE for hello in hellos)
        self.num_blocks = min(hello.num_blocks for hello in hellos)


@final
class RankBlocks(RemoteBlocks):
    """Some blocks of a `RankGroup`; what `Cache.load` and `Cache.store` take."""

    def __init__(self, group: RankGroup, ids: NDArray[np.int64], after_step: int | None) -> None:
        """Take checked numbers; use `RankGroup.blocks`."""
        self._group = group
        self._ids = ids
        self.after_step = after_step

    @property
    def memory(self) -> RankGroup:
        """The group that they are blocks of."""
        return self._group

    @property
    def ids(self) -> NDArray[np.int64]:
        """Their numbers in each rank's memory."""
        return self._ids

    @property
    def num_blocks(self) -> int:
        """Number of blocks."""
        return len(self._ids)

    @property
    def are_distinct(self) -> bool:
        """Whether no block is named twice: only then can they be loaded into."""
        return are_distinct(self._ids, self._group.num_blocks)

    def slice(self, start: int, stop: int) -> "RankBlocks":
        """Return the blocks [start, stop), without copying."""
        return RankBlocks(self._group, self._ids[start:stop], self.after_step)

    def reach(self) -> "AskedMemory[RankBlocks]":
        """Return them for the copies of one ticket."""
        return AskedMemory(self._group, self, Claim())


def _named(ranks: list[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"each of the ranks {ranks}"
