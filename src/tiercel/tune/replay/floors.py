"""What is too small to be proved: of a few blocks any prediction holds, since they are moved sooner than a thread is woken."""

from collections.abc import Iterator

from tiercel import ConfigError
from tiercel.config import format_bytes
from tiercel.tiers.base import TierName
from tiercel.tune.simulate import SimulationResult, SimulationSetup

_CAPACITIES = {TierName.HOST: "num_cpu_blocks", TierName.DISK: "num_ssd_blocks"}


def require_capacities(setup: SimulationSetup, bytes_min: int) -> None:
    """Raise ConfigError if a tier holds less."""
    for tier, num_blocks in setup.control.capacities.items():
        held_bytes = num_blocks * setup.control.block_bytes
        if held_bytes < bytes_min:
            raise ConfigError(
                f"{_CAPACITIES[tier]} = {num_blocks}: the {tier.name.lower()} tier holds {format_bytes(held_bytes)}, and a proof "
                f"needs {format_bytes(bytes_min)} in each tier, or it tells nothing of times and bytes; raise "
                f"{_CAPACITIES[tier]}, take a model with larger blocks, or say --bytes-min 0B to compare hits alone"
            )


def require_traffic(predicted: SimulationResult, bytes_min: int) -> None:
    """Raise ConfigError if a trace moves less."""
    tiers = predicted.tiers.values()
    moved_bytes = sum(tier.blocks_read + tier.blocks_written for tier in tiers) * predicted.block_bytes
    if moved_bytes < bytes_min:
        raise ConfigError(
            f"trace = {predicted.trace!r}: its {len(predicted.input_tokens)} requests would move {format_bytes(moved_bytes)} to "
            f"and from the tiers, and a proof needs {format_bytes(bytes_min)}, or it tells nothing of times and bytes; take "
            f"more requests, a model with larger blocks, or say --bytes-min 0B to compare hits alone"
        )


def little_read(predicted: SimulationResult, bytes_min: int) -> Iterator[str]:
    """Say of which tiers a proof tells little, as little is read from them; a sentence each."""
    for tier, traffic in predicted.tiers.items():
        read_bytes = traffic.blocks_read * predicted.block_bytes
        if read_bytes < bytes_min:
            yield (
                f"the trace is predicted to read {format_bytes(read_bytes)} from the {tier.name.lower()} tier, less than "
                f"{format_bytes(bytes_min)}: the proof tells little of its loads"
            )
