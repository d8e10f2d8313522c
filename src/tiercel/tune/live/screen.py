"""What `tiercel top` shows, as lines of text for a given width. Pure; `terminal` puts them on a screen, or on a pipe.

What matters most stands first, in each table and on the whole: a narrow terminal loses columns on the right, a low one lines
at the bottom.
"""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tiercel.telemetry.snapshot import StatusSnapshot, TierStatus
from tiercel.tune.live.history import History, Span
from tiercel.tune.live.watching import Look

_GAP = 2
_BAR_CELLS = 10
_FAULTS = {"throttled": "throttled", "recompute": "recompute", "fallbacks": "fallbacks", "errors": "errors"}


class Weight(enum.Enum):
    """How a line is to look."""

    PLAIN = "plain"
    HEAD = "head"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the screen."""

    text: str
    weight: Weight = Weight.PLAIN


def lines(look: Look, width: int) -> list[Line]:
    """Lay a look out in lines that are at most `width` characters long."""
    snapshot = look.history.latest
    if snapshot is None:
        return _cut([Line("tiercel top", Weight.HEAD), Line(f"waiting: {look.reason}", Weight.WARNING)], width)
    shown = [_title(look, snapshot)]
    if look.reason is not None:
        text = f"no answer for {_duration(look.silent_s)}; what follows is older. {look.reason}"
        shown.append(Line(text, Weight.WARNING))
    history = look.history
    shown += [Line(_lookups(history)), Line("")]
    shown += _table(_tier_rows(history), width)
    tenants = _tenant_rows(history.now)
    if tenants:
        shown += [Line(""), *_table(tenants, width)]
    shown += [Line(""), *_table(_lane_rows(history.now), width)]
    shown += [
        Line(f"queues   {_counts(snapshot.queue_depths)}"),
        Line(f"tickets  {_counts(snapshot.tickets)}"),
        Line(""),
    ]
    shown += _table(_curve_rows(snapshot), width)
    shown += [Line(""), *_faults(history.minute), *_tuning(snapshot)]
    shown += [Line(f"note: {note}", Weight.WARNING) for note in snapshot.notes]
    return _cut(shown, width)


def _title(look: Look, snapshot: StatusSnapshot) -> Line:
    others = f"  cache {look.number} of {look.count}" if look.count > 1 else ""
    up = _duration(snapshot.uptime_s)
    return Line(f"tiercel {snapshot.version}  pid {snapshot.pid}{others}  up {up}  {snapshot.model}", Weight.HEAD)


def _lookups(history: History) -> str:
    span, minute = history.now, history.minute
    rate = span.rate(span.before.activity.lookups, span.after.activity.lookups)
    shares = minute.hit_shares()
    of_late = f"{sum(shares.values()):.1%} of the blocks" if shares else "no lookup"
    in_all = span.after.activity.hit_rate
    ever = "no lookup yet" if in_all is None else f"{in_all:.1%} of the tokens since the start"
    return f"lookups  {_number(rate)}/s, hit in the last minute: {of_late}; {ever}"


def _tier_rows(history: History) -> list[tuple[str, ...]]:
    """Columns by weight: what is said of a tier if there is room for little."""
    now, minute = history.now, history.minute
    shares = minute.hit_shares()
    rows: list[tuple[str, ...]] = [("tier", "in use", "hits", "read", "written", "evicted", "age", "size", "")]
    for tier in now.after.tiers:
        before = now.tier_before(tier)
        used = 1 - tier.num_free / tier.num_slots if tier.num_slots else 0.0
        evicted = now.rate(before.evicted, tier.evicted)
        rows.append(
            (
                tier.name,
                f"{used:.1%}",
                f"{shares[tier.name]:.1%}" if tier.name in shares else "-",
                _bandwidth(now.rate(before.bytes_read, tier.bytes_read)),
                _bandwidth(now.rate(before.bytes_written, tier.bytes_written)),
                f"{_number(evicted)}/s",
                _age(minute, tier),
                _size(tier.num_slots * tier.block_bytes),
                _bar(used),
            )
        )
    return rows


def _tenant_rows(now: Span) -> list[tuple[str, ...]]:
    """What each tenant has of each tier; nothing without tenants."""
    rows: list[tuple[str, ...]] = []
    for tier in now.after.tiers:
        before = {tenant.name: tenant.evicted for tenant in now.tier_before(tier).tenants}
        for tenant in tier.tenants:
            evicted = now.rate(before.get(tenant.name, 0), tenant.evicted)
            sizes = (_size(blocks * tier.block_bytes) for blocks in (tenant.held, tenant.reserve, tenant.limit))
            rows.append((f"{tenant.name or '(others)'} {tier.name}", *sizes, f"{_number(evicted)}/s"))
    return [("tenant", "holds", "reserved", "limit", "evicted"), *rows] if rows else []


def _age(minute: Span, tier: TierStatus) -> str:
    """How long half of what was evicted in the last minute had been unused, at most."""
    age_s = minute.eviction_age_s(tier)
    return "-" if age_s is None else "long" if age_s == float("inf") else f"<= {_duration(age_s)}"


def _lane_rows(span: Span) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("lane", "now", "moves", "waited", "moved")]
    before = {(route.source, route.target): route for route in span.before.activity.transfers}
    for route in span.after.activity.transfers:
        then = before.get((route.source, route.target))
        num_bytes, moves = (then.num_bytes, then.seconds.count) if then is not None else (0, 0)
        mean = route.wait.mean
        rows.append(
            (
                f"{route.source} > {route.target}",
                _bandwidth(span.rate(num_bytes, route.num_bytes)),
                f"{_number(span.rate(moves, route.seconds.count))}/s",
                "-" if mean is None else _duration(mean),
                _size(route.num_bytes),
            )
        )
    return rows if len(rows) > 1 else [("no blocks were moved yet",)]


def _curve_rows(snapshot: StatusSnapshot) -> list[tuple[str, ...]]:
    curve = snapshot.hit_curve
    if curve is None:
        return [("no hit rates of other capacities: ghost_sample_rate is 0",)]
    if not curve.num_blocks:
        return [("no lookup yet to tell the hit rates of other capacities from",)]
    factors = curve.tiers[0].factors if curve.tiers else curve.factors
    rows: list[tuple[str, ...]] = [("would serve at", *(f"{factor:g}x" for factor in factors))]
    rows += [(tier.tier, *(f"{share:.1%}" for share in tier.shares)) for tier in curve.tiers]
    rates = dict(zip(curve.factors, curve.hit_rates, strict=True))
    rows.append(("all (LRU)", *(f"{rates[factor]:.1%}" if factor in rates else "-" for factor in factors)))
    return rows


def _faults(minute: Span) -> list[Line]:
    shown = []
    for name, label in _FAULTS.items():
        counts = {of: count for of, count in minute.after.activity.counters[name].items() if count}
        grown = minute.grown(minute.before.activity.counters[name], minute.after.activity.counters[name])
        late = f"; in the last minute: {_counts(grown)}" if grown else ""
        shown.append(Line(f"{label}: {_counts(counts)}{late}", Weight.WARNING if grown else Weight.PLAIN))
    return shown


def _tuning(snapshot: StatusSnapshot) -> list[Line]:
    """What auto-tuning tunes, and what it did last."""
    tuning = snapshot.tuning
    if tuning is None:
        return []
    values = ", ".join(f"{knob} {value}" for knob, value in sorted(tuning.values.items())) or "nothing"
    if not tuning.changes:
        return [Line(f"tuning: {values}; no change yet")]
    last = tuning.changes[-1]
    ago = _duration(max(0.0, snapshot.started_at + snapshot.uptime_s - last.at))
    return [Line(f"tuning: {values}; {ago} ago {last.knob} {last.after} {last.action}: {last.reason}")]


def _table(rows: Sequence[Sequence[str]], width: int) -> list[Line]:
    """Align columns, the first to the left and the others to the right; those that do not fit are left out."""
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))]
    shown, used = 1, widths[0]
    while shown < len(widths) and used + _GAP + widths[shown] <= width:
        used += _GAP + widths[shown]
        shown += 1
    texts = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(row[number].rjust(widths[number]) for number in range(1, shown))]
        texts.append((" " * _GAP).join(cells).rstrip())
    return [Line(text, Weight.HEAD if at == 0 and len(rows) > 1 else Weight.PLAIN) for at, text in enumerate(texts)]


def _cut(shown: Iterable[Line], width: int) -> list[Line]:
    """Cut lines that are too long, and leave out what would steer a terminal: names come from settings."""
    clean = (Line("".join(c if c.isprintable() else "?" for c in line.text), line.weight) for line in shown)
    return [
        line if len(line.text) <= width else Line(line.text[: max(0, width - 1)] + "…", line.weight) for line in clean
    ]


def _bar(share: float) -> str:
    filled = min(_BAR_CELLS, max(0, round(share * _BAR_CELLS)))
    return "#" * filled + "." * (_BAR_CELLS - filled)


def _bandwidth(bytes_per_s: float | None) -> str:
    return "-" if bytes_per_s is None else f"{max(0.0, bytes_per_s) / 1e9:.2f} GB/s"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{max(0.0, value):.0f}"


def _size(num_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.4g} TiB"


def _duration(seconds: float) -> str:
    for limit, unit, scale in ((1e-3, "us", 1e6), (1.0, "ms", 1e3), (120.0, "s", 1.0), (7200.0, "min", 1 / 60)):
        if seconds < limit:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds / 3600:.3g} h" if seconds < 172_800 else f"{seconds / 86_400:.3g} d"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
