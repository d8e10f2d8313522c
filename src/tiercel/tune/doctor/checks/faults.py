"""Checks: what goes wrong in running caches."""

from collections.abc import Iterator

from tiercel.telemetry.snapshot import StatusSnapshot
from tiercel.tune.doctor.check import Seen, advice, check, error, fine, warning
from tiercel.tune.doctor.facts import Facts
from tiercel.tune.doctor.findings import Group

_OUTAGE = "it tries again every"
"""What the note of a tier out of service says."""
_CORRUPT_FEW = 8
_DEADLINE_SHARE = 0.01
_PINNED_SHARE = 0.5


def _tickets(snapshot: StatusSnapshot) -> int:
    return sum(ticket.seconds.count for ticket in snapshot.activity.tickets)


def _moved(snapshot: StatusSnapshot) -> int:
    return sum(tier.bytes_read + tier.bytes_written for tier in snapshot.tiers)


@check(
    Group.FAULTS,
    why="A cache that does not answer is gone, stopped, or so busy that its engine's requests wait as well.",
    remedy="ps -o pid,stat,wchan,cmd -p PID; tiercel stats lists the caches that answer",
)
def answers(facts: Facts) -> Iterator[Seen]:
    """Whether each process asked for serves a status and answers in time."""
    for process in facts.processes:
        if process.problem:
            yield error(process.subject, process.problem)
    for process, snapshot in facts.answering:
        yield fine(process.subject, f"{snapshot.model}, up {snapshot.uptime_s:.0f} s")


@check(
    Group.FAULTS,
    why="It works, but slower or less safely than asked, and did so since the note was made.",
    remedy="the note says what to do; docs/operations.md lists the kinds of fallbacks",
)
def fallbacks(facts: Facts) -> Iterator[Seen]:
    """Every fallback that a running cache notes, and those that it counted without a note that still stands. A tier that is out
    of service is an error."""
    for process, snapshot in facts.answering:
        for note in snapshot.notes:
            yield (error if _OUTAGE in note else warning)(process.subject, note)
        counts = {kind: count for kind, count in snapshot.activity.counters["fallbacks"].items() if count}
        if counts and not snapshot.notes:
            told = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
            yield warning(process.subject, f"fallbacks that are over: {told}")
        elif not counts:
            yield fine(process.subject, "no fallback")


@check(
    Group.FAULTS,
    why="A block that fails its checksum or its read is never served, so it costs a hit; many mean a disk or memory that fails.",
    remedy="smartctl -a DEVICE, dmesg, and a memory test; replace the disk, then start with an empty directory",
)
def failing_disk(facts: Facts) -> Iterator[Seen]:
    """Blocks that failed their checksum or could not be read or written. An error if there are more than a few, or more since
    a second ago; few checksums after a power loss are usual."""
    for process, snapshot in facts.answering:
        for number, tier in enumerate(snapshot.tiers):
            bad = tier.blocks_corrupt + tier.io_errors
            before = process.first.tiers[number] if process.first else tier
            is_growing = bad > before.blocks_corrupt + before.io_errors
            seen = f"{tier.name}: {tier.blocks_corrupt} corrupt blocks, {tier.io_errors} I/O errors"
            if is_growing or tier.io_errors or tier.blocks_corrupt > _CORRUPT_FEW:
                yield error(process.subject, seen)
            elif bad:
                yield warning(process.subject, seen)
            elif tier.name == "disk":
                yield fine(process.subject, seen)


@check(
    Group.FAULTS,
    why="What the journal does not take is not warm after a restart, and without checkpoints it grows until its disk is full.",
    remedy="free space on the journal's filesystem; the next store and checkpoint try again by themselves",
)
def checkpoints(facts: Facts) -> Iterator[Seen]:
    """Checkpoints that failed, and writes and syncs that the journal refused."""
    for process, snapshot in facts.answering:
        counters = snapshot.activity.counters
        failed = counters["checkpoints"].get("failed", 0)
        refused = {kind: count for kind, count in counters["errors"].items() if kind.startswith("journal_") and count}
        if failed or refused:
            told = ", ".join(f"{kind} {count}" for kind, count in sorted(refused.items()))
            yield error(process.subject, f"{failed} checkpoints failed; refused: {told or 'nothing'}")
        elif any(tier.name == "disk" for tier in snapshot.tiers):
            yield fine(process.subject, f"{counters['checkpoints'].get('ok', 0)} checkpoints, none failed")


@check(
    Group.FAULTS,
    why="At its deadline a load is given up and its request computes everything, after having waited.",
    remedy="find the tier that stalls (tiercel stats, table of routes); raise transfer_timeout_s only if a move takes that long",
)
def deadlines(facts: Facts) -> Iterator[Seen]:
    """Tickets that did not end in time: a warning, an error if they are more than 1 % of all."""
    for process, snapshot in facts.answering:
        missed = snapshot.activity.counters["errors"].get("DeadlineError", 0)
        ended = max(_tickets(snapshot), missed)
        if not missed:
            yield fine(process.subject, f"none of {ended} tickets missed its deadline")
            continue
        tell = error if missed > _DEADLINE_SHARE * ended else warning
        yield tell(process.subject, f"{missed} of {ended} tickets missed their deadline")


@check(
    Group.FAULTS,
    why="A device that ends nothing holds the pins of what waits for it, until the deadline gives them back.",
    remedy="dmesg and iostat -x 1 for the disk, nvidia-smi for the GPU; cat /proc/PID/task/*/wchan shows who waits for what",
)
def stuck_tickets(facts: Facts) -> Iterator[Seen]:
    """Whether tickets run, and between two looks a second apart none ended and no byte was moved."""
    for process, snapshot in facts.answering:
        first, running = process.first, snapshot.tickets.get("running", 0)
        if first is None or process.second is None:
            continue
        stands = _tickets(first) == _tickets(snapshot) and _moved(first) == _moved(snapshot)
        if running and first.tickets.get("running", 0) and stands:
            yield warning(process.subject, f"{running} tickets run, and nothing moved for {process.interval_s:.1f} s")
        else:
            yield fine(process.subject, f"{running} tickets run")


@check(
    Group.FAULTS,
    why="Pinned blocks cannot be evicted; when too many are, stores find no room.",
    remedy="launch or release() every lookup; a lookup that is kept holds its blocks",
)
def pins(facts: Facts) -> Iterator[Seen]:
    """Whether more than half of a tier is pinned."""
    for process, snapshot in facts.answering:
        for tier in snapshot.tiers:
            if tier.num_pinned > _PINNED_SHARE * tier.num_slots:
                yield warning(process.subject, f"{tier.name}: {tier.num_pinned} of {tier.num_slots} blocks are pinned")


@check(
    Group.FAULTS,
    why="What doctor says is this version's knowledge; another one may count otherwise or have what is fixed here.",
    remedy="restart the engine with the installed version; the disk tier stays warm",
)
def version(facts: Facts) -> Iterator[Seen]:
    """Whether a running cache is of another version than doctor."""
    for process, snapshot in facts.answering:
        if snapshot.version != facts.tiercel:
            yield advice(process.subject, f"runs {snapshot.version}, installed is {facts.tiercel}")
        else:
            yield fine(process.subject, f"runs the installed {snapshot.version}")


@check(
    Group.FAULTS,
    why="A recording with gaps does not replay as the traffic was.",
    remedy="put record_path on a faster or emptier disk",
)
def recording(facts: Facts) -> Iterator[Seen]:
    """Whether the recorder dropped events."""
    for process, snapshot in facts.answering:
        counts = snapshot.activity.counters["recorder_events"]
        if counts.get("dropped", 0):
            yield warning(process.subject, f"{counts['dropped']} events dropped, {counts.get('written', 0)} written")


@check(
    Group.FAULTS,
    why="Doctor is only as good as what it could see.",
    remedy="run it again as the cache's user; a directory or process that hangs is named above",
)
def unseen(facts: Facts) -> Iterator[Seen]:
    """What could not be looked at, or not completely, in time."""
    for problem in facts.problems:
        yield warning("doctor", problem)
