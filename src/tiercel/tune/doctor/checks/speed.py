"""Checks: what running caches give away: hits, bandwidth, endurance."""

from collections.abc import Iterator, Sequence

from tiercel.config import format_bytes, parse_size
from tiercel.telemetry.snapshot import StatusSnapshot, TierStatus
from tiercel.tune.doctor.check import SETTINGS, Seen, advice, check, fine, warning
from tiercel.tune.doctor.facts import Facts
from tiercel.tune.doctor.findings import Group
from tiercel.tune.machine import Machine

_DAY_S = 86400.0
_CURVE_BLOCKS_MIN = 2000
_GAIN_MIN = 0.05
_SPARE_MAX = 0.01
_LOSS_MIN = 0.1
_SURE_ERRORS = 3.0
_AGE_MIN_S = 60.0
_THROTTLED_SHARE = 0.001
_DECLINED_SHARE = 0.5
_BUDGET_SHARE = 0.9
_RATE_BYTES_MIN = 256 << 20
_UPTIME_MIN_S = 3600.0
_CALLS_AT_ONCE = 2
"""Chunks of a disk lane that are in flight together: each call sees that part of the device."""
_SLOW_SHARE = 0.5
_SPEED_ORDER = ("gpu", "host", "disk", "remote")


def _queue_limit(facts: Facts) -> int:
    limit = facts.setting("transfer_queue_depth_max")
    return limit if isinstance(limit, int) else 256


@check(
    Group.SPEED,
    why="Every point of hit rate is prefill that the GPU does again.",
    remedy="twice the capacity of the slowest tier (num_ssd_blocks, or num_cpu_blocks without a disk tier); half of it where "
    "half would do",
)
def capacity(facts: Facts) -> Iterator[Seen]:
    """What the ghost index says of other capacities: advice if twice the capacity would bring 5 points or more of hit rate, or
    half of it would cost less than 1; only beyond three standard errors and after 2,000 blocks."""
    for process, snapshot in facts.answering:
        curve = snapshot.hit_curve
        if curve is None or curve.num_blocks < _CURVE_BLOCKS_MIN or 1.0 not in curve.factors:
            continue
        points = {
            factor: (rate, wrong)
            for factor, rate, wrong in zip(curve.factors, curve.hit_rates, curve.errors, strict=True)
        }
        (now, error_now), (more, error_more) = points[1.0], points.get(2.0, points[1.0])
        half, _ = points.get(0.5, (0.0, 0.0))
        error = max(error_now, error_more)
        seen = f"hit rate {now:.1%} at this capacity, {more:.1%} at twice it, ± {error:.1%}"
        if more - now >= max(_GAIN_MIN, _SURE_ERRORS * error):
            yield advice(process.subject, seen)
        elif 0.5 in points and now > _SPARE_MAX and now - half < _SPARE_MAX and _SURE_ERRORS * error < _GAIN_MIN:
            seen = f"hit rate {now:.1%} at this capacity, {half:.1%} at half of it, ± {error:.1%}"
            yield advice(process.subject, seen, "half the capacity")
        else:
            yield fine(process.subject, seen)


@check(
    Group.SPEED,
    why="The same bytes under plain LRU would have had more hits: policy, admission or throttling keeps blocks out.",
    remedy="compare eviction_policy: lru and ssd_admission: through with tiercel simulate on a recording (record_path)",
)
def policy(facts: Facts) -> Iterator[Seen]:
    """Whether the blocks really found are 10 points or more below what the ghost index says of LRU at the same capacity."""
    for process, snapshot in facts.answering:
        curve, activity = snapshot.hit_curve, snapshot.activity
        if (
            curve is None
            or 1.0 not in curve.factors
            or curve.num_blocks < _CURVE_BLOCKS_MIN
            or not activity.lookup_blocks
        ):
            continue
        ideal = curve.hit_rates[curve.factors.index(1.0)]
        wrong = curve.errors[curve.factors.index(1.0)]
        found = sum(activity.hit_blocks.values()) + activity.declined_blocks + activity.pending_blocks
        share = found / activity.lookup_blocks
        seen = f"{share:.1%} of blocks were found, LRU of this capacity would have {ideal:.1%}"
        yield (
            advice(process.subject, seen)
            if ideal - share > max(_LOSS_MIN, _SURE_ERRORS * wrong)
            else fine(process.subject, seen)
        )


@check(
    Group.SPEED,
    why="Blocks that leave sooner than a person answers are gone at the next turn of the conversation.",
    remedy="a larger slowest tier, or ssd_admission: on_second_hit, so that what is never asked for again pushes nothing out",
)
def eviction_age(facts: Facts) -> Iterator[Seen]:
    """Whether half of what leaves the slowest tier had been used within the last minute."""
    for process, snapshot in facts.answering:
        if not snapshot.tiers:
            continue
        slowest = max(snapshot.tiers, key=lambda tier: _SPEED_ORDER.index(tier.name))
        median = slowest.eviction_age.quantile(0.5)
        if median is None:
            yield fine(process.subject, f"nothing was evicted from {slowest.name}")
            continue
        seen = f"half of what leaves {slowest.name} was used within the last {median:g} s ({slowest.evicted} blocks)"
        yield warning(process.subject, seen) if median <= _AGE_MIN_S else fine(process.subject, seen)


@check(
    Group.SPEED,
    why="A full queue refuses: loads are recomputed, stores are hits that never come.",
    remedy="a faster or second disk, or fewer writes (ssd_admission: on_second_hit); a deeper queue only makes waiting longer",
)
def queues(facts: Facts) -> Iterator[Seen]:
    """Refusals for a full queue: a warning from 1 in 1,000 tickets on. Also whether a queue now holds more than half of
    `transfer_queue_depth_max` (256 where the settings are not known)."""
    for process, snapshot in facts.answering:
        refused = {
            name: count
            for name, count in snapshot.activity.throttled.items()
            if count and name not in ("budget", "demotion")
        }
        deep = {name: depth for name, depth in snapshot.queue_depths.items() if depth > _queue_limit(facts) // 2}
        told = ", ".join(f"{name} {count}" for name, count in sorted(refused.items()))
        tickets = sum(ticket.seconds.count for ticket in snapshot.activity.tickets)
        if deep:
            depths = ", ".join(f"{name} {depth}" for name, depth in sorted(deep.items()))
            yield warning(
                process.subject, f"waiting now: {depths} of {_queue_limit(facts)}; refused so far: {told or 'none'}"
            )
        elif refused:
            many = sum(refused.values()) > _THROTTLED_SHARE * tickets
            yield (warning if many else advice)(process.subject, f"refused: {told}, of {tickets} tickets")
        else:
            yield fine(process.subject, f"no refusal in {tickets} tickets")


@check(
    Group.SPEED,
    why="Blocks that the write budget keeps off the disk are lost when they leave host memory.",
    remedy="raise ssd_write_budget_per_day if the disk's endurance allows it, or ssd_admission: on_second_hit to spend it better",
)
def write_budget(facts: Facts) -> Iterator[Seen]:
    """Writes that the budget refused, whether a running cache writes more than nine tenths of the settings' budget, and whether
    that budget is above what the disks endure in a day (their size times `--drive-writes-per-day`)."""
    budget = facts.setting("ssd_write_budget_per_day")
    budget_bytes = parse_size("ssd_write_budget_per_day", budget) if isinstance(budget, str) else budget
    endured = _endured_bytes(facts)
    if budget_bytes and endured and budget_bytes > endured:
        seen = f"a budget of {format_bytes(int(budget_bytes))} a day, the disks endure {format_bytes(int(endured))}"
        yield warning(SETTINGS, seen, f"ssd_write_budget_per_day: {int(endured) // 2**20}MiB")
    for process, snapshot in facts.answering:
        refused, a_day = snapshot.activity.throttled.get("budget", 0), _written_a_day(snapshot)
        if refused:
            yield advice(process.subject, f"the budget refused {refused} writes")
        elif budget_bytes and a_day > _BUDGET_SHARE * budget_bytes:
            yield advice(
                process.subject,
                f"{format_bytes(int(a_day))} written a day, the budget is {format_bytes(int(budget_bytes))}",
            )
        elif budget_bytes:
            yield fine(process.subject, f"{format_bytes(int(a_day))} written a day, within the budget")


@check(
    Group.SPEED,
    why="Where a store finds the host tier full it evicts by itself, and what leaves was not copied to disk first.",
    remedy="lower evict_start_threshold until the count stands still",
)
def demotion(facts: Facts) -> Iterator[Seen]:
    """Under `on_evict`, evictions that no demotion could precede."""
    for process, snapshot in facts.answering:
        refused = snapshot.activity.throttled.get("demotion", 0)
        if refused:
            yield warning(process.subject, f"{refused} times blocks left before they were copied to disk")


@check(
    Group.SPEED,
    why="A disk that is written beyond its endurance wears out before its warranty does.",
    remedy="ssd_admission: on_second_hit, or ssd_write_budget_per_day at the disk's endurance",
)
def wear(facts: Facts) -> Iterator[Seen]:
    """Bytes written a day at the rate since the cache was opened, against the size of the filesystem times
    `--drive-writes-per-day`; not before an hour."""
    endured = _endured_bytes(facts)
    for process, snapshot in facts.answering:
        disk, a_day = _disk(snapshot), _written_a_day(snapshot)
        if disk is None or not a_day or not endured:
            continue
        back = f"{disk.bytes_read / disk.bytes_written:.2f} bytes read for each written"
        seen = f"{format_bytes(int(a_day))} written a day, the disks endure {format_bytes(int(endured))}; {back}"
        yield warning(process.subject, seen) if a_day > endured else fine(process.subject, seen)


@check(
    Group.SPEED,
    why="Stored and not loaded: the tier is slower than computing again, so it costs space and wear for nothing.",
    remedy="a faster disk, or a smaller disk tier; load_policy: always for an hour shows whether the estimate is right",
)
def declined(facts: Facts) -> Iterator[Seen]:
    """Whether more than half of the tokens found stored were cheaper to recompute."""
    for process, snapshot in facts.answering:
        activity = snapshot.activity
        stored = sum(activity.hit_tokens.values()) + activity.declined_tokens
        if stored and activity.declined_tokens > _DECLINED_SHARE * stored:
            yield advice(
                process.subject, f"{activity.declined_tokens} of {stored} stored tokens were cheaper to recompute"
            )


@check(
    Group.SPEED,
    why="The device gave more when it was measured: something else uses it now, or it has aged or filled up.",
    remedy="iostat -x 1 for other users; tiercel probe measures again; check fstrim, temperature and the mount",
)
def slower_than_measured(facts: Facts) -> Iterator[Seen]:
    """Whether a running cache's disk reads or writes come at less than half of what `--machine` says of the nearest block size,
    taking into account that two calls share the device. Not below 256 MiB moved."""
    if facts.machine is None:
        return
    for process, snapshot in facts.answering:
        disk = _disk(snapshot)
        for operation in () if disk is None else ("read", "write"):
            assert disk is not None
            yield from _compared(facts.machine, process.subject, disk, operation, process.directories)


def _compared(
    machine: Machine, subject: str, disk: TierStatus, operation: str, directories: Sequence[str]
) -> Iterator[Seen]:
    is_read = operation == "read"
    num_bytes, seconds = (disk.bytes_read, disk.read_seconds) if is_read else (disk.bytes_written, disk.write_seconds)
    places = [place for place in machine.directories if place.path in directories] or list(machine.directories)
    figures = [figure for place in places for figure in place.figures if figure.operation == operation]
    if num_bytes < _RATE_BYTES_MIN or not seconds or not figures:
        return
    nearest = min(abs(figure.block_bytes - disk.block_bytes) for figure in figures)
    measured = max(
        figure.bytes_per_s.value for figure in figures if abs(figure.block_bytes - disk.block_bytes) == nearest
    )
    rate = num_bytes / seconds
    seen = f"{operation}s at {format_bytes(int(rate))}/s a call, measured were {format_bytes(int(measured))}/s"
    yield warning(subject, seen) if rate < _SLOW_SHARE * measured / _CALLS_AT_ONCE else fine(subject, seen)


@check(
    Group.SPEED,
    why="Advice and simulations are as good as the measurement below them.",
    remedy="tiercel probe, on a machine that does nothing else",
)
def measurement(facts: Facts) -> Iterator[Seen]:
    """Whether the figures in `--machine` were made on this kernel, within 90 days, and with repeats close enough together."""
    machine = facts.machine
    if machine is None:
        return
    days = facts.measured_age_s / _DAY_S
    doubtful = [f"measured {days:.0f} days ago"] if days > 90 else []
    if facts.system is not None and machine.kernel and facts.system.kernel not in machine.kernel:
        doubtful.append(f"measured on kernel {machine.kernel}, this is {facts.system.kernel}")
    figures = [figure.bytes_per_s for place in machine.directories for figure in place.figures]
    shaky = sum(not figure.is_trusted for figure in (machine.copy_bytes_per_s, *figures))
    if shaky:
        doubtful.append(f"{shaky} of {len(figures) + 1} figures spread too far")
    if doubtful:
        yield advice("machine", "; ".join(doubtful))
    else:
        yield fine("machine", f"{len(figures) + 1} figures, {days:.0f} days old")


def _endured_bytes(facts: Facts) -> float:
    devices = {found.device: found.total_bytes for found in facts.readable_directories}
    return sum(devices.values()) * facts.drive_writes_per_day


def _written_a_day(snapshot: StatusSnapshot) -> float:
    """Bytes written to disk in a day at the rate so far; 0 within the first hour, whose rate says nothing about a day."""
    disk = _disk(snapshot)
    if disk is None or snapshot.uptime_s < _UPTIME_MIN_S:
        return 0.0
    return disk.bytes_written / snapshot.uptime_s * _DAY_S


def _disk(snapshot: StatusSnapshot) -> TierStatus | None:
    return next((tier for tier in snapshot.tiers if tier.name == "disk"), None)
