"""The node's side: one process that has a cache and serves it to clients in others.

`NodeServer` is the whole; `running` makes a process of it. `service` listens, `roll` knows who is here, `admission` lets them in,
`calls` and `launching` do what they ask for, `memory` is their memory as the cache sees it.
"""

from tiercel.node.server.node import NodeServer
from tiercel.node.server.running import run_node

__all__ = ["NodeServer", "run_node"]
