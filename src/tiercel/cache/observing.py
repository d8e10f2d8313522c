"""What the facade notes of each lookup, launch, move and outcome: counts, spans and a recording."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tiercel.cache.assembly import Assembly
from tiercel.cache.tickets import Outcome, Ticket, TransferResult
from tiercel.config.messages import problem
from tiercel.config.paths import expanded
from tiercel.control import Lookup
from tiercel.errors import DeadlineError, FormatError, TiercelError
from tiercel.hashing import Sequence
from tiercel.plan import Completion, Move, OperationKind
from tiercel.telemetry.logs import bind_request_id, current_request_id
from tiercel.telemetry.metrics import CacheMetrics
from tiercel.telemetry.recorder import Recorder
from tiercel.telemetry.recording import RecordingAbout
from tiercel.telemetry.tracing import EndedMove, Spans
from tiercel.tiers.base import BlockStatus, TierName

_logger = logging.getLogger(__name__)

TIER_NAMES = tuple(tier.name.lower() for tier in TierName)
"""What a tier is called in metrics and messages, by TierName."""

_STATUS_NAMES = {int(status): status.name.lower() for status in BlockStatus}
_OK = int(BlockStatus.OK)


class Looked(NamedTuple):
    """What a lookup found: leading blocks that are stored, blocks to load by tier, and blocks behind that are being written."""

    sequence: Sequence
    matched_blocks: int
    hits: list[tuple[str, int]]
    num_pending: int


class Observer:
    """Notes what a cache does. Thread-safe; costs a lookup a microsecond or two."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._metrics = assembly.metrics
        self._recorder: Recorder | None = None
        self._spans: Spans | None = None

    def start(self) -> None:
        """Make spans and a recording, where settings ask for them.

        Raises:
            ConfigError: `record_path` cannot be written, or opentelemetry-api is missing for `trace_spans`.
        """
        if self._assembly.config.trace_spans:
            self._spans = _make_spans()
        if self._assembly.config.record_path is not None:
            self._recorder = _make_recorder(self._assembly, self._assembly.config.record_path)

    def close(self) -> None:
        """End the recording. Idempotent."""
        if self._recorder is not None:
            self._recorder.close()

    def observe_lookup(self, lookup: Lookup, seconds: float, request_id: str | None) -> None:
        """Count and record a lookup that has just ended."""
        segments = lookup.segments
        if len(segments) == 1:
            only = segments[0]
            hits = [(TIER_NAMES[only.tier], only.num_blocks)]
        else:
            by_tier: dict[str, int] = {}
            for segment in segments:
                name = TIER_NAMES[segment.tier]
                by_tier[name] = by_tier.get(name, 0) + segment.num_blocks
            hits = list(by_tier.items())
        found = Looked(lookup.sequence, lookup.matched_blocks, hits, lookup.num_pending)
        declined = lookup.matched_blocks - lookup.first_block - lookup.num_blocks
        self.observe_looked(found, seconds, declined, request_id or current_request_id())

    def observe_looked(self, found: "Looked", seconds: float, num_declined: int, request_id: str | None) -> None:
        """Count and record what a lookup found.

        Args:
            num_declined: blocks found that are not worth loading.
        """
        sequence, hits = found.sequence, found.hits
        self._metrics.observe_lookup(
            seconds=seconds,
            num_tokens=sequence.num_tokens,
            tokens_per_block=sequence.tokens_per_block,
            hits=hits,
            num_pending=found.num_pending,
            num_declined=num_declined,
        )
        if self._recorder is not None:
            self._recorder.lookup(sequence, found.matched_blocks, hits, request_id)
        if self._spans is not None:
            ended_ns = time.time_ns()
            attributes: dict[str, Any] = {
                "tiercel.blocks": found.matched_blocks,
                "tiercel.blocks_to_load": sum(count for _, count in hits),
                "tiercel.tokens": sequence.num_tokens,
                "tiercel.tiers": [tier for tier, _ in hits],
                "tiercel.outcome": "hit" if found.matched_blocks else "pending" if found.num_pending else "miss",
            }
            if request_id:
                attributes["tiercel.request_id"] = request_id
            self._spans.add("lookup", attributes, started_ns=ended_ns - int(seconds * 1e9), ended_ns=ended_ns)

    def record_store(self, sequence: Sequence, first_block: int, num_blocks: int) -> None:
        """Record a store that was launched."""
        if self._recorder is not None:
            self._recorder.store(sequence, first_block, num_blocks, current_request_id())

    def launching(self, depths: Callable[[], dict[str, int]]) -> "_Launching":
        """Count, around a launch, the queues' depths that it finds and the error that it ends with."""
        return _Launching(self._metrics, depths)

    def launched(self, ticket: Ticket) -> Ticket:
        """Count a ticket when it resolves."""
        started_ns, parent = time.time_ns(), None if self._spans is None else self._spans.parent()
        ticket.add_done_callback(lambda: self._resolved(ticket, started_ns, parent))
        return ticket

    def observe_read(self, num_blocks: int, num_bytes: int, seconds: float) -> None:
        """Count a load whose blocks another process took out of the host tier itself."""
        ticket = self.launched(Ticket(0, OperationKind.LOAD, num_blocks, lambda _: None))
        statuses = bytes((_OK,)) * num_blocks
        move = Move(
            source=TierName.HOST,
            target=TierName.GPU,
            first_block=0,
            num_blocks=num_blocks,
            source_slots=b"",
            target_slots=b"",
        )
        completion = Completion(ticket=0, move=0, statuses=statuses, num_bytes=num_bytes, busy_s=seconds, queued_s=0.0)
        self.observe_move(ticket, move, completion)
        blocks, sizes = {TierName.HOST: num_blocks}, {TierName.HOST: num_bytes}
        arrived = np.frombuffer(statuses, np.uint8)
        ticket.resolve(
            TransferResult(
                kind=OperationKind.LOAD,
                outcome=Outcome.DONE,
                statuses=arrived,
                blocks_by_tier=blocks,
                bytes_by_tier=sizes,
                seconds=seconds,
            )
        )

    def _resolved(self, ticket: Ticket, started_ns: int, parent: Any) -> None:
        result = ticket.try_wait()
        assert result is not None, "a ticket called back before it was resolved"
        kind, outcome = ticket.kind.value, result.outcome.value
        self._metrics.observe_ticket(kind=kind, outcome=outcome, seconds=result.seconds)
        if result.outcome is Outcome.DEADLINE:
            self._metrics.count("errors", DeadlineError.__name__)
            with bind_request_id(ticket.request_id):
                _logger.warning(
                    "%s of %d blocks did not end in %.3g s; %d are usable",
                    kind, result.num_blocks, result.seconds, result.num_blocks_ok,
                    extra={"event": "ticket_deadline", "ticket": ticket.number},
                )  # fmt: skip
        if self._spans is not None:
            attributes: dict[str, Any] = {
                "tiercel.blocks": result.num_blocks,
                "tiercel.blocks_ok": result.num_blocks_ok,
                "tiercel.tokens": result.num_blocks * self._assembly.geometry.tokens_per_block,
                "tiercel.tiers": [TIER_NAMES[tier] for tier in result.blocks_by_tier],
                "tiercel.outcome": outcome,
            }
            if ticket.request_id is not None:
                attributes["tiercel.request_id"] = ticket.request_id
            self._spans.add(
                kind,
                attributes,
                started_ns=started_ns,
                ended_ns=time.time_ns(),
                parent=parent,
                moves=tuple(ticket.ended_moves),
                error=None if result.outcome is Outcome.DONE else outcome,
            )

    def observe_move(self, ticket: Ticket, move: Move, completion: Completion) -> None:
        """Count a move that ended."""
        num_ok = completion.statuses.count(_OK)
        blocks = {"ok": num_ok}
        if num_ok < move.num_blocks:
            counts = Counter(completion.statuses)
            blocks = {_STATUS_NAMES[status]: count for status, count in counts.items()}
        source, target = TIER_NAMES[move.source], TIER_NAMES[move.target]
        if ticket.kind is OperationKind.DEMOTE:
            self._metrics.count("demoted_blocks", source, num_ok)
        self._metrics.observe_move(
            route=(source, target),
            wait_s=completion.queued_s,
            seconds=completion.busy_s,
            num_bytes=completion.num_bytes,
            blocks=blocks,
        )
        if self._spans is not None:
            ticket.ended_moves.append(
                EndedMove(
                    source=source,
                    target=target,
                    num_blocks=move.num_blocks,
                    num_ok=num_ok,
                    num_bytes=completion.num_bytes,
                    wait_s=completion.queued_s,
                    seconds=completion.busy_s,
                    ended_ns=time.time_ns(),
                )
            )

    def throttled(self, queue: str) -> None:
        """Count a refusal, by a full queue or by what else held blocks back from a tier."""
        self._metrics.count("throttled", queue)

    def recompute(self, reason: str) -> None:
        """Count what a connector gave back to its engine."""
        self._metrics.count("recompute", reason)


class _Launching:
    """A `with` block around a launch. A class, since a generator's context manager costs several times as much."""

    __slots__ = ("_depths", "_metrics")

    def __init__(self, metrics: CacheMetrics, depths: Callable[[], dict[str, int]]) -> None:
        self._metrics = metrics
        self._depths = depths

    def __enter__(self) -> None:
        self._metrics.observe_submission(self._depths())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, TiercelError):
            self._metrics.count("errors", type(error).__name__)


def _make_spans() -> Spans:
    try:
        return Spans()
    except ImportError as error:
        reason = "needs the package opentelemetry-api"
        raise problem("trace_spans", True, reason, "install tiercel[otel], or leave it false") from error


def _make_recorder(assembly: Assembly, path: str) -> Recorder:
    about = RecordingAbout(
        fingerprint=assembly.fingerprint.hex(),
        model=assembly.geometry.model_id,
        tokens_per_block=assembly.geometry.tokens_per_block,
        block_bytes=assembly.geometry.block_bytes,
    )
    try:
        return Recorder(
            expanded("record_path", path),
            about,
            bytes_max=assembly.record_bytes_max,
            count=partial(assembly.metrics.count, "recorder_events"),
            note=partial(assembly.notes.add, kind="recorder"),
        )
    except (OSError, FormatError) as error:
        reason = f"cannot be recorded to ({getattr(error, 'strerror', None) or error})"
        remedy = "name a file in a directory of yours that no other cache records to, or leave it null"
        raise problem("record_path", path, reason, remedy) from error
