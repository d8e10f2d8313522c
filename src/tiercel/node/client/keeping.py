"""Keeps a client connected: its link while there is one, and the next one when that has ended. Used by `client` only.

One thread listens to the link. When the link has ended it resolves the tickets, lets go of the node's memory, and looks for the
node again until it is found or the client closes.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from tiercel.errors import ConfigError, DeviceError, TiercelError
from tiercel.layout import EngineMemory
from tiercel.node.client.joining import Joined, NodeFacts, join
from tiercel.node.client.link import Link
from tiercel.node.client.tickets import TicketTable
from tiercel.node.endpoint import LocalEndpoint
from tiercel.node.events import Left
from tiercel.transfer import Devices, GpuCopySettings

_log = logging.getLogger(__name__)

_PAUSE_S, _PAUSE_MAX_S = 0.1, 1.0
"""Pause between two looks for the node: at first, and at most."""

_GREETING_S = 2.0
"""Longest wait for a node that was found to answer."""

_LEFT_MAX: Final = 8
"""Earlier connections of which the node is told that they are done with."""

END_S: Final = 10.0
"""Longest wait for the thread when ending."""


class Keeper:
    """The connection of one client, over and over. Thread-safe.

    Attributes:
        link: the one that there is, or the last one.
        devices: what reaches this process's blocks, over the link's memory.
        facts: what the node said first; another node's must be the same but for its settings.
    """

    def __init__(
        self,
        endpoint: LocalEndpoint,
        name: str,
        *,
        wait_s: float,
        expected: Callable[[NodeFacts], None],
        note: Callable[[str, str], None],
    ) -> None:
        """Find the node.

        Args:
            wait_s: how long to look for it.
            expected: raises ConfigError for what this client cannot use.
            note: told in words and by a kind what is less than it could be.

        Raises:
            DeadlineError, ConfigError, DeviceError: as `joining.join`.
        """
        self._endpoint = endpoint
        self._name = name
        self._note = note
        self._closing = threading.Event()
        self._on_link: Callable[[Link, Devices], None] = lambda link, devices: None
        self._left: deque[Left] = deque(maxlen=_LEFT_MAX)
        self._gpu_memories: dict[int, EngineMemory] = {}
        joined = _join_first(endpoint, name, wait_s)
        self.facts = joined.facts
        self.tickets = TicketTable(self.facts.geometry.block_bytes, self._tell_cancelled)
        self.link = Link(endpoint, joined, self.tickets, 1)
        self.devices = self._devices_of(self.link)
        try:
            expected(self.facts)
        except BaseException:
            self.tickets.close()
            self.link.close(self.devices)
            raise
        self._thread = threading.Thread(target=self._keep, name="tiercel-node-client", daemon=True)

    def start(self, on_link: Callable[[Link, Devices], None]) -> None:
        """Start to listen. on_link: told of each further connection. Raises RuntimeError if the machine has no thread left."""
        self._on_link = on_link
        self._thread.start()

    def prepare(self, memory: EngineMemory) -> None:
        """Attach this memory's GPU to each further connection before it is used, as the engine did to this one."""
        self._gpu_memories[id(memory)] = memory

    def close(self) -> None:
        """Cancel what is open, tell the node and let go of everything. Idempotent; bounded."""
        self._closing.set()
        self.tickets.close()
        self.link.lose("the client is closed")
        if self._thread.ident is None:
            self._leave(self.link)
        elif self._thread is not threading.current_thread():
            self._thread.join(END_S)

    def _tell_cancelled(self, ticket: int) -> None:
        self.link.tell_cancelled(ticket)

    def _devices_of(self, link: Link) -> Devices:
        settings = GpuCopySettings.from_config(link.facts.config)
        return link.devices(settings, note=lambda text: self._note(text, "gpu"))

    def _keep(self) -> None:
        while True:
            reason = self.link.listen()
            if not self._closing.is_set():
                self._note(f"the node at {self._endpoint} is gone: {reason}; nothing is found until it is back", "node")
            self.tickets.lose()
            self._leave(self.link)
            if not self._reconnect():
                return

    def _leave(self, link: Link) -> None:
        if link.close(self.devices):
            self._left.append(link.left)
        else:
            _log.error("a copy does not end; the node's memory stays mapped until the process ends")

    def _reconnect(self) -> bool:
        """Look for the node until it is found. Returns False if the client closes."""
        pause_s, refusal = _PAUSE_S, ""
        while not self._closing.wait(pause_s):
            pause_s = min(_PAUSE_MAX_S, 2 * pause_s)
            link: Link | None = None
            try:
                joined = join(self._endpoint, self._name, self.facts.geometry, _GREETING_S, self._closing.is_set)
                if joined is None:
                    return False
                link = Link(self._endpoint, joined, self.tickets, self.link.epoch + 1)
                self._use(link)
            except (TiercelError, OSError) as error:  # the second: no descriptor is left
                if link is not None:
                    link.close(None)
                if isinstance(error, ConfigError) and str(error) != refusal:
                    refusal = str(error)
                    self._note(refusal, "node")
                continue
            return True
        return False

    def _use(self, link: Link) -> None:
        """Serve with a new connection, once its memory is pinned for the GPUs that are in use."""
        devices = self._devices_of(link)
        try:
            for memory in list(self._gpu_memories.values()):
                devices.attach(memory)
        except BaseException:
            devices.close()  # before the memory is unmapped
            raise
        self.link, self.devices = link, devices
        for left in self._left:  # what it kept for a connection that was cut
            link.tell(left)
        if self._closing.is_set():  # `close` may have lost the one before
            link.lose("the client is closed")
        self._on_link(link, devices)
        _log.info("the node at %s is back", self._endpoint)


def _join_first(endpoint: LocalEndpoint, name: str, wait_s: float) -> Joined:
    """Find the node, or the next one if it ends while it greets. Raises as `joining.join`."""
    stop_at = time.monotonic() + wait_s
    while True:
        try:
            joined = join(endpoint, name, None, max(0.0, stop_at - time.monotonic()))
        except DeviceError as error:
            if not isinstance(error.__cause__, ConnectionError) or time.monotonic() >= stop_at:
                raise
        else:
            assert joined is not None, "nobody gives up the first one"
            return joined
        time.sleep(_PAUSE_S)
