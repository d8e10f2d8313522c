"""Runs plans on modelled links, as `tiercel.transfer` runs them on devices: lanes with bounds, chunks, cancelling.

How links serve what they share, how moves follow each other and what cancelling leaves is native/core/simulate's.
"""

from dataclasses import dataclass

from tiercel._native import LinkUse
from tiercel.plan import Plan
from tiercel.tiers.base import TierName
from tiercel.transfer import LaneName
from tiercel.tune.simulate.clock import Clock
from tiercel.tune.simulate.setup import SimulationSetup


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """What moves between a tier and the faster ones in one direction.

    Attributes:
        name: under which the cache counts what it refuses.
        number: of the links' lanes.
    """

    tier: TierName
    name: str
    number: int


class Transfers:
    """The links of one cache, and what runs on them."""

    def __init__(self, setup: SimulationSetup, clock: Clock) -> None:
        self._links = clock
        self._block_bytes = setup.control.block_bytes
        self._depth_max = setup.transfer.queue_depth_max
        self._loading: dict[TierName, Lane] = {}
        self._storing: dict[TierName, Lane] = {}
        for tier in sorted(setup.control.capacities):
            chunk_bytes = setup.transfer.chunk_bytes
            if tier is TierName.HOST:
                chunk_bytes = max(chunk_bytes, setup.transfer.gpu_chunk_bytes)
            for loading, lanes, link in (
                (True, self._loading, setup.reads[tier]),
                (False, self._storing, setup.writes[tier]),
            ):
                number = self._links.add_lane(
                    latency_s=link.latency_s,
                    block_s=self._block_bytes / link.bytes_per_s,
                    chunk_blocks=max(1, chunk_bytes // self._block_bytes),
                    loading=loading,
                    shares_device=not loading and tier in setup.shared,
                )
                lanes[tier] = Lane(tier, str(LaneName(tier, loading)), number)
        self._numbers = self._number_lanes()

    def _number_lanes(self) -> list[list[int]]:
        """The number of the lane that runs a move, by its source and its target; -1 where there is none."""
        tiers = [TierName.GPU, *self._loading]
        numbers = [[-1] * (max(tiers) + 1) for _ in range(max(tiers) + 1)]
        for fast in tiers:
            for slow in tiers:
                if fast < slow:
                    numbers[slow][fast] = self._loading[slow].number
                    numbers[fast][slow] = self._storing[slow].number
        return numbers

    def lane(self, tier: TierName, *, loading: bool) -> Lane:
        """What moves between a tier and the faster ones."""
        return self._loading[tier] if loading else self._storing[tier]

    def has_room(self, lane: Lane, num_moves: int = 1) -> bool:
        """Whether a lane takes that many more moves."""
        return self._links.num_moves(lane.number) + num_moves <= self._depth_max

    def queued_bytes(self) -> dict[TierName, int]:
        """Bytes that wait to be loaded, for each tier where there are any."""
        waiting = ((tier, self._links.num_blocks(lane.number)) for tier, lane in self._loading.items())
        return {tier: num_blocks * self._block_bytes for tier, num_blocks in waiting if num_blocks}

    def use(self, lane: Lane) -> LinkUse:
        """What a lane's link was used for."""
        return self._links.use(lane.number)

    @property
    def num_open(self) -> int:
        """Plans with moves that have not ended."""
        return self._links.num_open

    def submit(self, plan: Plan) -> None:
        """Queue a plan's moves. The clock tells of the end of each."""
        moves = plan.moves
        if not moves:
            return
        numbers = self._numbers
        self._links.submit(
            plan.ticket,
            [(numbers[move.source][move.target], move.first_block, move.num_blocks, move.after) for move in moves],
        )

    def cancel(self, ticket: int) -> None:
        """End what has not started of a plan. Unknown tickets are left alone."""
        self._links.cancel(ticket)
