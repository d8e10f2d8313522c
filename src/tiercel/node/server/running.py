"""A node as a process: it says when it is ready, and ends in order when it is told to."""

import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from tiercel.cache.opening import Progress
from tiercel.config import CacheConfig, ModelConfig
from tiercel.config.manager import service_manager_socket
from tiercel.errors import TiercelError
from tiercel.layout import SlotOrder
from tiercel.node.endpoint import Endpoint
from tiercel.node.server.descriptors import descriptors_needed, raise_descriptor_limit
from tiercel.node.server.ending import Ending
from tiercel.node.server.node import NodeServer


class NodeFailedError(TiercelError):
    """A node met a defect and ended; its log has the trace."""


def run_node(
    model: ModelConfig,
    config: CacheConfig,
    endpoint: Endpoint,
    *,
    on_ready: Callable[[NodeServer], None],
    progress: Progress | None = None,
) -> signal.Signals | None:
    """Run a node until SIGTERM, Ctrl-C, or the end of what it is for. For a process's main thread.

    Before it serves a signal ends the process, and so does a second one later (`ending`); a cache directory takes no harm from
    that. The process's limit of open files is raised to what the clients may need; where that cannot be, the cache's notes say
    so.

    Args:
        on_ready: called when clients can come. A service manager is told by itself.

    Returns:
        The signal that ended it, None if it ended by itself.

    Raises:
        NodeFailedError: it met a defect. Or as `NodeServer`.
    """
    order = cast(SlotOrder, config.node_block_order)
    short = raise_descriptor_limit(descriptors_needed(config))
    with (
        Ending() as ending,
        NodeServer(model, config, endpoint, progress=progress, order=order, on_place=ending.takes) as node,
    ):
        ending.serves(node)
        if short:
            node.cache.note(short, kind="open_files")
        notify("READY=1\nSTATUS=serving " + model.model_id)
        on_ready(node)
        node.wait()
        failed = node.failed
        notify("STOPPING=1")
    if failed:
        raise NodeFailedError("the node met a defect and has ended; its log has the trace")
    return ending.received


def notify(state: str) -> None:
    """Tell the service manager that started this process, if one did, how it stands (sd_notify)."""
    address = service_manager_socket()
    if address is None:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.settimeout(1.0)
        sender.sendto(state.encode(), address)
