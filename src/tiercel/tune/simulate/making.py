"""From what an operator has to a setup: a cache's configuration, a model, a machine that was measured, and its engine.

The control half's settings are made by the code that makes those of a real cache. Links are read out of the machine's file:
the figure measured nearest to the size of what this cache moves. What nobody measured is assumed, and said in the notes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tiercel.config import (
    BLOCKS_MAX,
    CacheConfig,
    DeviceRoom,
    ModelConfig,
    ResolvedConfig,
    Room,
    format_bytes,
    parse_size,
)
from tiercel.control import control_settings
from tiercel.errors import ConfigError
from tiercel.tiers.base import TierName
from tiercel.transfer import TransferSettings
from tiercel.tune.machine import DirectoryFigures, DiskFigure, Figure, GpuFigures, Machine, nearest_size
from tiercel.tune.simulate.prefill import PrefillSource
from tiercel.tune.simulate.setup import EngineModel, Link, SimulationSetup

_HOST, _DISK = TierName.HOST, TierName.DISK

HOST_LATENCY_S = 20e-6
"""Time until a copy between a GPU and host memory begins, which machine files do not tell."""


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What is known of the engine beside its model.

    Attributes:
        prefill: its prefill curve.
        decode_token_s: seconds between two tokens of a request; None if nobody knows.
        kv_bytes: GPU memory of its own KV cache over all ranks, in bytes or as "40GiB"; None if nobody knows.
        replicas, stores_output, step_tokens: as of `EngineModel`.
    """

    prefill: PrefillSource
    decode_token_s: float | None = None
    kv_bytes: int | str | None = None
    replicas: int = 1
    stores_output: bool = True
    step_tokens: int = 0


def make_setup(
    config: CacheConfig,
    model: ModelConfig,
    machine: Machine,
    engine: EngineFacts,
    *,
    speedup: float = 1.0,
) -> SimulationSetup:
    """Return what a run of this cache on this machine is made of.

    Raises:
        ConfigError: the machine's file has no figure for a tier, or a setting does not fit the model.
        ValueError: a value of the engine is out of range.
    """
    notes: list[str] = [engine.prefill.told]
    directories = _directories(config, machine, notes) if config.enable_ssd else ()
    resolved = config.resolve(model, _room(machine, directories))
    capacities: dict[TierName, int] = {}
    links: dict[TierName, tuple[Link, Link]] = {}
    if config.enable_cpu:
        capacities[_HOST] = resolved.num_cpu_blocks
        links[_HOST] = _host_links(resolved, machine, notes)
    if config.enable_ssd:
        capacities[_DISK] = resolved.num_ssd_blocks
        links[_DISK] = _disk_links(resolved, directories, notes)
    return SimulationSetup(
        control=control_settings(resolved, capacities),
        reads={tier: read for tier, (read, _) in links.items()},
        writes={tier: write for tier, (_, write) in links.items()},
        engine=make_engine(engine, resolved.block_bytes, notes),
        speedup=speedup,
        deadline_s=config.transfer_timeout_s,
        transfer=TransferSettings.from_resolved(resolved),
        notes=tuple(notes),
    )


def make_engine(facts: EngineFacts, block_bytes: int, notes: list[str] | None = None) -> EngineModel:
    """Return an engine's model.

    Args:
        block_bytes: of the cache.
        notes: what was assumed is added to it.

    Raises:
        ConfigError: the size of its memory is none, or more than there can be.
        ValueError: a value is out of range.
    """
    notes = [] if notes is None else notes
    num_blocks = 0
    if facts.kv_bytes is None:
        notes.append("the engine's own prefix cache is taken to hold nothing: its memory was not given")
    else:
        kv_bytes = parse_size("gpu-kv", facts.kv_bytes) if isinstance(facts.kv_bytes, str) else facts.kv_bytes
        num_blocks = kv_bytes // block_bytes
        if num_blocks > BLOCKS_MAX:
            rule = f"must be at most {BLOCKS_MAX} blocks of {format_bytes(block_bytes)}"
            raise ConfigError(f"gpu-kv = {format_bytes(kv_bytes)}: {rule}; give the memory of one engine's GPUs")
        if num_blocks == 0:
            notes.append(
                f"the engine's own prefix cache is taken to hold nothing: a block takes {format_bytes(block_bytes)}, its memory "
                f"has {format_bytes(kv_bytes)}"
            )
    if facts.decode_token_s is None:
        notes.append("tokens are taken to be generated in no time: the time of one was not given")
    return EngineModel(
        prefill=facts.prefill.curve,
        decode_token_s=facts.decode_token_s or 0.0,
        gpu_blocks=num_blocks,
        replicas=facts.replicas,
        stores_output=facts.stores_output,
        step_tokens=facts.step_tokens,
    )


def _directories(config: CacheConfig, machine: Machine, notes: list[str]) -> tuple[DirectoryFigures, ...]:
    """What was measured of each directory of the disk tier; of another one where that was not measured."""
    if not machine.directories:
        raise ConfigError(
            f"enable_ssd = True: the machine's file has no directory measured; run tiercel probe --directory "
            f"{', '.join(map(str, config.ssd_cache_dirs))}, or set enable_ssd to false"
        )
    measured = {directory.path: directory for directory in machine.directories}
    chosen = []
    for path in map(str, config.ssd_cache_dirs):
        found = measured.get(path)
        if found is None:
            found = machine.directories[0]
            notes.append(f"the cache directory {path} was not measured; taken to be like {found.path}")
        chosen.append(found)
    if len(chosen) > 1:
        notes.append(f"the disk tier's {len(chosen)} directories are taken to lie on different devices")
    return tuple(chosen)


def _room(machine: Machine, directories: Sequence[DirectoryFigures]) -> Room:
    """What shares such as "80%" are taken of: the machine's, not that of the one that simulates."""
    devices = [
        DeviceRoom(num_dirs=1, num_bytes=directory.free_bytes, has_journal=number == 0)
        for number, directory in enumerate(directories)
    ]
    return Room(memory_bytes=machine.memory_bytes, memory_text="memory of the measured machine", devices=devices)


def _host_links(resolved: ResolvedConfig, machine: Machine, notes: list[str]) -> tuple[Link, Link]:
    if not machine.gpus:
        rate = _rate(machine.copy_bytes_per_s, "copy_bytes_per_s", notes)
        notes.append("the machine has no GPU: the engine is taken to share the host's memory, at the rate of a copy")
        return Link(latency_s=0.0, bytes_per_s=rate), Link(latency_s=0.0, bytes_per_s=rate)
    gpu, ranks = machine.gpus[0], min(resolved.model.tp_size, len(machine.gpus))
    config = resolved.config
    piece_bytes = _piece_bytes(resolved)
    rates = [
        _copy_rate(gpu, "h2d", piece_bytes, config.transfer_sms_h2d, config.use_ce_transfer_h2d, notes),
        _copy_rate(gpu, "d2h", piece_bytes, config.transfer_sms_d2h, config.use_ce_transfer_d2h, notes),
    ]
    notes.append(
        f"copies between {gpu.name} and host memory begin after {HOST_LATENCY_S * 1e6:g} us, which was not measured"
        + (f"; {ranks} ranks copy over links of their own" if ranks > 1 else "")
    )
    read, write = (Link(latency_s=HOST_LATENCY_S, bytes_per_s=rate * ranks) for rate in rates)
    return read, write


def _piece_bytes(resolved: ResolvedConfig) -> int:
    """What lies side by side in an engine's memory: a block of one layer's keys, or values, of one rank."""
    model = resolved.model
    pieces = model.num_layers * (1 if model.use_mla else 2 * min(model.tp_size, model.num_kv_heads))
    return max(1, resolved.block_bytes // pieces)


def _copy_rate(
    gpu: GpuFigures, direction: str, piece_bytes: int, num_ctas: int | None, engine: bool | None, notes: list[str]
) -> float:
    """Rate of scattered copies, of the pieces measured nearest to ours and by the way that the settings choose."""
    contiguous = gpu.h2d_bytes_per_s if direction == "h2d" else gpu.d2h_bytes_per_s
    copies = [copy for copy in gpu.copies if copy.direction == direction]
    if not copies:
        notes.append(f"scattered copies ({direction}) were not measured; taken to be as fast as contiguous ones")
        return _rate(contiguous, f"{direction}_bytes_per_s", notes)
    nearest = nearest_size((copy.piece_bytes for copy in copies), piece_bytes)
    copies = [copy for copy in copies if copy.piece_bytes == nearest]
    if engine:
        chosen = [copy for copy in copies if copy.ctas == 0]
    else:
        kernels = [copy for copy in copies if copy.ctas > 0]
        wanted = num_ctas if num_ctas is not None else max((copy.ctas for copy in kernels), default=0)
        chosen = sorted(kernels, key=lambda copy: (abs(copy.ctas - wanted), copy.ctas))[:1]
    best = max(chosen or copies, key=lambda copy: copy.bytes_per_s.value)
    return _rate(best.bytes_per_s, f"copies of {format_bytes(nearest)} ({direction}, {best.ctas} CTAs)", notes)


def _disk_links(
    resolved: ResolvedConfig, directories: Sequence[DirectoryFigures], notes: list[str]
) -> tuple[Link, Link]:
    num_requests = resolved.config.ssd_cache_iouring_entries
    links = []
    for operation in ("read", "write"):
        rate, latency_s = 0.0, 0.0
        for directory in directories:
            figures = [figure for figure in directory.figures if figure.operation == operation]
            if not figures:
                raise ConfigError(
                    f"ssd_cache_dir = {directory.path!r}: the machine's file has no {operation} of it; run tiercel probe again"
                )
            figure = _nearest(figures, resolved.block_bytes, num_requests)
            what = f"{operation} of {format_bytes(figure.block_bytes)} in {directory.path}"
            rate += _rate(figure.bytes_per_s, what, notes)
            single = min(figures, key=lambda one: (one.depth, abs(one.block_bytes - figure.block_bytes)))
            latency_s = max(latency_s, single.latency_p50_s - single.block_bytes / figure.bytes_per_s.value)
        links.append(Link(latency_s=latency_s, bytes_per_s=rate))
    return links[0], links[1]


def _nearest(figures: Iterable[DiskFigure], block_bytes: int, num_requests: int) -> DiskFigure:
    """The figure of the size nearest to a block's, with no more requests in progress than the cache may have."""
    figures = list(figures)
    size = nearest_size((figure.block_bytes for figure in figures), block_bytes)
    of_size = [figure for figure in figures if figure.block_bytes == size]
    allowed = [figure for figure in of_size if figure.num_requests <= num_requests]
    return max(allowed or of_size, key=lambda figure: figure.bytes_per_s.value)


def _rate(figure: Figure, name: str, notes: list[str]) -> float:
    if not figure.is_trusted:
        notes.append(f"{name} varied from {format_bytes(int(figure.low))}/s to {format_bytes(int(figure.high))}/s "
                     f"while it was measured")  # fmt: skip
    return figure.value
