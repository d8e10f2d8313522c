"""One cache for many processes: where its node is, and what each of its clients may have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tiercel.config.settings import Kind, setting


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """A node: one cache for many processes."""

    server_recv_port: str | None = setting(
        None,
        "Address of the node, ipc:///DIRECTORY: a node listens there, and an engine uses the cache of the node that does.",
        kind=Kind.TEXT,
        measure="Nothing; a directory of its own for each node, on any file system.",
    )
    node_lifetime: str = setting(
        "stay",
        "What a node does when its last client has left.",
        kind=Kind.CHOICE,
        choices=("stay", "end_with_last_client"),
        measure="How long a start takes with your disk tier, against the memory that an idle node holds.",
    )
    node_block_order: str = setting(
        "token_head",
        "Order of the axes in a node's blocks: head_token where engines are spread over tensor-parallel ranks.",
        kind=Kind.CHOICE,
        choices=("token_head", "head_token"),
        measure="Nothing; an engine whose blocks are of the other order is refused, and told so.",
    )
    node_clients_max: int = setting(
        64,
        "Clients that a node serves at the same time.",
        kind=Kind.COUNT,
        unit="clients",
        bounds=(1, 1024),
        measure="Engine processes of the host, and one for each command that looks at the node.",
    )
    node_calls_max: int = setting(
        32,
        "Connections for calls that a client may have open, and so its threads that call at once.",
        kind=Kind.COUNT,
        unit="connections",
        bounds=(1, 1024),
        measure="Threads of an engine that use the cache.",
    )
    node_tickets_max: int = setting(
        64,
        "Loads, stores and prefetches that a client may have asked for; hits in host memory that it reads itself are none.",
        kind=Kind.COUNT,
        unit="tickets",
        bounds=(1, 65536),
        measure="Throttled calls of one client against transfer_queue_depth_max, which all share.",
    )
    node_lookups_max: int = setting(
        256,
        "Lookups that a client may hold: not launched or released yet, or read by itself at the moment.",
        kind=Kind.COUNT,
        unit="lookups",
        bounds=(1, 65536),
        measure="Requests that wait in an engine after their lookup; each pins what it found.",
    )
    node_sequences_max: int = setting(
        4096,
        "Sequences of a client whose keys the node remembers; of others all keys are sent again.",
        kind=Kind.COUNT,
        unit="sequences",
        bounds=(1, 1 << 20),
        measure="Requests of an engine at the same time; 16 bytes a block of each.",
    )
    node_secret_file: str | None = setting(
        None,
        "File with a secret that a namespace's keys depend on, so that nobody who was not given them can compute them.",
        kind=Kind.TEXT,
        measure="Nothing; without it any client can compute the keys of any namespace.",
    )
    node_namespaces: Mapping[str, Sequence[str]] | None = setting(
        None,
        "Namespaces that each client may use, by the client's name; * stands for any other client, or any namespace. Without "
        "it, every client may use all.",
        kind=Kind.BINDINGS,
        measure="Nothing.",
    )
    node_remote_endpoint: str | None = setting(
        None,
        "Address for clients on other machines, tcp://HOST:PORT: status, counted hits, prefetch and reset, without memory. Needs "
        "node_keys_dir, node_secret_file and the package pyzmq.",
        kind=Kind.TEXT,
        measure="Nothing; an inner address, see docs/security.md.",
    )
    node_keys_dir: str | None = setting(
        None,
        "Directory of the keys for node_remote_endpoint, as `tiercel node keygen` makes it.",
        kind=Kind.TEXT,
        measure="Nothing.",
    )
