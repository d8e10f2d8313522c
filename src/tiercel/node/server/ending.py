"""What SIGTERM and Ctrl-C do to a node's process, from before its start to its end. Used by `running`.

    before it serves    the process ends at once, from a thread of its own: whatever the main thread waits for (memory, a disk, an
                        arena's users) is not waited for. Memory and locks go with a process, and a cache directory takes no harm;
                        what would stay, the socket, is removed
    while it serves     the node is told to stop, and ends in order
    a second one        the process ends at once

A container's first process ignores a signal that it does not take, so nothing here is left to the system's default.
"""

import os
import signal
import socket
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Final, NoReturn, Self, final

if TYPE_CHECKING:
    from tiercel.node.endpoint import Listener
    from tiercel.node.server.node import NodeServer

EXIT_CODES: Final = {signal.SIGTERM: 0, signal.SIGINT: 130}
"""What a node's process ends with that was told to."""


@final
class Ending:
    """Takes the two signals inside a `with` block. For a process's main thread.

    Attributes:
        received: the signal that told the serving node to stop, None if none did.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._listener: Listener | None = None
        self._node: NodeServer | None = None
        self._lock = threading.Lock()
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._thread = threading.Thread(target=self._watch, name="tiercel-node-signals", daemon=True)

    def takes(self, listener: "Listener") -> None:
        """Note the place of a node that starts."""
        with self._lock:
            self._listener = listener

    def serves(self, node: "NodeServer") -> None:
        """From now on a signal stops this node."""
        with self._lock:
            self._node = node

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in EXIT_CODES}
        self._thread.start()
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in EXIT_CODES:
            signal.signal(number, lambda *_: None)  # `_watch` reads which it was
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._writer.close()
        self._thread.join()
        self._reader.close()

    def _watch(self) -> None:
        """Act as soon as a signal comes, which the main thread may notice only when a system call of its returns."""
        while numbers := self._reader.recv(64):
            for number in numbers:
                if number in EXIT_CODES:
                    self._take(signal.Signals(number))

    def _take(self, number: signal.Signals) -> None:
        with self._lock:
            if self._node is None or self.received is not None:
                self._leave(number)
            self.received = number
            self._node.stop()

    def _leave(self, number: signal.Signals) -> NoReturn:
        try:
            if self._listener is not None:
                self._listener.withdraw()
        finally:
            os._exit(EXIT_CODES[number])
