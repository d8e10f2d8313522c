"""Tells when a client's process has ended: its death is known within milliseconds, whoever may still hold its sockets."""

import errno
import os
import select
import threading
from collections.abc import Callable
from typing import Final

_NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class ExitWatch:
    """One thread that waits for processes to end. Thread-safe."""

    def __init__(self) -> None:
        """Start the thread. Raises RuntimeError if the machine has none left."""
        self._lock = threading.Lock()
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._woken, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._epoll.register(self._woken, select.EPOLLIN)
        self._thread = threading.Thread(target=self._watch, name="tiercel-node-exits", daemon=True)
        self._thread.start()

    def watch(self, process: int, callback: Callable[[], None]) -> int | None:
        """Call back once, from this thread, when a process has ended. Must not block.

        Returns:
            What `forget` takes, or None if the process is not visible from here, or has ended already.

        Raises:
            OSError: the system has no room to watch it: no descriptor, or no memory. It is not watched.
        """
        if process <= 0:
            return None
        try:
            fd = os.pidfd_open(process)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise
            return None
        try:
            with self._lock:
                self._epoll.register(fd, select.EPOLLIN)
                self._callbacks[fd] = callback
        except BaseException:
            os.close(fd)
            raise
        return fd

    def forget(self, watched: int) -> None:
        """Do not call back any more. Idempotent."""
        with self._lock:
            if self._callbacks.pop(watched, None) is not None:
                self._epoll.unregister(watched)
                os.close(watched)

    def close(self) -> None:
        """End the thread and forget everybody."""
        os.write(self._waker, b"!")
        self._thread.join()
        for watched in list(self._callbacks):
            self.forget(watched)
        self._epoll.close()
        os.close(self._woken)
        os.close(self._waker)

    def _watch(self) -> None:
        while True:
            for fd, _ in self._epoll.poll():
                if fd == self._woken:
                    return
                with self._lock:  # its number may have gone to another file since
                    callback = self._callbacks.get(fd) if _has_ended(fd) else None
                if callback is not None:
                    self.forget(fd)
                    callback()


def _has_ended(process: int) -> bool:
    """Whether the process behind a pidfd has ended; False for a number that is closed."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return any(flags & select.POLLIN for _, flags in poll.poll(0))
