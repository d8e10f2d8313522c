"""What `tiercel record info` says of a recording."""

from pathlib import Path

import msgspec

from tiercel.telemetry.recording import (
    GapRecord,
    RecordedStore,
    RecordingAbout,
    SessionRecord,
    Tail,
    read_recording,
)


class SessionSummary(msgspec.Struct, frozen=True, kw_only=True):
    """When a session began, in seconds since the epoch, and what its numbers mean."""

    started_at: float
    about: RecordingAbout


class RecordingSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A recording in numbers. `span_s` adds up the sessions, each from its beginning to its last event."""

    sessions: tuple[SessionSummary, ...]
    lookups: int
    stores: int
    events_missing: int
    span_s: float
    num_bytes: int
    torn_bytes: int
    lookup_tokens: int
    lookup_blocks: int
    matched_blocks: int
    hit_blocks: dict[str, int]
    distinct_blocks: int

    @property
    def hit_rate(self) -> float | None:
        """Share of looked-up full blocks that were stored; None without any."""
        return self.matched_blocks / self.lookup_blocks if self.lookup_blocks else None


def summarise_recording(path: str | Path) -> RecordingSummary:
    """Read a whole recording. Raises as `read_recording`."""
    tail, sessions, spans = Tail(), list[SessionSummary](), list[float]()
    lookups = stores = missing = tokens = blocks = matched = 0
    hits: dict[str, int] = {}
    distinct: set[int] = set()
    for event in read_recording(path, tail):
        if isinstance(event, SessionRecord):
            sessions.append(SessionSummary(started_at=event.started_at, about=event.about))
            spans.append(0.0)
        elif isinstance(event, GapRecord):
            missing += event.num_events
        else:
            spans[-1] = max(spans[-1], event.time_s)
            distinct.update(event.keys.tolist())
            if isinstance(event, RecordedStore):
                stores += 1
                continue
            lookups += 1
            tokens += event.num_tokens
            blocks += len(event.keys)
            matched += event.matched_blocks
            for tier, count in event.hit_blocks.items():
                hits[tier] = hits.get(tier, 0) + count
    return RecordingSummary(
        sessions=tuple(sessions),
        lookups=lookups,
        stores=stores,
        events_missing=missing,
        span_s=sum(spans),
        num_bytes=Path(path).stat().st_size,
        torn_bytes=tail.torn_bytes,
        lookup_tokens=tokens,
        lookup_blocks=blocks,
        matched_blocks=matched,
        hit_blocks=hits,
        distinct_blocks=len(distinct),
    )
