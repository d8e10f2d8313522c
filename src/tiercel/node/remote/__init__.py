"""A node's door for other machines: control over TCP, with ZeroMQ and CURVE keys, without memory.

`keys` makes and reads key files, `door` is the node's side, `client` the other. The messages are `tiercel.node.codec`'s, of the
calls those that need no memory. Needs the package pyzmq (the extra `node`); nothing else of the node does.
"""

from tiercel.node.remote.client import RemoteNode
from tiercel.node.remote.door import DoorLimits, RemoteDoor
from tiercel.node.remote.keys import ClientKeys, ServerKeys, read_client_keys, read_server_keys
from tiercel.node.remote.sockets import check_endpoint

__all__ = [
    "ClientKeys",
    "DoorLimits",
    "RemoteDoor",
    "RemoteNode",
    "ServerKeys",
    "check_endpoint",
    "read_client_keys",
    "read_server_keys",
]
