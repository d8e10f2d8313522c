"""Which clients a node lets in: the files of `clients/`, read again when that folder changes.

So a client is added by `tiercel node keygen`, and shut out by deleting its file, while the node runs.
"""

import logging
import os
import stat
import time
from pathlib import Path

from tiercel.errors import ConfigError
from tiercel.node.remote.keys import ListedClient, read_listed_client

CLIENTS_MAX = 4096
_SETTLED_S = 2.0
"""A folder that changed later than that ago may change again under the same time."""

_log = logging.getLogger(__name__)


class Listing:
    """The clients of a folder. One thread uses it.

    Raises:
        ConfigError: there is no such folder, or others may write to it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read_at_ns = -1
        self._by_key: dict[str, ListedClient] = {}
        self._by_name: dict[str, ListedClient] = {}
        self._complaints: frozenset[str] = frozenset()
        _changed_ns(folder)

    def by_key(self, public_key: str) -> ListedClient | None:
        """Return the client of a public key in Z85."""
        self._renew()
        return self._by_key.get(public_key)

    def by_name(self, name: str) -> ListedClient | None:
        """Return the client of a name."""
        self._renew()
        return self._by_name.get(name)

    def _renew(self) -> None:
        """Read the folder if it changed. Whatever cannot be read lets nobody in."""
        try:
            changed_ns = _changed_ns(self._folder)
            if changed_ns == self._read_at_ns:
                return
            paths = sorted(self._folder.glob("[!.]*.json"))[:CLIENTS_MAX]
        except (ConfigError, OSError) as error:
            self._take([], frozenset([str(error)]))
            self._read_at_ns = -1
            return
        clients: list[ListedClient] = []
        complaints: list[str] = []
        for path in paths:
            try:
                clients.append(read_listed_client(path))
            except ConfigError as error:
                complaints.append(str(error))
        self._take(clients, frozenset(complaints))
        settled = abs(time.time_ns() - changed_ns) > _SETTLED_S * 1e9
        self._read_at_ns = changed_ns if settled else -1

    def _take(self, clients: list[ListedClient], complaints: frozenset[str]) -> None:
        self._by_key = {client.public_key: client for client in clients}
        self._by_name = {client.name: client for client in clients}
        for complaint in sorted(complaints - self._complaints):
            _log.error("a client of this node is not let in: %s", complaint)
        self._complaints = complaints


def _changed_ns(folder: Path) -> int:
    """Return when a folder changed last. Raises ConfigError."""
    try:
        found = folder.stat()
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}; it lists the clients that may come") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022 or found.st_uid not in (os.geteuid(), 0):
        raise ConfigError(f"{folder}: must be a folder that nobody but this user may write to: chmod 700 it")
    return found.st_mtime_ns
