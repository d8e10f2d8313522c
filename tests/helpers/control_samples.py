"""A control half without a data half: plans are taken as done the moment they are made, or as their caller says."""

from collections.abc import Sequence

import numpy as np

from tests.helpers.small_engine import TOKENS_PER_BLOCK, tokens
from tiercel.control import Control, ControlSettings, Operation, Priority
from tiercel.hashing import Sequence as TokenSequence
from tiercel.index import IndexStats
from tiercel.plan import Completion
from tiercel.tiers.base import BlockStatus, TierName

ROOT = bytes(range(16))
BLOCK_BYTES = 1 << 20
HOST, DISK = TierName.HOST, TierName.DISK


def sequence(num_blocks: int, seed: int) -> TokenSequence:
    """A new object for the same tokens, as another request would make it."""
    return TokenSequence(ROOT, TOKENS_PER_BLOCK, tokens(num_blocks, seed=seed))


class Bench:
    """A control half and the tickets' numbers."""

    def __init__(self, *, host: int = 64, disk: int = 256, **settings: object) -> None:
        capacities = {tier: count for tier, count in ((HOST, host), (DISK, disk)) if count}
        self.control = Control(
            ControlSettings(
                capacities=capacities,
                tokens_per_block=TOKENS_PER_BLOCK,
                block_bytes=BLOCK_BYTES,
                **settings,  # type: ignore[arg-type]
            )
        )
        self.now_s = 1000.0
        self.ticket = 0

    def store(
        self,
        stored: TokenSequence,
        *,
        first_block: int = 0,
        priority: Priority = 0,
        targets: Sequence[TierName] | None = None,
    ) -> Operation:
        """Store to every tier, with a promotion first as the dispatcher does it; done at once."""
        self.ticket += 2
        if first_block:
            promotion, _ = self.control.begin_promotion(
                self.ticket - 1, stored, first_block, deadline_s=1.0, now_s=self.now_s
            )
            if promotion is not None:
                self.finish(promotion)
        operation = self.control.begin_store(
            self.ticket,
            stored,
            blocks=range(first_block, stored.num_blocks),
            deadline_s=1.0,
            targets=self.control.tiers if targets is None else targets,
            priority=priority,
            now_s=self.now_s,
        )
        return self.finish(operation)

    def finish(self, operation: Operation, status: BlockStatus = BlockStatus.OK) -> Operation:
        """Let every move of an operation end with one status."""
        for number, move in enumerate(operation.plan.moves):
            statuses = bytes([status]) * move.num_blocks
            self.control.complete(
                operation,
                Completion(ticket=1, move=number, statuses=statuses, num_bytes=1, busy_s=0.0, queued_s=0.0),
            )
        self.control.finish(operation)
        return operation

    def look_up(self, looked_up: TokenSequence) -> int:
        """Look up and let go; returns the blocks found."""
        with self.control.lookup(looked_up, now_s=self.now_s) as lookup:
            return lookup.matched_blocks

    def stats(self, tier: TierName) -> IndexStats:
        return self.control.stats(tier)

    def num_ready(self, tier: TierName) -> int:
        return self.stats(tier).num_ready

    def num_held(self, tier: TierName, held: TokenSequence) -> int:
        """Leading blocks of a sequence that a tier has."""
        _, keys, _ = self.control.export_blocks(tier)
        names = {key.tobytes() for key in keys}
        present = [key.tobytes() in names for key in held.keys()]
        return int(np.argmin([*present, False]))

    def check(self) -> None:
        """The index is sound and nothing is held."""
        self.control.index.check()
        for tier in self.control.tiers:
            stats = self.stats(tier)
            assert (stats.num_pinned, stats.num_writing) == (0, 0)
            assert stats.num_free + stats.num_ready == stats.num_slots
