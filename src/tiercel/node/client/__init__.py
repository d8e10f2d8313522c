"""A process's side of a node: `connect` gives it the node's cache with the facade of one in process.

`keeping` has the connection, over and over: `joining` makes one, `link` is one, with its `calls`, and its copies (`copying`).
`tickets` end whatever happens. `client` is the facade, on `sequences`, `launching`, `pins`, `choosing` and `reporting`.
"""

from tiercel.node.client.client import NodeClient
from tiercel.node.client.connecting import connect

__all__ = ["NodeClient", "connect"]
