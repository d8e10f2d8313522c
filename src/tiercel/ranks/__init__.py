"""Engine memory that lies in other processes: one cache, and the tensor-parallel ranks that hold a share of every block.

`RankGroup` stands on the cache's side and `RankAgent` in each rank. Bytes move through the cache's own memory, which the ranks
map: each copies its own share. `messages` is what they say to each other.
"""

from tiercel.ranks.agent import RankAgent
from tiercel.ranks.group import RankBlocks, RankGroup
from tiercel.ranks.timeouts import RankTimeouts

__all__ = ["RankAgent", "RankBlocks", "RankGroup", "RankTimeouts"]
