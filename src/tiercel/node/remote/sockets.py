"""What both sides of a TCP connection set on their ZeroMQ sockets, and how they name an endpoint."""

import re
from typing import Final

from tiercel.errors import ConfigError
from tiercel.node.protocol import MESSAGE_BYTES_MAX
from tiercel.node.remote.keys import KEYGEN

try:
    import zmq
except ImportError as error:
    raise ConfigError("tcp:// endpoints need the package pyzmq: pip install 'tiercel[node]'") from error

__all__ = ["REQUEST_BYTES", "Context", "Socket", "check_endpoint", "missing_keys", "set_common", "zmq"]

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]

REQUEST_BYTES: Final = 8
"""A message is two frames: which request of its sender it belongs to, then a datagram as on a Unix socket."""
QUEUED_MAX: Final = 16
"""Messages of one connection that wait in memory, in each direction."""

_CURVE_BYTES = 33
"""What CURVE adds to a frame: a name, a nonce, an authenticator and flags (RFC 26)."""
_ENDPOINT = re.compile(r"tcp://(\*|\[[0-9A-Fa-f:.%\w]+\]|[A-Za-z0-9._-]+):(\d{1,5}|\*)")


def check_endpoint(endpoint: str) -> str:
    """Return an endpoint that is one of TCP. Raises ConfigError."""
    found = _ENDPOINT.fullmatch(endpoint)
    if found is None or (found[2] != "*" and int(found[2]) > 65535):
        raise ConfigError(
            f"endpoint {endpoint!r}: must be tcp://HOST:PORT, such as tcp://10.0.0.5:7070 or tcp://[::1]:7070"
        )
    return endpoint


def missing_keys(endpoint: str) -> ConfigError:
    """Build the error for an endpoint of TCP that comes without keys."""
    return ConfigError(
        f"endpoint {endpoint}: TCP is served with CURVE keys only, and none were given; make them with `{KEYGEN}` on the node's "
        "machine (and with `--name NAME` for each client), or use ipc:///DIR for clients of the same machine"
    )


def set_common(socket: Socket, *, heartbeat_s: float, handshake_s: float) -> None:
    """Bound what a peer may send and how long it may be silent; nothing lingers."""
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.IPV6, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX + _CURVE_BYTES)
    socket.setsockopt(zmq.SNDHWM, QUEUED_MAX)
    socket.setsockopt(zmq.RCVHWM, QUEUED_MAX)
    socket.setsockopt(zmq.HANDSHAKE_IVL, round(handshake_s * 1000))
    socket.setsockopt(zmq.HEARTBEAT_IVL, round(heartbeat_s * 1000))
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, round(heartbeat_s * 3000))
    socket.setsockopt(zmq.HEARTBEAT_TTL, round(heartbeat_s * 3000))
