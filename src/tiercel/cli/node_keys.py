"""`tiercel node keygen`: keys for a node's TCP endpoint and for its remote clients."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tiercel.cli.render import print_line


def keygen(
    *,
    directory: Path,
    name: str | None = None,
    namespace: Annotated[Sequence[str], Parameter(negative="")] = (),
    secret_only: Annotated[bool, Parameter(negative="")] = False,
    right: Annotated[Sequence[Literal["status", "reset"]], Parameter(negative="")] = (),
) -> None:
    """Make a node's keys for TCP, or with --name those of one remote client. Prints where they lie, never what they are.

    A running node lets a new client in at once, and shuts it out when its file in `clients` is deleted.

    Args:
        directory: the node's key files; made if missing, for this user alone.
        name: the client to make keys for.
        secret_only: make the secret of its namespaces alone, for node_secret_file; needs no pyzmq.
        namespace: what that client may ask about; may be given several times. By default the common namespace.
        right: status or reset, what else it may ask for; may be given several times. By default status.
    """
    if secret_only:
        from tiercel.node.namespaces import make_secret

        if name is not None or namespace or right:
            raise ValueError("--secret-only makes no client's keys: leave --name, --namespace and --right out")
        print_line(f"secret of its namespaces, for node_secret_file: {make_secret(directory)}")
        return
    from tiercel.node.remote.keys import make_client_keys, make_server_keys

    if name is None:
        if namespace or right:
            raise ValueError("--namespace and --right are a client's: give --name, too")
        server, secret = make_server_keys(directory)
        print_line(f"the node's own keys: {server}")
        print_line(f"secret of its namespaces, for node_secret_file: {secret}")
        return
    carried, listed = make_client_keys(
        directory, name, namespaces=tuple(namespace) or ("",), rights=tuple(right) or ("status",)
    )
    print_line(f"carry this to the client, and delete it here: {carried}")
    print_line(f"delete this to shut the client out: {listed}")
