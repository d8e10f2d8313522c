"""OpenTelemetry spans of lookups, loads, stores and prefetches, where `trace_spans` asks for them.

The application brings and sets up the SDK; this module needs only its API, and imports it when spans are wanted. A span is made
when its act has ended, with the times that were noted, as a child of the span that was current at the call: nothing is open
meanwhile, so nothing can be left open. Moves are events of their ticket's span.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tiercel import __version__

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer

Attributes = Mapping[str, str | int | float | Sequence[str]]


class EndedMove(NamedTuple):
    """What a span tells of one move; times in seconds, `ended_ns` in nanoseconds since the epoch."""

    source: str
    target: str
    num_blocks: int
    num_ok: int
    num_bytes: int
    wait_s: float
    seconds: float
    ended_ns: int

    def attributes(self) -> Attributes:
        """The move as an event's attributes."""
        fields = self._asdict()
        del fields["ended_ns"]
        return {f"tiercel.{name}": value for name, value in fields.items()}


class Spans:
    """Makes spans with the tracer of the application's provider. Thread-safe.

    Raises:
        ImportError: opentelemetry-api is not installed.
    """

    def __init__(self) -> None:
        from opentelemetry import context, trace

        self._trace = trace
        self._context = context
        self._tracer: Tracer = trace.get_tracer("tiercel", __version__)

    def parent(self) -> "Context":
        """Return what a span that is made later is to be a child of."""
        return self._context.get_current()

    def add(
        self,
        name: str,
        attributes: Attributes,
        *,
        started_ns: int,
        ended_ns: int,
        parent: "Context | None" = None,
        moves: Sequence[EndedMove] = (),
        error: str | None = None,
    ) -> None:
        """Make a span of what has ended.

        Args:
            name: "lookup", "load", "store" or "prefetch"; "tiercel." is put before it.
            started_ns: nanoseconds since the epoch; so is ended_ns.
            parent: as `parent` gave it; by default the current span.
            moves: become events.
            error: why it did not go as asked, if so.
        """
        span = self._tracer.start_span(f"tiercel.{name}", parent, start_time=started_ns)
        if span.is_recording():
            span.set_attributes(dict(attributes))
            for move in moves:
                span.add_event("tiercel.move", move.attributes(), timestamp=move.ended_ns)
            if error is not None:
                span.set_status(self._trace.StatusCode.ERROR, error)
        span.end(ended_ns)
