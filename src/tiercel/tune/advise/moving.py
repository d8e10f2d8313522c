"""Settings of transfers, read off a machine's figures: nothing of them is simulated.

The least that is as fast as the fastest within `ENOUGH` is taken: a copy engine costs no multiprocessor, fewer CTAs leave more to
the model, a shallower queue answers sooner.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tiercel.config import ModelConfig
from tiercel.tune.machine import DirectoryFigures, GpuCopyFigure, Machine, nearest_size

ENOUGH = 0.97
"""Share of the fastest rate that counts as fast."""

_GB = 1e9


@dataclass(frozen=True, kw_only=True)
class TransferChoice:
    """Settings by key, a sentence for each, and what could not be judged."""

    settings: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    unjudged: dict[str, str] = field(default_factory=dict)


def choose_transfer(machine: Machine, model: ModelConfig, tokens_per_block: int, *, has_disk: bool) -> TransferChoice:
    """Choose how blocks move on a machine."""
    choice = TransferChoice()
    block_bytes = model.token_size_in_bytes * tokens_per_block
    piece_bytes = piece_bytes_of(model, tokens_per_block)
    for direction in ("h2d", "d2h"):
        _choose_copy(choice, machine, direction, piece_bytes)
    if has_disk:
        _choose_depth(choice, machine.directories, block_bytes)
    return choice


def piece_bytes_of(model: ModelConfig, tokens_per_block: int) -> int:
    """Return what lies side by side in an engine's memory: a block of one layer's keys, or values, of one rank."""
    pieces = model.num_layers * (1 if model.use_mla else 2 * min(model.tp_size, model.num_kv_heads))
    return max(1, model.token_size_in_bytes * tokens_per_block // pieces)


def copy_rates(machine: Machine, direction: str, piece_bytes: int) -> tuple[int, dict[int, float]]:
    """Return the measured piece size nearest to this one, and the first GPU's bytes a second by CTAs, 0 for the copy engine."""
    copies: Sequence[GpuCopyFigure] = machine.gpus[0].copies if machine.gpus else ()
    figures = [figure for figure in copies if figure.direction == direction]
    if not figures:
        return 0, {}
    nearest = nearest_size({figure.piece_bytes for figure in figures}, piece_bytes)
    return nearest, {figure.ctas: figure.bytes_per_s.value for figure in figures if figure.piece_bytes == nearest}


def read_rates(directories: Sequence[DirectoryFigures], block_bytes: int) -> tuple[int, dict[int, float]]:
    """Return the measured block size nearest to this one, and bytes a second read from all directories together, by requests in
    flight."""
    reads = [figure for folder in directories for figure in folder.figures if figure.operation == "read"]
    if not reads:
        return 0, {}
    nearest = nearest_size({figure.block_bytes for figure in reads}, block_bytes)
    rates: dict[int, float] = {}
    for figure in reads:
        if figure.block_bytes == nearest:
            rates[figure.num_requests] = rates.get(figure.num_requests, 0.0) + figure.bytes_per_s.value
    return nearest, rates


def least_of_fast(rates: dict[int, float]) -> int:
    """Return the smallest key whose rate is within `ENOUGH` of the fastest."""
    fastest = max(rates.values())
    return min(key for key, rate in rates.items() if rate >= ENOUGH * fastest)


def _choose_copy(choice: TransferChoice, machine: Machine, direction: str, piece_bytes: int) -> None:
    measured, rates = copy_rates(machine, direction, piece_bytes)
    engine_key, ctas_key = f"use_ce_transfer_{direction}", f"transfer_sms_{direction}"
    if not rates:
        why = "machine.json has no copies of a GPU"
        choice.unjudged.update({engine_key: why, ctas_key: why})
        return
    ctas = least_of_fast(rates)
    fastest = max(rates, key=lambda key: (rates[key], -key))
    told = (
        f"pieces of {piece_bytes} bytes move at {rates[ctas] / _GB:.1f} GB/s with {_way(ctas)}, and at most at "
        f"{rates[fastest] / _GB:.1f} GB/s, with {_way(fastest)} (measured with {measured} bytes)"
    )
    choice.settings[engine_key] = ctas == 0
    choice.reasons[engine_key] = told
    if ctas:
        choice.settings[ctas_key] = ctas
        choice.reasons[ctas_key] = told


def _choose_depth(choice: TransferChoice, directories: Sequence[DirectoryFigures], block_bytes: int) -> None:
    key = "ssd_cache_iouring_entries"
    measured, rates = read_rates(directories, block_bytes)
    if not rates:
        choice.unjudged[key] = "machine.json has no reads of a directory"
        return
    entries = least_of_fast(rates)
    most = max(rates)
    choice.settings[key] = entries
    choice.reasons[key] = (
        f"reads of {measured} bytes reach {rates[entries] / _GB:.2f} GB/s with {entries} requests in flight, and "
        f"{rates[most] / _GB:.2f} GB/s with the most that were measured, {most}"
    )


def _way(ctas: int) -> str:
    return f"{ctas} CTAs" if ctas else "the copy engine"
