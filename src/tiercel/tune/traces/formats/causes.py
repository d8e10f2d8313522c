"""Which request an agent's next one waited for, told from when requests began and ended.

Agents work in a closed loop: a turn follows the answer before it, a sub-agent the request that started it, and what comes after
sub-agents the last of them. So each request waits for whichever one of its session ended last before it began, and keeps the
pause between; but never for less than the turn before it in its own stream, whatever the clocks say.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedRequest:
    """A request of a session: its number in the trace, when it began and ended, and the stream of turns it is one of."""

    number: int
    start_s: float
    end_s: float
    stream: int = 0


def causes(requests: Sequence[TimedRequest]) -> Iterator[tuple[int, int, float]]:
    """Yield (request, the one it waits for, pause in seconds) for each request of one session that waits for any."""
    running: list[tuple[float, int]] = []  # ends and numbers of what began earlier
    latest: tuple[float, int] | None = None  # what ended last so far
    last_of: dict[int, TimedRequest] = {}
    for request in sorted(requests, key=lambda request: (request.start_s, request.number)):
        while running and running[0][0] <= request.start_s:
            latest = heapq.heappop(running)
        before = last_of.get(request.stream)
        if before is not None and before.end_s > request.start_s:
            yield request.number, before.number, 0.0
        elif latest is not None:
            yield request.number, latest[1], request.start_s - latest[0]
        heapq.heappush(running, (request.end_s, request.number))
        last_of[request.stream] = request
