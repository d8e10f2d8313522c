"""Checks: settings, alone and against the machine and the model."""

from collections.abc import Iterator
from pathlib import Path

from tiercel.config import format_bytes, parse_size
from tiercel.tune.doctor.check import SETTINGS, Seen, advice, check, error, fine, warning
from tiercel.tune.doctor.facts import Facts, SizeFacts
from tiercel.tune.doctor.findings import Group

_PIECE_MIN_BYTES = 16 << 10
_PIECE_TINY_BYTES = 4 << 10
_DISK_FACTOR_MIN = 4
_EVICT_RATIO_MAX = 0.2
_WATERMARK_MIN = 0.5
_DEMOTION_START = 0.95


def _sizes(facts: Facts) -> SizeFacts | None:
    return None if facts.settings is None else facts.settings.sizes


@check(
    Group.SETTINGS,
    why="No cache can be opened with settings that cannot be read.",
    remedy="correct what the message names; tiercel config explain shows every key",
)
def readable(facts: Facts) -> Iterator[Seen]:
    """Whether the settings' file, the environment and the model's description can be read and agree."""
    settings = facts.settings
    if settings is None:
        return
    yield error(SETTINGS, settings.problem) if settings.problem else fine(SETTINGS, f"read from {settings.source}")


@check(
    Group.SETTINGS,
    why="What was asked for is not done, or not as it reads.",
    remedy="tiercel config explain shows where each value comes from; remove or correct the key",
)
def notes(facts: Facts) -> Iterator[Seen]:
    """What `tiercel config explain` notes: impossible is an error; contradictory, ignored and unlikely are warnings where
    something is not done as asked; the rest is advice."""
    for note in () if facts.settings is None else facts.settings.notes:
        if "gds" in note.key.lower() or note.key == "sizes":
            continue  # the checks gpudirect-storage and fits tell these
        tell = error if note.kind == "impossible" else warning if note.loud or note.kind == "contradictory" else advice
        yield tell(SETTINGS, f"{note.key} ({note.kind}): {note.text}")


@check(
    Group.SETTINGS,
    why="A cache that does not fit does not open: memory and disk space are taken whole at the start.",
    remedy="take the capacity that the message names",
)
def fits(facts: Facts) -> Iterator[Seen]:
    """Whether the settings fit this machine's memory and disks now. Advice while a cache runs, which may be the one they are
    for. Needs a model."""
    sizes = _sizes(facts)
    if sizes is None:
        return
    is_running = bool(facts.answering) or any(
        folder.report.holder for found in facts.directories for folder in found.folders
    )
    if sizes.fit_problem:
        yield (
            advice(SETTINGS, f"beside what runs now: {sizes.fit_problem}")
            if is_running
            else error(SETTINGS, sizes.fit_problem)
        )
        return
    yield fine(SETTINGS, f"host {format_bytes(sizes.host_bytes)}, disk {format_bytes(sizes.disk_bytes)}")


@check(
    Group.SETTINGS,
    why="What the GPU's own prefix cache still holds is never asked of the host tier: a smaller one adds next to nothing.",
    remedy="num_cpu_blocks: at least twice the GPU's KV memory, or leave the host tier out (enable_cpu: false) and use the disk",
)
def host_against_gpu(facts: Facts) -> Iterator[Seen]:
    """Whether the host tier, of the settings or of a running cache, is smaller than the engine's KV memory on its GPUs, as
    `--gpu-memory` gives it. Without that, a probed machine's GPUs are taken, whose memory holds more than KV: then only advice,
    below half of it."""
    given, machine = facts.gpu_cache_bytes, facts.machine
    gpu_bytes = given if given is not None else sum(gpu.memory_bytes for gpu in machine.gpus) if machine else 0
    if not gpu_bytes:
        return
    sizes, is_enabled = _sizes(facts), facts.setting("enable_cpu") is not False
    hosts = [(SETTINGS, sizes.host_bytes)] if sizes is not None and is_enabled else []
    for process, snapshot in facts.answering:
        hosts += [
            (process.subject, tier.num_slots * tier.block_bytes) for tier in snapshot.tiers if tier.name == "host"
        ]
    for subject, host_bytes in hosts:
        whole = "KV memory" if given is not None else "memory, KV and weights"
        seen = f"host tier {format_bytes(host_bytes)}, the GPU's {whole} {format_bytes(gpu_bytes)}"
        if given is not None and host_bytes < gpu_bytes:
            yield warning(subject, seen)
        elif given is None and host_bytes < gpu_bytes // 2:
            yield advice(subject, seen)
        else:
            yield fine(subject, seen)


@check(
    Group.SETTINGS,
    why="Blocks in host memory are on the disk as well: a disk tier that is hardly larger holds hardly anything else.",
    remedy="num_ssd_blocks: 10 to 100 times num_cpu_blocks, as far as the disk goes; tiercel simulate tells what it brings",
)
def disk_against_host(facts: Facts) -> Iterator[Seen]:
    """Whether the disk tier, of the settings or of a running cache, is smaller than the host tier (a warning) or than four times
    that (advice)."""
    pairs = []
    sizes = _sizes(facts)
    if sizes is not None and sizes.host_bytes and sizes.disk_bytes:
        pairs.append((SETTINGS, sizes.host_bytes, sizes.disk_bytes))
    for process, snapshot in facts.answering:
        tiers = {tier.name: tier.num_slots * tier.block_bytes for tier in snapshot.tiers}
        if tiers.get("host") and tiers.get("disk"):
            pairs.append((process.subject, tiers["host"], tiers["disk"]))
    for subject, host_bytes, disk_bytes in pairs:
        seen = f"disk tier {format_bytes(disk_bytes)}, {disk_bytes / host_bytes:.1f} times the host tier"
        if disk_bytes < host_bytes:
            yield warning(subject, seen)
        else:
            yield advice(subject, seen) if disk_bytes < _DISK_FACTOR_MIN * host_bytes else fine(subject, seen)


@check(
    Group.SETTINGS,
    why="Each piece is copied by itself between GPU and host: short ones do not reach the link's bandwidth.",
    remedy="double tokens_per_block (another block size is another cache: it starts empty)",
)
def block_size(facts: Facts) -> Iterator[Seen]:
    """Bytes of one block's keys or values in one layer, all ranks together: below 4 KiB a warning, below 16 KiB advice. Also
    whether a block is larger than `transfer_chunk_bytes`. Needs a model."""
    sizes = _sizes(facts)
    if sizes is None:
        return
    chunk = facts.setting("transfer_chunk_bytes")
    chunk_bytes = parse_size("transfer_chunk_bytes", chunk) if isinstance(chunk, str) else chunk
    seen = f"pieces of {format_bytes(sizes.piece_bytes)} in blocks of {format_bytes(sizes.block_bytes)}"
    if chunk_bytes is not None and sizes.block_bytes > chunk_bytes:
        remedy = "halve tokens_per_block, or raise transfer_chunk_bytes"
        yield advice(SETTINGS, f"{seen}: a block is more than transfer_chunk_bytes = {chunk}", remedy)
    elif sizes.piece_bytes < _PIECE_TINY_BYTES:
        yield warning(SETTINGS, seen)
    else:
        yield advice(SETTINGS, seen) if sizes.piece_bytes < _PIECE_MIN_BYTES else fine(SETTINGS, seen)


@check(
    Group.SETTINGS,
    why="Blocks that are evicted ahead of need are hits given away.",
    remedy="evict_start_threshold: 0.95, evict_ratio: 0.05; the gap between the two watermarks is the batch",
)
def eviction(facts: Facts) -> Iterator[Seen]:
    """Whether `evict_ratio` is above 0.2, or eviction starts or stops below half of a tier, or `on_evict` is combined with a
    high watermark that it does not heed."""
    if facts.settings is None or not facts.settings.values:
        return
    ratio, start = facts.setting("evict_ratio"), facts.setting("evict_start_threshold")
    stop, admission = facts.setting("evict_stop_threshold"), facts.setting("ssd_admission")
    seen = f"evict_ratio = {ratio}, evict_start_threshold = {start}, evict_stop_threshold = {stop}"
    lows = [mark for mark in (start, stop) if isinstance(mark, float | int) and mark < _WATERMARK_MIN]
    if lows:
        yield warning(SETTINGS, f"{seen}: at most {max(lows):.0%} of a tier is used")
    elif isinstance(ratio, float | int) and ratio > _EVICT_RATIO_MAX:
        yield advice(SETTINGS, f"{seen}: each time {ratio:.0%} of a tier leaves")
    elif admission == "on_evict" and isinstance(start, float | int) and start > _DEMOTION_START:
        text = f"ssd_admission = on_evict starts at {_DEMOTION_START}, not at evict_start_threshold = {start}"
        yield advice(SETTINGS, text, f"evict_start_threshold: {_DEMOTION_START}")
    else:
        yield fine(SETTINGS, seen)


@check(
    Group.SETTINGS,
    why="A relative directory is another one for every directory that the engine is started in, and starts empty there.",
    remedy="give ssd_cache_dir an absolute path",
)
def relative_directory(facts: Facts) -> Iterator[Seen]:
    """Whether `ssd_cache_dir` is relative while the disk tier is on."""
    if facts.setting("enable_ssd") is not True:
        return
    given = str(facts.setting("ssd_cache_dir"))
    relative = [path for path in given.split(";") if not Path(path).expanduser().is_absolute()]
    if relative:
        yield advice(SETTINGS, f"ssd_cache_dir = {'; '.join(relative)}")
    else:
        yield fine(SETTINGS, f"ssd_cache_dir = {given}")


@check(
    Group.SETTINGS,
    why="Whoever may change the file decides where prompts' KV is kept; whoever may read it knows its secrets.",
    remedy="chmod 600 FILE",
)
def file_permissions(facts: Facts) -> Iterator[Seen]:
    """Whether the settings' file can be changed by others, or read by others while it holds a password, token or key. Values
    are never shown."""
    settings = facts.settings
    if settings is None or settings.mode is None:
        return
    remedy = f"chmod 600 {settings.source}"
    if settings.mode & 0o022:
        yield warning(SETTINGS, f"{settings.source} has mode {settings.mode:o}: others may change it", remedy)
    elif settings.secret_keys and settings.mode & 0o044:
        keys = ", ".join(settings.secret_keys)
        yield warning(SETTINGS, f"{settings.source} has mode {settings.mode:o} and holds {keys}", remedy)
    else:
        yield fine(SETTINGS, f"{settings.source} has mode {settings.mode:o}")
