"""What every curve needs to know of a trace's requests: how many blocks they have, and how full their last one is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiercel.tune.curves.weighting import Weighting
from tiercel.tune.traces import Trace


@dataclass(frozen=True, kw_only=True)
class RequestSizes:
    """Of each request of a trace, in order.

    Attributes:
        num_blocks: int64[num_requests], blocks that the trace names.
        tail_missing: int64[num_requests], tokens by which the last one is short of a full block.
        totals: what a cache that hits everything would hit, by what is counted: blocks, tokens of prompts, requests.
        block_tokens: tokens of all prompts that lie in blocks.
    """

    num_blocks: NDArray[np.int64]
    tail_missing: NDArray[np.int64]
    totals: dict[Weighting, float]
    block_tokens: float

    @property
    def shares(self) -> NDArray[np.float64]:
        """One over the request's blocks; 0 for one without."""
        return np.divide(1.0, self.num_blocks, out=np.zeros(len(self.num_blocks)), where=self.num_blocks > 0)


def request_sizes(trace: Trace) -> RequestSizes:
    """Measure the requests.

    Raises:
        ValueError: a request has fewer tokens than its blocks but the last one need.
    """
    num_blocks = trace.num_blocks_named
    missing = np.maximum(0, num_blocks * trace.tokens_per_block - trace.input_tokens)
    short = np.flatnonzero(missing >= trace.tokens_per_block)
    if len(short):
        request = int(short[0])
        raise ValueError(
            f"trace {trace.name}: request {request} has {trace.input_tokens[request]} tokens, too few for its "
            f"{num_blocks[request]} blocks of {trace.tokens_per_block}"
        )
    return RequestSizes(
        num_blocks=num_blocks,
        tail_missing=missing,
        totals={
            Weighting.BLOCKS: float(num_blocks.sum()),
            Weighting.TOKENS: float(trace.input_tokens.sum()),
            Weighting.REQUESTS: float(np.count_nonzero(num_blocks)),
        },
        block_tokens=float((num_blocks * trace.tokens_per_block - missing).sum()),
    )


def share(part: NDArray[np.float64], whole: float) -> NDArray[np.float64]:
    """Return what part of the whole each is; 0 of nothing."""
    rates: NDArray[np.float64] = part / whole if whole else np.zeros_like(part)
    return rates
