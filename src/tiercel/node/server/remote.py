"""Opens a node's door for other machines, if its settings ask for one. pyzmq is needed then, and only then."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tiercel.config import CacheConfig
from tiercel.config.messages import problem
from tiercel.config.paths import expanded
from tiercel.node.codec import Answer, Call

if TYPE_CHECKING:
    from tiercel.node.remote import RemoteDoor


def open_remote_door(config: CacheConfig, answer: Callable[[str, Call], Answer]) -> "RemoteDoor":
    """Listen at `node_remote_endpoint`.

    Args:
        answer: of a client's name and its call; thread-safe.

    Raises:
        ConfigError: keys or the secret are missing, or pyzmq is.
        OSError: nobody can listen there.
    """
    from tiercel.node.remote import DoorLimits, RemoteDoor, read_server_keys

    endpoint = config.node_remote_endpoint
    assert endpoint is not None
    remedy = "make them with `tiercel node keygen --directory DIR`, and name DIR as node_keys_dir"
    if config.node_keys_dir is None:
        raise problem(
            "node_remote_endpoint", endpoint, "TCP is served with CURVE keys only, and node_keys_dir is missing", remedy
        )
    if config.node_secret_file is None:
        reason = "any remote client could compute the keys of any namespace without node_secret_file"
        raise problem("node_remote_endpoint", endpoint, reason, remedy + "; DIR/node_secret is that file")
    keys = read_server_keys(expanded("node_keys_dir", config.node_keys_dir))
    return RemoteDoor(endpoint, keys, DoorLimits(), lambda client, _, call: answer(client, call))
