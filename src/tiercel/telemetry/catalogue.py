"""Every metric by name: its type, labels and unit, what it says, and what to do when it is high.

`prometheus` serves exactly these, docs/metrics.md is written from them (`python -m tiercel.telemetry.reference`), and the
dashboard and the alert rules may name no others; tests hold all of them to this page.
"""

import enum
from dataclasses import dataclass


class MetricType(enum.Enum):
    """What a scraper makes of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: as it is served, with prefix, unit and, for a counter, `_total`.
        labels: names of its labels, in order.
        unit: what its number counts.
        meaning: one sentence.
        when_high: what to look at or do when the number is high or grows.
    """

    name: str
    type: MetricType
    labels: tuple[str, ...]
    unit: str
    meaning: str
    when_high: str


_C, _G, _H = MetricType.COUNTER, MetricType.GAUGE, MetricType.HISTOGRAM
_ROUTE = ("source", "target")

_LOOKUPS = (
    Metric("tiercel_lookups_total", _C, ("outcome",), "lookups",
           "Lookups by outcome: full (every full block is stored), partial, miss.",
           "Misses: compare with tiercel_evicted_blocks_total; a tier that evicts much is too small for the traffic."),
    Metric("tiercel_lookup_tokens_total", _C, ("outcome", "tier"), "tokens",
           "Tokens looked up: hit (with the tier that serves them), pending (being written), declined (stored, but "
           "cheaper to recompute), miss (the ragged end of a prompt included).",
           "declined: a tier is slow or its queue long, see tiercel_transfer_wait_seconds. pending: the same prompt "
           "arrives faster than it is stored."),
    Metric("tiercel_lookup_blocks_total", _C, ("outcome", "tier"), "blocks",
           "The same in full blocks.", "As of tiercel_lookup_tokens_total."),
    Metric("tiercel_lookup_seconds", _H, (), "seconds", "Duration of a lookup call.",
           "Tens of microseconds are usual, and a millisecond for 100K tokens. More: the process lacks CPU, or many "
           "threads look up at once."),
    Metric("tiercel_lookup_hit_blocks", _H, ("tier",), "blocks",
           "Blocks that one lookup found in a tier, of the lookups that found any there.",
           "Nothing is wrong. Many short hits: shared system prompts; long ones: conversations."),
    Metric("tiercel_lookup_hit_ratio", _H, (), "ratio",
           "Share of a lookup's full blocks that are stored; lookups without a full block are left out.",
           "High is good. A drop of the whole distribution is eviction, one of its upper end new traffic."),
    Metric("tiercel_hit_curve_ratio", _G, ("capacity",), "ratio",
           "Share of the blocks looked up of late that an LRU cache of that many times the capacity of all tiers would have "
           "had; without the blocks of a miss that was never stored. Of late: the last two to four million, or two to four "
           "times what the tiers hold if that is more; older lookups have faded.",
           "2x or 4x far above 1x: more capacity pays. 0.5x near 1x: less would do."),
    Metric("tiercel_tier_hit_curve_ratio", _G, ("tier", "capacity"), "ratio",
           "Share of the blocks looked up of late that a tier would have served if it had that many times its capacity, all "
           "other tiers as they are (LRU). Under ssd_admission on_evict the disk's is the most it can be.",
           "2x far above 1x: this is the tier to enlarge. 0.5x near 1x: it may be smaller."),
)  # fmt: skip

_TRANSFERS = (
    Metric("tiercel_transfer_wait_seconds", _H, _ROUTE, "seconds",
           "From the launch of a move's ticket to the start of the move: queue wait, and the wait for the move before it.",
           "The slower tier of the route is the bottleneck: see tiercel_queue_depth, then its bandwidth."),
    Metric("tiercel_transfer_seconds", _H, _ROUTE, "seconds", "Time that a move spent with its tier: device and copy.",
           "Divide by tiercel_transfer_size_bytes. Below what the device gives alone: other users of it, or small blocks."),
    Metric("tiercel_transfer_size_bytes", _H, _ROUTE, "bytes", "Payload bytes of one move.",
           "Nothing is wrong. Moves far below 1 MiB make a disk slow: raise tokens_per_block."),
    Metric("tiercel_transfer_bytes_total", _C, _ROUTE, "bytes", "Payload bytes moved.",
           "host to disk, or gpu to disk: wear. See docs/operations.md, wear."),
    Metric("tiercel_transfer_blocks_total", _C, (*_ROUTE, "status"), "blocks",
           "Blocks of moves by how they ended: ok, missing, corrupt, io_error, no_space, cancelled.",
           "Anything but ok and cancelled: see tiercel_corrupt_blocks_total and tiercel_io_errors_total, and the log."),
    Metric("tiercel_ticket_seconds", _H, ("kind", "outcome"), "seconds",
           "Whole tickets: from launch to outcome, by kind (load, store, prefetch) and outcome (done, cancelled, deadline).",
           "Loads: their share of the time to first token. deadline: the slowest tier stalls, or transfer_timeout_s is short."),
    Metric("tiercel_tickets", _G, ("state",), "tickets", "Tickets that run now.",
           "Growing without end: a device has stalled; see tiercel_queue_depth."),
    Metric("tiercel_queue_depth", _G, ("queue",), "moves", "Moves that wait or run in a queue now.",
           "Near transfer_queue_depth_max new work is refused: see tiercel_throttled_total."),
    Metric("tiercel_submission_queue_depth", _H, ("queue",), "moves",
           "Moves that a new load, store or prefetch found before it in each queue.",
           "What arrives faster than the tier moves it. Loads: another device; stores: fewer writes (ssd_admission)."),
)  # fmt: skip

_FAULTS = (
    Metric("tiercel_throttled_total", _C, ("queue",), "refusals",
           "Refusals because a queue was full, or writes to disk that the budget forbade (budget) or that no demotion "
           "could precede (demotion).",
           "The queue's tier is slower than the traffic. A full disk-store queue costs hits later, not latency now."),
    Metric("tiercel_recompute_total", _C, ("reason",), "events",
           "What a connector gave back to its engine to compute, by reason.",
           "Each reason names an operation and an error; docs/operations.md says what each means."),
    Metric("tiercel_fallbacks_total", _C, ("kind",), "events",
           "Silent fallbacks: what works, but slower or safer-than-asked. The notes of `tiercel stats` say each in words.",
           "Read the note; docs/operations.md lists the kinds and their remedies."),
    Metric("tiercel_errors_total", _C, ("kind",), "errors",
           "Errors that calls raised, by class, tickets that did not end in time (DeadlineError), and what the disk tier's "
           "journal refused (journal_put, journal_free, journal_sync, journal_checkpoint).",
           "journal_*: the disk is full or fails, and blocks are not warm after a restart. ThrottledError: see "
           "tiercel_throttled_total. DeadlineError: a tier stalls. StaleTicketError: weights were reset."),
    Metric("tiercel_node_events_total", _C, ("event",), "events",
           "What a node turned away or lost: refused (connections), malformed (messages), unread (connections cut because their "
           "client did not read), unobserved (lookups that statistics and policies did not see), and of clients on other "
           "machines remote_refused (connections), remote_declined, remote_throttled (calls) and remote_lost (answers).",
           "refused, remote_refused: raise node_clients_max, or somebody knocks who may not. unread: a client was stopped, or "
           "is overloaded. unobserved: the node lacks CPU. The log names the client."),
    Metric("tiercel_corrupt_blocks_total", _C, ("tier",), "blocks",
           "Blocks whose checksum did not match; they were never served.",
           "A few after a power loss are usual. More: the device or its memory fails; replace it."),
    Metric("tiercel_io_errors_total", _C, ("tier",), "blocks", "Blocks that a tier failed to read or write.",
           "See the log for the errno: a full disk, a vanished directory, or a failing device."),
)  # fmt: skip

_TIERS = (
    Metric("tiercel_tier_blocks", _G, ("tier", "state"), "blocks", "Slots of a tier by state: free, ready, writing.",
           "ready near the capacity is usual. writing: stores wait for the device."),
    Metric("tiercel_tier_pinned_blocks", _G, ("tier",), "blocks", "Slots held by lookups and running tickets.",
           "Growing without tickets: the caller keeps lookups that it never launches or releases."),
    Metric("tiercel_tier_capacity_blocks", _G, ("tier",), "blocks", "Slots of a tier.", "Nothing: it is a setting."),
    Metric("tiercel_tier_block_bytes", _G, ("tier",), "bytes", "Bytes of one block.",
           "Nothing: it follows from the model and tokens_per_block."),
    Metric("tiercel_tier_read_bytes_total", _C, ("tier",), "bytes", "Payload bytes read from a tier.",
           "High is good: it is what was not recomputed."),
    Metric("tiercel_tier_written_bytes_total", _C, ("tier",), "bytes", "Payload bytes written to a tier.",
           "disk: wear. Compare with what is read back, and consider ssd_admission and ssd_write_budget_per_day."),
    Metric("tiercel_tier_read_seconds_total", _C, ("tier",), "seconds",
           "Time that calls spent reading, over all threads.", "Bytes over seconds is the rate that a caller sees."),
    Metric("tiercel_tier_write_seconds_total", _C, ("tier",), "seconds",
           "Time that calls spent writing, over all threads.", "Bytes over seconds is the rate that a caller sees."),
    Metric("tiercel_evicted_blocks_total", _C, ("tier",), "blocks", "Blocks evicted.",
           "Ready blocks over the rate of eviction is the time that a block stays. Shorter than the time between two "
           "turns of a conversation: the tier is too small."),
    Metric("tiercel_eviction_age_seconds", _H, ("tier",), "seconds",
           "From the last use of a block to its eviction.",
           "High is good: what is evicted had not been asked for in a long time. Shorter than the pause between two turns "
           "of a conversation: the tier is too small."),
    Metric("tiercel_demoted_blocks_total", _C, ("tier",), "blocks",
           "Blocks that left a tier for a slower one.", "As of tiercel_evicted_blocks_total; nothing is lost."),
    Metric("tiercel_tenant_bytes", _G, ("tier", "tenant", "what"), "bytes",
           "What each tenant of the setting tenants has of a tier: held (stored or being written), reserved, and limit. A tenant "
           "without a name is everybody who is not named there.",
           "held near limit: the tenant evicts its own blocks. held below reserved is never evicted for others."),
    Metric("tiercel_tenant_evicted_blocks_total", _C, ("tier", "tenant"), "blocks", "Blocks of a tenant that were evicted.",
           "One tenant's alone: its limit is too low for its traffic. All of them: the tier is too small."),
    Metric("tiercel_checkpoints_total", _C, ("outcome",), "checkpoints", "Checkpoints of the journal: ok or failed.",
           "failed: the disk is full or fails. Many ok: raise journal_checkpoint_bytes."),
    Metric("tiercel_checkpoint_seconds", _H, (), "seconds", "Duration of a checkpoint.",
           "Stores go on meanwhile. Seconds: the disk is busy, or the tier holds very many blocks."),
    Metric("tiercel_tier_recovered_blocks", _G, ("tier",), "blocks", "Blocks that were there when the cache was opened.",
           "0 after a restart: host without cpu_arena_dir, or the notes of `tiercel stats` say why."),
    Metric("tiercel_journal_bytes", _G, ("tier",), "bytes", "Journal written since the last checkpoint.",
           "More than journal_checkpoint_bytes: checkpoints fail, and a restart takes longer."),
)  # fmt: skip

_PROCESS = (
    Metric("tiercel_gpu_pool_bytes", _G, ("device", "state"), "bytes",
           "GPU memory that copies take beside the blocks: used (lent to copies) and held (taken from the device), each now "
           "and, as used_high and held_high, at most so far.",
           "used_high above gpu_pool_release_bytes: copies wait for memory; raise it and gpu_pool_reserve_bytes."),
    Metric("tiercel_info", _G, ("version", "model", "fingerprint"), "one", "Always 1; its labels say what runs.", "Nothing."),
    Metric("tiercel_node_clients", _G, (), "clients", "Clients of a node now; only a node tells it.",
           "Near node_clients_max: the next ones are refused."),
    Metric("tiercel_start_time_seconds", _G, (), "seconds", "When the cache was opened, seconds since the epoch.",
           "A recent start: the host tier is cold, unless cpu_arena_dir is set."),
    Metric("tiercel_tuning_changes_total", _C, ("action",), "changes",
           "What auto_tune did: tried, kept, undone. The status says what was changed, and why.",
           "undone grows: the traffic changes faster than a change can be judged; set what suits it and auto_tune to false."),
    Metric("tiercel_recorder_events_total", _C, ("outcome",), "events",
           "Lookups and stores given to the recorder: written, or dropped because it fell behind or its disk failed.",
           "dropped: put record_path on a faster or emptier disk. The cache itself never waits for it."),
)  # fmt: skip

METRICS: dict[str, Metric] = {m.name: m for m in (*_LOOKUPS, *_TRANSFERS, *_FAULTS, *_TIERS, *_PROCESS)}
"""Every metric by the name under which it is served."""

COUNTED = frozenset(
    {
        "checkpoints",
        "demoted_blocks",
        "errors",
        "fallbacks",
        "lookups",
        "node_events",
        "recompute",
        "recorder_events",
        "throttled",
        "tuning_changes",
    }
)
"""Counters of one label that `metrics.CacheMetrics.count` takes: names without prefix and `_total`."""

SERIES_SUFFIXES = ("_bucket", "_sum", "_count")
"""What a histogram's name ends in where it is queried."""
