"""`tiercel node`: one cache for many processes. Run it, start it in the background, look at it."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from tiercel.cli.render import bytes_text, counts_text, print_json, print_line, print_table, seconds_text
from tiercel.errors import ConfigError, StatusError

if TYPE_CHECKING:
    from tiercel.config import CacheConfig, ModelConfig
    from tiercel.node.calls import Status
    from tiercel.node.endpoint import Endpoint, LocalEndpoint, TcpEndpoint
    from tiercel.telemetry.snapshot import StatusSnapshot


def run(*, config: Path, endpoint: str | None = None, log_format: Literal["human", "json"] = "human") -> int:
    """Run a node here, until it is told to end (SIGTERM, Ctrl-C). What it serves, and where, is printed when it is ready; its log
    goes to the standard error.

    Args:
        config: settings file, with model_config and cache_config.
        endpoint: where to listen, ipc:///DIRECTORY; by default server_recv_port, or a directory of this user's.
        log_format: for people or for programs.
    """
    from tiercel.node.server import NodeServer, run_node
    from tiercel.node.server.ending import EXIT_CODES
    from tiercel.telemetry.logs import configure

    model, settings = _loaded(config)
    where = _endpoint(endpoint, settings)

    configure(log_format=log_format)

    def on_ready(node: NodeServer) -> None:
        print_line(f"ready: {model.model_id} at {node.endpoint}, process {node.status().process}")

    received = run_node(model, settings, where, on_ready=on_ready)
    return 0 if received is None else EXIT_CODES[received]


def start(*, config: Path, endpoint: str | None = None, timeout: float = 120.0) -> None:
    """Start a node in the background and return when it serves. End it with SIGTERM.

    Args:
        config: settings file, with model_config and cache_config.
        endpoint: as of `tiercel node run`; the node's log lies in that directory.
        timeout: seconds to wait for it.
    """
    from tiercel.node.server.starting import LOG_NAME, start_node

    if not 0 < timeout < math.inf:
        raise ValueError(f"--timeout {timeout:g}: give seconds above 0")
    model, settings = _loaded(config)
    where = _local(_endpoint(endpoint, settings))
    process = start_node(model, settings, where, timeout_s=timeout)
    print_line(f"ready: {model.model_id} at {where}, process {process}, log {where.directory / LOG_NAME}")


def status(
    *,
    endpoint: str | None = None,
    config: Path | None = None,
    keys: Path | None = None,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show a node's clients, what each has open, its queues and its tiers.

    Args:
        endpoint: where it listens; by default what the settings file says, or a directory of this user's.
        config: settings file with server_recv_port.
        keys: for a tcp:// endpoint, the client's key file that tiercel node keygen made on the node's machine.
        json: print JSON: what the node says of itself, and of its cache.
    """
    from tiercel.node.endpoint import TcpEndpoint

    where = _endpoint(endpoint, None if config is None else _settings(config))
    if keys is not None and not isinstance(where, TcpEndpoint):
        raise ConfigError(f"--keys {keys}: {where} asks for none; keys are for tcp://HOST:PORT")
    node, snapshot = _state_of_remote(where, keys) if isinstance(where, TcpEndpoint) else _state_of_local(_local(where))
    if json:
        print_json({"node": _as_json(node), "cache": snapshot})
        return
    print_node(node, snapshot, str(where))


def _state_of_local(where: "LocalEndpoint") -> "tuple[Status, StatusSnapshot]":
    import msgspec

    from tiercel.node.asking import ask_node
    from tiercel.node.calls import AskStats, AskStatus, Stats, Status
    from tiercel.telemetry.snapshot import StatusSnapshot

    node, stats = ask_node(where, AskStatus()), ask_node(where, AskStats())
    if not isinstance(node, Status) or not isinstance(stats, Stats):
        raise StatusError(
            f"the node at {where} does not tell its state: {node if not isinstance(node, Status) else stats}"
        )
    return node, msgspec.json.decode(stats.snapshot, type=StatusSnapshot)


def _state_of_remote(where: "TcpEndpoint", keys: Path | None) -> "tuple[Status, StatusSnapshot]":
    from tiercel.node.remote import RemoteNode, read_client_keys

    if keys is None:
        raise ConfigError(
            f"{where}: give --keys FILE, the NAME.client.json that `tiercel node keygen --name NAME` made on the node's machine"
        )
    with RemoteNode(str(where), read_client_keys(keys)) as node:
        return node.status(), node.stats()


def print_node(node: "Status", snapshot: "StatusSnapshot", endpoint: str) -> None:
    """Print what a node says of itself, and its cache's state."""
    from tiercel.cli.stats import print_snapshot

    print_line(
        f"node at {endpoint}  pid {node.process}  up {seconds_text(node.started_s)}  clients: {len(node.clients)}"
    )
    columns = ("client", "name", "pid", "here for", "tickets", "lookups", "sequences", "copies", "unread", "namespaces")
    rows = [
        (
            str(client.client),
            client.name,
            str(client.process),
            seconds_text(client.connected_s),
            *map(str, (client.tickets, client.lookups, client.sequences, client.copies)),
            bytes_text(client.outbox_bytes),
            str(client.namespaces),
        )
        for client in node.clients
    ]
    if rows:
        print_table("", columns, rows)
    print_line(f"moves under way: {counts_text(node.lanes)}")
    if node.remote:
        print_line(f"from other machines: {counts_text(node.remote)}")
    print_snapshot(snapshot)


def _as_json(node: "Status") -> dict[str, object]:
    """A message is an array on the wire; its names are wanted here."""
    from msgspec.structs import asdict

    return {**asdict(node), "clients": [asdict(client) for client in node.clients]}


def _settings(file: Path) -> "CacheConfig":
    from tiercel.config import load_config

    return load_config(file).config


def _loaded(file: Path) -> "tuple[ModelConfig, CacheConfig]":
    from tiercel.config import load_config

    loaded = load_config(file)
    if loaded.model is None:
        raise ConfigError(f"{file}: lacks model_config; a node serves one model, and must know its blocks")
    return loaded.model, loaded.config


def _endpoint(given: str | None, settings: "CacheConfig | None") -> "Endpoint":
    from tiercel.node.endpoint import default_endpoint, parse_endpoint

    text = None if settings is None else settings.server_recv_port
    text = text if given is None else given
    return default_endpoint() if text is None else parse_endpoint(text)


def _local(endpoint: "Endpoint") -> "LocalEndpoint":
    from tiercel.node.endpoint import LocalEndpoint

    if not isinstance(endpoint, LocalEndpoint):
        raise ConfigError(f"{endpoint}: give ipc:///DIRECTORY, of this host")
    return endpoint
