"""A cache of blocks that their owner names: the facade for engines that keep the sequence to themselves.

    cache = KeyedCache.open({"model_id": "llama", ...}, block_bytes=2 << 20, config=config)
    block = cache.block(name)
    with cache.find(block) as found:                # pins it; found.num_blocks is 1 if it is stored
        launched = cache.load([block, ...], memory.blocks(ids))
    launched.ticket.wait().statuses                 # a status for each block of launched.positions

Everything else is `Cache`: tiers, index, policies, journal, tickets, deadlines, status. There is one tier, the disk, because
an owner of names keeps its blocks in host memory itself. Of a call, only blocks that there is something to do for are
covered: stored ones by a load, absent ones by a store. Each block stands alone; order matters for eviction only (see
`control.keyed`).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tiercel.cache.assembly import Assembly, assemble
from tiercel.cache.core import CacheCore
from tiercel.cache.tickets import Ticket
from tiercel.config import CacheConfig, ModelConfig
from tiercel.config.messages import problem
from tiercel.control import ControlSettings, KeyedControl, Operation
from tiercel.hashing import Sequence as TokenSequence
from tiercel.hashing import fingerprint, named_block, root_key
from tiercel.index import Match
from tiercel.layout import EngineBlocks
from tiercel.tiers.base import TierName
from tiercel.transfer import DirectMemory, EngineSide, LaneName

_LOADING, _STORING = LaneName(TierName.DISK, True), LaneName(TierName.DISK, False)
_MODEL_ID_CHARACTERS = 120

_LANE_WORKERS = 6
"""Operations in flight a lane: an owner's calls are of a few blocks each, and two of them leave a device idle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """A load or store under way.

    Attributes:
        ticket: its handle; it covers `positions` only, in that order.
        positions: int64[n], which of the blocks of the call are covered.
    """

    ticket: Ticket
    positions: NDArray[np.int64]


class Found:
    """What was found of one block; holds it in its tier until released or destroyed."""

    __slots__ = ("_match", "pending", "stored")

    def __init__(self, match: Match) -> None:
        self._match = match
        self.stored: bool = match.num_blocks == 1
        self.pending: bool = match.num_pending == 1

    def release(self) -> None:
        """Let the block be evicted again. Idempotent."""
        self._match.release()

    def __enter__(self) -> "Found":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class KeyedCache(CacheCore):
    """Stores and gives back blocks of bytes by name. Use as a context manager, sync or async, or call `close`. Thread-safe."""

    def __init__(self, assembly: Assembly, control: KeyedControl) -> None:
        """Use `KeyedCache.open`."""
        self._control = control
        self._root = root_key(assembly.fingerprint, "")
        super().__init__(assembly)

    @classmethod
    def open(cls, identity: Mapping[str, str | int], *, block_bytes: int, config: CacheConfig) -> "KeyedCache":
        """Check the machine, open the disk tier and bring back what it holds from before.

        Args:
            identity: everything that must be equal for two blocks of one name to be exchangeable; `model_id` among it is what
                directories are called by.
            block_bytes: size of each block.
            config: with the disk tier alone. Settings that speak of tokens mean nothing here.

        Raises:
            ConfigError: a setting does not fit; nothing stays allocated.
            DirectoryLockedError: another process uses a cache directory.
            TierError: a cache directory cannot be used, or memory that was free is not any more.
            ValueError: block_bytes is not positive, or the identity lacks model_id.
        """
        if not config.enable_ssd or config.enable_cpu:
            wrong, right = ("enable_cpu", False) if config.enable_cpu else ("enable_ssd", True)
            raise problem(wrong, getattr(config, wrong), f"must be {str(right).lower()} for named blocks: they are kept on disk, "
                          "and in host memory by their owner", f"set {wrong} to {str(right).lower()}")  # fmt: skip
        if block_bytes < 1 or not identity.get("model_id"):
            raise ValueError(f"block_bytes = {block_bytes}: must be positive, and identity must name model_id")
        name, digest = str(identity["model_id"])[:_MODEL_ID_CHARACTERS], fingerprint(identity).hex()
        # As a model of one layer and one byte wide elements, so that a block of one token has the size of theirs.
        model = ModelConfig(
            model_id=f"{name} (named blocks {digest})",
            num_layers=1,
            num_kv_heads=1,
            head_size=block_bytes,
            dtype="uint8",
            use_mla=True,
        )
        config = replace(config, tokens_per_block=1)
        made: list[KeyedControl] = []

        def make(settings: ControlSettings) -> KeyedControl:
            made.append(KeyedControl(settings))
            return made[0]

        return cls(assemble(model, config, make_control=make, lane_workers=_LANE_WORKERS), made[0])

    def block(self, name: bytes) -> TokenSequence:
        """Name a block. Microseconds; keep the result where a name is used again. Raises ValueError for an empty name."""
        return named_block(self._root, name, self._checks.origin)

    def find(self, block: TokenSequence) -> Found:
        """Look for a block and pin it. No I/O. Raises CacheClosedError."""
        started = time.monotonic()
        self._dispatcher.check_open()
        found = Found(self._control.find(block, started))
        self._assembly.metrics.observe_lookup(
            seconds=time.monotonic() - started,
            num_tokens=1,
            tokens_per_block=1,
            hits=(("disk", 1),) if found.stored else (),
            num_pending=int(found.pending),
        )
        return found

    def touch(self, blocks: Sequence[TokenSequence]) -> None:
        """Note that blocks were used, though nobody read them here. Raises CacheClosedError."""
        self._dispatcher.check_open()
        self._control.touch(blocks, time.monotonic())

    def load(
        self,
        blocks: Sequence[TokenSequence],
        target: EngineBlocks,
        *,
        direct: bool = False,
        timeout_s: float | None = None,
    ) -> Launched:
        """Bring those blocks that are stored into memory: block i to block i of `target`.

        Args:
            blocks: in the order of their sequence.
            target: as many blocks, none twice; must stay valid until the ticket has resolved.
            direct: let the device write into the target itself, if its blocks lie page-aligned. It spares a copy; a ticket then
                resolves, also at its deadline, only when the device has answered what it was asked.
            timeout_s: deadline; by default `transfer_timeout_s`.

        Raises:
            ThrottledError: too many moves are waiting; nothing was started.
            ValueError: `target` does not fit, or the timeout is not positive.
        """
        self._checks.target(target, len(blocks))
        return self._launch(_LOADING, blocks, target, direct, timeout_s)

    def store(
        self,
        blocks: Sequence[TokenSequence],
        source: EngineBlocks,
        *,
        direct: bool = False,
        timeout_s: float | None = None,
    ) -> Launched:
        """Store those blocks that are neither stored nor being written, as far as admission, write budget and room go: block i
        from block i of `source`. Arguments and errors as in `load`; a source may be read-only. A block that fails is as if
        it had never been stored."""
        self._checks.source(source, 0)
        if source.num_blocks < len(blocks):
            raise ValueError(f"{len(blocks)} blocks are to be stored from {source.num_blocks}")
        return self._launch(_STORING, blocks, source, direct, timeout_s)

    def _launch(
        self,
        lane: LaneName,
        blocks: Sequence[TokenSequence],
        memory: EngineBlocks,
        direct: bool,
        timeout_s: float | None,
    ) -> Launched:
        deadline_s = self._checks.timeout(timeout_s)
        for block in blocks:
            self._checks.sequence(block)
        self.devices.reach(memory)  # raises, if it does, before anything is reserved
        begin = self._control.begin_keyed_load if lane.loading else self._control.begin_keyed_store
        covered: list[NDArray[np.int64]] = []

        def start(ticket: int, now_s: float) -> tuple[Operation, EngineSide]:
            operation, positions = begin(ticket, blocks, deadline_s=deadline_s, now_s=now_s)
            covered.append(positions)
            part = self.devices.reach(memory.memory.blocks(memory.ids[positions]))
            return operation, replace(part, memory=DirectMemory(part.memory)) if direct else part

        with self._observer.launching(self._dispatcher.transfer.queue_depths):
            ticket = self._dispatcher.run(lane, start)
        return Launched(ticket=self._observer.launched(ticket), positions=covered[0])
