"""Opens a node's door for other machines, if its settings ask for one. pyzmq is needed then, and only then."""

import errno
from typing import TYPE_CHECKING, Final

from tiercel.config import CacheConfig
from tiercel.config.messages import problem
from tiercel.config.paths import expanded
from tiercel.errors import ConfigError
from tiercel.node.calls import Failed

if TYPE_CHECKING:
    from tiercel.node.remote import RemoteDoor, ServerKeys

_NOT_HERE: Final = "name an address of this machine, or tcp://*:PORT for all that it has"
_REMEDIES: Final = {
    errno.EADDRINUSE: "end the process that has the port (`ss -ltnp` names it), or name another port",
    errno.EADDRNOTAVAIL: _NOT_HERE,
    errno.ENODEV: _NOT_HERE,
    errno.EPERM: "allow them beside AF_INET and AF_INET6 (RestrictAddressFamilies= of a systemd unit)",
    errno.EACCES: "name a port that this user may listen at, from 1024 on",
}
"""What to do about an address where nobody can listen."""


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


def open_remote_door(endpoint: str, keys: "ServerKeys") -> "RemoteDoor":
    """Listen at an address, with the keys that `remote_keys` read for it. Until `RemoteDoor.serve` is told who answers, clients
    are told that the node is starting. To be called before a node takes its memory and its disk, as `remote_keys`.

    Raises:
        ConfigError: nobody can listen there, or others may write to the list of clients.
        OSError: the machine has no descriptors left, or the like.
    """
    from tiercel.node.remote import DoorLimits, RemoteDoor

    starting = Failed("ThrottledError", "the node is starting: it opens its cache, which may take minutes; ask again")
    try:
        return RemoteDoor(endpoint, keys, DoorLimits(), lambda *_: starting)
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if error.filename != endpoint or remedy is None:
            raise
        reason = f"nobody can listen there ({error.strerror})"
        raise problem("node_remote_endpoint", endpoint, reason, remedy) from error
