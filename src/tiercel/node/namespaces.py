"""Namespaces as capabilities: a client hashes under roots that the node gave it, and under no others.

With a secret, a namespace's root depends on it, so that its keys are known to nobody whom the node did not give the root.
Without one the roots are those of a cache in process, and a cache directory is warm in either mode.
"""

import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tiercel.config.messages import problem
from tiercel.errors import ConfigError
from tiercel.hashing import root_key
from tiercel.ranks.sockets import make_private

SECRET_BYTES: Final = 32
NODE_SECRET: Final = "node_secret"
KEYGEN_SECRET: Final = "tiercel node keygen --secret-only --directory DIR"
ANY: Final = "*"
_SETTING = "node_secret_file"


class Namespaces:
    """Which client may use which namespaces, and their roots."""

    def __init__(self, fingerprint: bytes, secret: bytes, bindings: Mapping[str, Sequence[str]] | None) -> None:
        """Take what the settings say.

        Args:
            secret: b"" for none.
            bindings: namespaces by client, `ANY` for any other client or any namespace; None lets every client use all.
        """
        self._fingerprint = fingerprint
        self._secret = secret
        self._bindings = bindings

    def root(self, client: str, namespace: str) -> bytes:
        """Return a namespace's root for a client. Raises ConfigError if it may not use it."""
        if self._bindings is not None:
            allowed = self._bindings.get(client, self._bindings.get(ANY, ()))
            if namespace not in allowed and ANY not in allowed:
                raise ConfigError(
                    f"client {client!r} may not use namespace {namespace!r}: node_namespaces does not list it for this client; "
                    "add it there"
                )
        return self.root_of(namespace)

    def root_of(self, namespace: str) -> bytes:
        """Return a namespace's root."""
        return root_key(self._fingerprint, namespace, self._secret)

    def __repr__(self) -> str:
        return f"Namespaces(secret={'set' if self._secret else 'none'}, bound={self._bindings is not None})"


def make_secret(directory: Path) -> Path:
    """Make a secret in a directory of a node's keys, which is made if it is missing. Returns its file.

    Raises:
        ConfigError: others may enter the directory, or there is one already.
        OSError: it cannot be written.
    """
    make_private(directory)
    path = directory / NODE_SECRET
    try:
        write_secret(path)
    except FileExistsError as error:
        raise ConfigError(f"{path} exists: its keys would be lost; move it away first") from error
    return path


def write_secret(path: Path) -> None:
    """Write a new secret to a file that only its owner may read. Raises FileExistsError: its keys would be lost."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(secrets.token_hex(SECRET_BYTES).encode() + b"\n")


def read_secret(path: Path) -> bytes:
    """Read a secret that `write_secret` wrote.

    Raises:
        ConfigError: it cannot be read, is none, or others may read it.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = file.read(4 * SECRET_BYTES)
    except OSError as error:
        raise problem(
            _SETTING, str(path), f"cannot be read ({error.strerror})", f"make one with `{KEYGEN_SECRET}`"
        ) from error
    if mode & 0o077:
        raise problem(_SETTING, str(path), f"has mode {mode:o}: others may read it", "chmod 600, and make a new one")
    try:
        secret = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise problem(_SETTING, str(path), "holds no secret of a node", f"make one with `{KEYGEN_SECRET}`")
    return secret
