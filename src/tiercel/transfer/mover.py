"""Moves one chunk's blocks between two tiers, or between a tier and the engine; called by the workers of `engine`."""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import CacheClosedError, DeviceError, TierFailedError
from tiercel.plan import Move, unpack_keys, unpack_slots
from tiercel.tiers.base import BlockLabels, BlockMemory, BlockStatus, Tier, TierName, UnsettledError
from tiercel.tiers.host import HostTier
from tiercel.transfer.guard import RevokedError
from tiercel.transfer.job import Chunk

_logger = logging.getLogger(__name__)


class Mover:
    """Calls the tiers. Thread-safe, as they are."""

    def __init__(self, tiers: Mapping[TierName, Tier]) -> None:
        """tiers: host memory among them wherever a tier is read into memory that is not the engine's."""
        self._tiers = tiers

    def move(self, chunk: Chunk, stop: int) -> NDArray[np.uint8]:
        """Move blocks [chunk.start, stop) and return their statuses. Whatever goes wrong becomes one: a lane never dies.

        Raises:
            UnsettledError: somebody may still write to the slots: they must wait, the lane must not.
        """
        try:
            return np.asarray(self._call_tier(chunk, stop), np.uint8)
        except UnsettledError:
            raise
        except RevokedError:
            return np.full(stop - chunk.start, BlockStatus.CANCELLED, np.uint8)
        except DeviceError as error:
            _logger.warning("move failed: %s", error, extra={"ticket": chunk.job.plan.ticket})
        except (TierFailedError, CacheClosedError) as error:
            _logger.debug("move failed: %s", error, extra={"ticket": chunk.job.plan.ticket})
        except Exception:
            _logger.critical("defect in a tier", exc_info=True, extra={"ticket": chunk.job.plan.ticket})
        return np.full(stop - chunk.start, BlockStatus.IO_ERROR, np.uint8)

    def _call_tier(self, chunk: Chunk, stop: int) -> NDArray[np.uint8]:
        move, start = chunk.job.plan.moves[chunk.move], chunk.start
        if move.source > move.target:
            with self._memory(chunk, move.target, move.target_slots, stop) as memory:
                statuses = self._tiers[move.source].read(unpack_slots(move.source_slots)[start:stop], memory)
            if move.target is not TierName.GPU:
                slots = unpack_slots(move.target_slots)[start:stop]
                self._host(move.target).mark_written(slots, _labels(move, start, stop), statuses)
            return statuses
        with self._memory(chunk, move.source, move.source_slots, stop) as memory:
            slots = unpack_slots(move.target_slots)[start:stop]
            return self._tiers[move.target].write(slots, memory, _labels(move, start, stop))

    def _memory(self, chunk: Chunk, tier: TierName, slots: bytes, stop: int) -> AbstractContextManager[BlockMemory]:
        """Memory of a move's faster side, for as long as a tier uses it."""
        if tier is TierName.GPU:
            first = chunk.job.plan.moves[chunk.move].first_block
            return chunk.job.memory_of(chunk, first + chunk.start, first + stop).borrowed()
        return nullcontext(self._host(tier).memory(unpack_slots(slots)[chunk.start : stop]))

    def _host(self, tier: TierName) -> HostTier:
        host = self._tiers[tier]
        assert isinstance(host, HostTier), f"tier {tier.name} is not addressable memory"
        return host


def _labels(move: Move, start: int, stop: int) -> BlockLabels:
    """Names of the blocks [start, stop) of a move into a tier."""
    keys = unpack_keys(move.keys)
    return BlockLabels(parent=keys[start - 1].tobytes() if start else move.parent_key, names=keys[start:stop])
