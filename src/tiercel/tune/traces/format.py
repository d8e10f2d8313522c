"""What a trace format is to the rest: how its files are known, read and written."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tiercel.errors import ConfigError
from tiercel.tune.traces.source import Source
from tiercel.tune.traces.tokens import Tokenizer, bytes_tokenizer
from tiercel.tune.traces.trace import Trace

TOKENS_PER_BLOCK_MAX = 1 << 16
TOKENS_PER_BLOCK = 16
"""Of traces whose source names no blocks."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What a file does not say.

    Attributes:
        tokens_per_block: tokens that one block of the file stands for, or, where the file holds tokens, of one block of the
            trace; None for the format's own.
        arrivals_per_s: requests, or sessions, that arrive in a second where the file has no times; None for the format's own.
        seed: of such arrivals.
        tokenizer: for files that hold text.
    """

    tokens_per_block: int | None = None
    arrivals_per_s: float | None = None
    seed: int = 0
    tokenizer: Tokenizer = bytes_tokenizer

    def __post_init__(self) -> None:
        size = self.tokens_per_block
        if size is not None and (not 1 <= size <= TOKENS_PER_BLOCK_MAX or size & (size - 1)):
            raise ConfigError(f"tokens_per_block = {size}: must be a power of two from 1 to {TOKENS_PER_BLOCK_MAX}")
        rate = self.arrivals_per_s
        if rate is not None and not 0 < rate < float("inf"):
            raise ConfigError(f"arrivals_per_s = {rate}: must be more than 0")
        if self.seed < 0:
            raise ConfigError(f"seed = {self.seed}: must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class TraceFormat:
    """A format of traces.

    Attributes:
        name: what `--format` calls it.
        about: one line for people.
        recognises: whether a row is of this format: its first JSON object, or {column: ""} of a CSV file's header.
        read: gives the trace of a file.
        write: gives the lines of a trace and says what was lost; None where nothing is written.
    """

    name: str
    about: str
    recognises: Callable[[dict[str, Any]], bool]
    read: Callable[[Source, ReadOptions], Trace]
    write: "Writer | None" = None


Writer = Callable[[Trace, Callable[[bytes], object]], list[str]]
"""Takes a trace and a function that writes bytes; returns what of the trace the format cannot say, a sentence each."""


class Arrivals:
    """Times for what comes without any: a Poisson process of a stated rate and seed."""

    def __init__(self, options: ReadOptions, per_s: float = 1.0) -> None:
        self.per_s = options.arrivals_per_s or per_s
        self.seed = options.seed
        self.num_made = 0
        self._random = np.random.default_rng(options.seed)
        self._now_s = 0.0

    def next(self) -> float:
        """Return when the next one arrives."""
        if self.num_made:
            self._now_s += float(self._random.exponential(1 / self.per_s))
        self.num_made += 1
        return self._now_s

    def note(self, what: str) -> list[str]:
        """Say what was assumed of `what`, if anything was."""
        if not self.num_made:
            return []
        rate = f"{self.per_s:g} a second" if self.per_s >= 1 else f"one every {1 / self.per_s:g} s on average"
        return [
            f"the file has no times for its {what}: they were drawn as a Poisson process, {rate}, seed {self.seed} "
            f"(--arrivals-per-s, --seed)"
        ]
