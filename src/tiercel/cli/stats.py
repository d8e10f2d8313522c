"""`tiercel stats`: how a running cache is doing, or what a cold cache directory holds."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tiercel.cli.render import (
    bytes_text,
    counts_text,
    print_json,
    print_line,
    print_table,
    rate_text,
    seconds_text,
)
from tiercel.errors import StatusError
from tiercel.telemetry.snapshot import (
    Activity,
    HistogramStatus,
    HitCurveStatus,
    StatusSnapshot,
    TierStatus,
    TransferStatus,
)
from tiercel.telemetry.status import SOCKET_NAME, find_running, read_status

_COUNTERS = {
    "throttled": "throttled",
    "recompute": "recompute",
    "node_events": "turned away or lost by the node",
    "errors": "errors",
    "fallbacks": "fallbacks",
    "demoted_blocks": "demoted blocks",
    "checkpoints": "checkpoints",
    "recorder_events": "recorded events",
    "tuning_changes": "auto-tuning",
}
_ALWAYS_SHOWN = ("throttled", "recompute")


def stats(target: str | None = None, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Show how a running cache is doing, or what a cold cache directory holds.

    Args:
        target: a process id, a status socket or a cache directory; by default every running cache of this user.
        json: print JSON, one object per cache, in a list; of a directory that none runs on, what `tiercel ls` prints.
    """
    if target is None:
        snapshots = _running_snapshots()
    elif target.isdecimal() and not Path(target).exists():
        snapshots = [read_status(int(target))]
    elif Path(target).is_dir():
        snapshots = _snapshots_in(Path(target))
        if not snapshots:
            _print_cold(Path(target), json)
            return
    elif Path(target).exists():
        snapshots = [read_status(Path(target))]
    else:
        raise ValueError(f"{target!r} is neither a process id nor a path that exists")
    if json:
        print_json(snapshots)
        return
    for snapshot in snapshots:
        print_snapshot(snapshot)


def _answering(sockets: Iterable[Path]) -> list[StatusSnapshot]:
    """Ask every socket; one that a killed process left behind answers nothing and is passed over."""
    snapshots: list[StatusSnapshot] = []
    for path in sockets:
        with suppress(StatusError):
            snapshots.append(read_status(path))
    return snapshots


def _running_snapshots() -> list[StatusSnapshot]:
    snapshots = list(find_running().values())
    if not snapshots:
        raise StatusError("no cache of this user is running; name a cache directory to see what it holds")
    return snapshots


def _snapshots_in(directory: Path) -> list[StatusSnapshot]:
    return _answering([*directory.glob(SOCKET_NAME), *sorted(directory.glob(f"*/{SOCKET_NAME}"))])


def _print_cold(directory: Path, json: bool) -> None:
    from tiercel.cli.ls import print_folders
    from tiercel.tiers.inspect import inspect_directory

    reports = inspect_directory(directory)
    if not reports:
        raise ValueError(f"{directory} holds no cache, and no running cache answers there")
    if json:
        print_json(reports)
        return
    print_line("no running cache answers here; this is what the directory holds:")
    print_folders(reports)


def print_snapshot(snapshot: StatusSnapshot) -> None:
    """Print a snapshot as tables."""
    print_line(
        f"tiercel {snapshot.version}  pid {snapshot.pid}  model {snapshot.model}  up {seconds_text(snapshot.uptime_s)}"
    )
    columns = (
        "tier",
        "slots",
        "free",
        "ready",
        "writing",
        "pinned",
        "size",
        "read",
        "written",
        "read at",
        "written at",
    )
    print_table("", (*columns, "evicted", "corrupt", "I/O errors"), map(_tier_row, snapshot.tiers))
    recovered = {tier.name: tier.recovered for tier in snapshot.tiers if tier.recovered}
    if recovered:
        print_line(f"blocks that were there at the start: {counts_text(recovered)}")
    _print_tenants(snapshot.tiers)
    for tier in snapshot.tiers:
        _print_times(f"evicted from {tier.name}, unused before that", tier.eviction_age)
    _print_activity(snapshot.activity)
    _print_curve(snapshot.hit_curve)
    _print_tuning(snapshot)
    print_line(f"tickets: {counts_text(snapshot.tickets)}")
    print_line(f"queues: {counts_text(snapshot.queue_depths)}")
    for note in snapshot.notes:
        print_line(f"note: {note}")


def _tier_row(tier: TierStatus) -> tuple[str, ...]:
    counts = (tier.num_slots, tier.num_free, tier.num_ready, tier.num_writing, tier.num_pinned)
    return (
        tier.name,
        *map(str, counts),
        bytes_text(tier.num_slots * tier.block_bytes),
        bytes_text(tier.bytes_read),
        bytes_text(tier.bytes_written),
        rate_text(tier.bytes_read, tier.read_seconds),
        rate_text(tier.bytes_written, tier.write_seconds),
        str(tier.evicted),
        str(tier.blocks_corrupt),
        str(tier.io_errors),
    )


def _print_tenants(tiers: Iterable[TierStatus]) -> None:
    rows: list[tuple[str, ...]] = []
    for tier in tiers:
        for tenant in tier.tenants:
            sizes = (bytes_text(blocks * tier.block_bytes) for blocks in (tenant.held, tenant.reserve, tenant.limit))
            rows.append((tenant.name or "(everybody else)", tier.name, *sizes, str(tenant.evicted)))
    if rows:
        print_table("", ("tenant", "tier", "holds", "reserved", "limit", "evicted"), rows)


def _print_activity(activity: Activity) -> None:
    rate = activity.hit_rate
    hits = "no lookup yet" if rate is None else f"{rate:.1%} of {activity.lookup_tokens} tokens were stored"
    print_line(f"lookups: {activity.lookups}, {hits} ({counts_text(activity.hit_tokens)})")
    if activity.declined_tokens or activity.pending_tokens:
        print_line(
            f"not loaded: {activity.declined_tokens} tokens cheaper to recompute, {activity.pending_tokens} being stored"
        )
    _print_times("lookup time", activity.lookup_seconds)
    for ticket in activity.tickets:
        _print_times(f"{ticket.kind}, {ticket.outcome}: {ticket.seconds.count}", ticket.seconds)
    if activity.transfers:
        columns = ("from", "to", "blocks", "bytes", "moves", "waited", "moved in")
        print_table("", columns, map(_transfer_row, activity.transfers))
    for name, label in _COUNTERS.items():
        counts = {of: count for of, count in activity.counters[name].items() if count}
        if name in _ALWAYS_SHOWN or counts:
            print_line(f"{label}: {counts_text(counts)}")


def _print_curve(curve: HitCurveStatus | None) -> None:
    if curve is not None and curve.num_blocks:
        points = zip(curve.factors, curve.hit_rates, curve.errors, strict=True)
        text = ", ".join(f"{factor:g}x {rate:.1%} ± {error:.1%}" for factor, rate, error in points)
        print_line(f"hit rate by capacity (LRU, {curve.num_blocks} blocks looked up): {text}")
        for tier in curve.tiers:
            shares = zip(tier.factors, tier.shares, strict=True)
            print_line(
                f"served by {tier.tier} at its capacity times: " + ", ".join(f"{f:g}x {s:.1%}" for f, s in shares)
            )


def _print_tuning(snapshot: StatusSnapshot) -> None:
    tuning = snapshot.tuning
    if tuning is None:
        return
    print_line(
        f"auto-tuned: {', '.join(f'{knob} {value}' for knob, value in sorted(tuning.values.items())) or 'nothing'}"
    )
    for change in tuning.changes:
        ago = seconds_text(max(0.0, snapshot.started_at + snapshot.uptime_s - change.at))
        values = change.after if change.action == "kept" else f"{change.before} to {change.after}"
        print_line(f"  {ago} ago {change.knob} {values}, {change.action}: {change.reason}")


def _print_times(label: str, seconds: HistogramStatus) -> None:
    median, tail = seconds.quantile(0.5), seconds.quantile(0.99)
    if median is not None and tail is not None:
        print_line(f"{label}: half within {seconds_text(median)}, 99 % within {seconds_text(tail)}")


def _transfer_row(transfer: TransferStatus) -> tuple[str, ...]:
    moves, blocks = transfer.seconds.count, counts_text(transfer.blocks)
    means = [seconds_text(mean) if mean is not None else "-" for mean in (transfer.wait.mean, transfer.seconds.mean)]
    return (transfer.source, transfer.target, blocks, bytes_text(transfer.num_bytes), str(moves), *means)
