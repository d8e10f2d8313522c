"""Hit rates without a cache: of LRU at every capacity from one pass, of the other policies from a sample, and the most of all.

`lru_curve` is exact and tells every capacity and every exclusive split into tiers; `sampled_lru_curve` estimates it with a
standard error, for traces too large; `BeladyBound` is the most that any policy can hit; `run_policies` runs the real index
under any policy, in full or in miniature; grids and block sizes stand beside them. What all of them leave to
`tiercel.tune.simulate` is time: queues, links, and what a hit saves.
"""

from tiercel.tune.curves.belady import BeladyBound
from tiercel.tune.curves.block_sizes import BlockSizeRow, sweep_block_sizes
from tiercel.tune.curves.grids import exclusive_grid, inclusive_grid, inclusive_hits
from tiercel.tune.curves.lru import LruCurve, lru_curve
from tiercel.tune.curves.policies import FULL, Miniature, PolicyRun, run_policies
from tiercel.tune.curves.sample import SampleUnit
from tiercel.tune.curves.sampled import SampledLruCurve, sampled_lru_curve
from tiercel.tune.curves.survey import Survey, survey_trace
from tiercel.tune.curves.weighting import Weighting

__all__ = [
    "FULL",
    "BeladyBound",
    "BlockSizeRow",
    "LruCurve",
    "Miniature",
    "PolicyRun",
    "SampleUnit",
    "SampledLruCurve",
    "Survey",
    "Weighting",
    "exclusive_grid",
    "inclusive_grid",
    "inclusive_hits",
    "lru_curve",
    "run_policies",
    "sampled_lru_curve",
    "survey_trace",
    "sweep_block_sizes",
]
