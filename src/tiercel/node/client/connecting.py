"""`connect`: from an endpoint to a `NodeClient`."""

from typing import Final

from tiercel.config import ModelConfig
from tiercel.errors import ConfigError
from tiercel.layout import BlockGeometry
from tiercel.node.client.client import NodeClient
from tiercel.node.client.joining import NodeFacts
from tiercel.node.client.keeping import Keeper
from tiercel.node.client.reporting import Reports
from tiercel.node.endpoint import LocalEndpoint, parse_endpoint
from tiercel.node.protocol import NAME_MAX

_WAIT_S: Final = 30.0


def connect(endpoint: str, *, name: str = "", model: ModelConfig | None = None, wait_s: float = _WAIT_S) -> NodeClient:
    """Use the cache of a node that runs on this host.

    Args:
        endpoint: where the node listens, "ipc:///DIRECTORY".
        name: what the node's configuration and status know this client by.
        model: refuse a node that caches another model's KV; None takes any.
        wait_s: how long to wait for a node that starts later.

    Raises:
        DeadlineError: no node answered in that time.
        ConfigError: the endpoint is none of this host's, the node refused this client or has another model, or its directory
            is open to others.
        DeviceError: the node is of another release, or its memory cannot be mapped.
        ValueError: the name is too long, or the time is negative.
    """
    where = parse_endpoint(endpoint)
    if not isinstance(where, LocalEndpoint):
        raise ConfigError(f"{endpoint!r}: blocks are shared on one host only; give the node's ipc:///DIRECTORY")
    if len(name) > NAME_MAX:
        raise ValueError(f"name of {len(name)} characters: must have at most {NAME_MAX}")
    if not wait_s >= 0:
        raise ValueError(f"wait_s = {wait_s}: must not be negative")
    reports = Reports()

    def check(facts: NodeFacts) -> None:
        ours, order = facts.geometry, facts.geometry.order
        if model is not None:
            theirs = BlockGeometry.from_model(model, tokens_per_block=ours.tokens_per_block, order=order)
            if theirs != ours:
                raise ConfigError(
                    f"the node at {endpoint} caches blocks of {ours}, not of {theirs}; name its own endpoint"
                )

    keeper = Keeper(where, name, wait_s=wait_s, expected=check, note=reports.note_here)
    return NodeClient(keeper, reports)
