"""Opens a node's door for other machines, if its settings ask for one. pyzmq is needed then, and only then."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tiercel.config import CacheConfig
from tiercel.config.messages import problem
from tiercel.config.paths import expanded
from tiercel.errors import ConfigError
from tiercel.node.codec import Answer, Call

if TYPE_CHECKING:
    from tiercel.node.remote import RemoteDoor, ServerKeys


def remote_keys(config: CacheConfig) -> "ServerKeys | None":
    """Read the keys for `node_remote_endpoint`, None if the settings name no such address. To be called before a node takes
    the minutes that its memory and its disk may cost.

    Raises:
        ConfigError: the address is none, keys or the secret are missing, or pyzmq is; or there are keys and no address.
    """
    endpoint = config.node_remote_endpoint
    remedy = "make them with `tiercel node keygen --directory DIR`, and name DIR as node_keys_dir"
    if endpoint is None:
        if config.node_keys_dir is not None:
            reason = "keys are for TCP, and node_remote_endpoint is missing"
            raise problem(
                "node_keys_dir", config.node_keys_dir, reason, "name tcp://HOST:PORT there, or leave this out"
            )
        return None
    from tiercel.node.remote import check_endpoint, read_server_keys

    try:
        check_endpoint(endpoint)
    except ConfigError as error:
        raise ConfigError(f"node_remote_endpoint: {error}") from error
    if config.node_keys_dir is None:
        raise problem(
            "node_remote_endpoint", endpoint, "TCP is served with CURVE keys only, and node_keys_dir is missing", remedy
        )
    if config.node_secret_file is None:
        reason = "any remote client could compute the keys of any namespace without node_secret_file"
        raise problem("node_remote_endpoint", endpoint, reason, remedy + "; DIR/node_secret is that file")
    return read_server_keys(expanded("node_keys_dir", config.node_keys_dir))


def open_remote_door(endpoint: str, keys: "ServerKeys", answer: Callable[[str, Call], Answer]) -> "RemoteDoor":
    """Listen at an address, with the keys that `remote_keys` read for it.

    Args:
        answer: of a client's name and its call; thread-safe.

    Raises:
        OSError: nobody can listen there.
        ConfigError: others may write to the list of clients.
    """
    from tiercel.node.remote import DoorLimits, RemoteDoor

    try:
        return RemoteDoor(endpoint, keys, DoorLimits(), lambda client, _, call: answer(client, call))
    except OSError as error:
        raise OSError(error.errno, f"node_remote_endpoint: {error.strerror}") from error
