"""The one place where an error of ours becomes recompute (DESIGN.md, section 10).

Every call that vLLM makes runs its steps inside `Failures.guard`: what Tiercel raises there is counted, logged once for each
kind, and answered with "no hit" or "not stored". Errors that are not ours pass: they are defects, and hiding them would
be one more.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tiercel import BlockStatus, CacheFacade, ThrottledError, TiercelError, TransferResult
from tiercel.connectors.vllm.tally import Tally

_logger = logging.getLogger(__name__)


class Failures:
    """What failed in Tiercel and became recompute, by kind.

    Attributes:
        counts: "load: IO_ERROR" and the like, and how often.
        cache: told of each; None before there is one.
    """

    def __init__(self, tally: Tally | None = None) -> None:
        """tally: counts them all."""
        self.counts: Counter[str] = Counter()
        self._tally = tally or Tally()
        self.cache: CacheFacade | None = None

    @contextmanager
    def guard(self, operation: str) -> Iterator[None]:
        """Turn a Tiercel error of the body into a count. The caller goes on as if nothing had been stored."""
        try:
            yield
        except TiercelError as error:
            self.count(operation, type(error).__name__, str(error))

    def count_blocks(self, operation: str, result: TransferResult) -> None:
        """Count a load that lost blocks, once for each way in which it did."""
        lost = Counter(BlockStatus(status).name for status in result.statuses.tolist() if status != BlockStatus.OK)
        for reason, num_blocks in lost.items():
            self.count(operation, reason, f"{num_blocks} of {result.num_blocks} blocks")

    def count(self, operation: str, reason: str, detail: str) -> None:
        """Count what becomes recompute, and log the first of its kind. Being full is what a cache does; it is no warning."""
        kind = f"{operation}: {reason}"
        if not self.counts[kind]:
            level = logging.INFO if reason == ThrottledError.__name__ else logging.WARNING
            _logger.log(level, "%s (%s); recomputed instead, further ones are counted only", kind, detail)
        self.counts[kind] += 1
        self._tally.recomputed()
        if self.cache is not None:
            self.cache.observe_recompute(kind)
