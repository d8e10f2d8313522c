"""What a request did and when: the engine's answer, for tests, the demo and its report."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Span:
    """Something that a request did. Seconds since the request arrived; num_tokens that it covered.

    kind: "lookup", "load", "copy", "prefill", "decode", "settle" or "store". detail: the tiers of a load, or "".
    """

    kind: str
    start_s: float
    stop_s: float
    num_tokens: int
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One answered request.

    Attributes:
        tokens: the generated tokens.
        reused_tokens: prompt tokens whose KV came from "engine", "host", "disk" or "remote".
        computed_tokens: prompt tokens that were prefilled, padding not counted.
        ttft_s: time to first token: from the call to the first generated token.
        total_s: from the call to the last token, stores not awaited.
    """

    tokens: tuple[int, ...]
    reused_tokens: Mapping[str, int]
    computed_tokens: int
    ttft_s: float
    total_s: float
    spans: tuple[Span, ...]


@dataclass
class Timeline:
    """Spans of one request as they happen, on one clock that starts at its arrival."""

    arrived: float = field(default_factory=time.perf_counter)
    spans: list[Span] = field(default_factory=list)

    def now(self) -> float:
        """Seconds since arrival."""
        return time.perf_counter() - self.arrived

    @contextmanager
    def measure(self, kind: str, num_tokens: int, detail: str = "") -> Iterator[None]:
        """Record the body as one span, also when it raises."""
        start = self.now()
        try:
            yield
        finally:
            self.spans.append(Span(kind, start, self.now(), num_tokens, detail))
