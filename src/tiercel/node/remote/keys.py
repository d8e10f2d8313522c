"""Key files of TCP endpoints: made by `tiercel node keygen`, read by a node and its remote clients.

    DIR/                    0700, on the node's machine
        server.json         0600, the node's own pair
        node_secret         0600, for the roots of namespaces (`node_secret_file`)
        clients/NAME.json   one for each client that may come: its public key, its namespaces, its rights
        NAME.client.json    0600, to be carried to that client and deleted here: its pair, and the node's public key

Whoever is not in `clients/` is not let in. Secrets appear in these files and nowhere else: not in arguments, logs, reprs or
errors. A file is never overwritten.
"""

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from tiercel.errors import ConfigError
from tiercel.node.namespaces import NODE_SECRET, write_secret

Right = Literal["status", "reset"]
RIGHTS: Final[tuple[Right, ...]] = ("status", "reset")
KEYGEN: Final = "tiercel node keygen --directory DIR"

_SERVER = "server.json"
_CLIENTS = "clients"
_FILE_BYTES_MAX = 64 << 10
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

CurveKey = Annotated[str, Meta(min_length=40, max_length=40)]
"""32 bytes in ZeroMQ's Z85."""


class _ServerFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    public_key: CurveKey
    secret_key: CurveKey


class _ClientFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    name: str
    public_key: CurveKey
    secret_key: CurveKey
    server_key: CurveKey


class _ListedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    public_key: CurveKey
    namespaces: tuple[Annotated[str, Meta(max_length=2000)], ...]
    rights: tuple[Right, ...]


@dataclass(frozen=True)
class ServerKeys:
    """A node's own pair, and where its clients are listed."""

    directory: Path
    public_key: str
    secret_key: str = field(repr=False)

    @property
    def clients(self) -> Path:
        """The folder with a file for each client that may come."""
        return self.directory / _CLIENTS


@dataclass(frozen=True)
class ClientKeys:
    """A remote client's pair, and the public key of the node that it talks to."""

    name: str
    public_key: str
    server_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True)
class ListedClient:
    """A client that a node lets in.

    Attributes:
        namespaces: what it may ask about; "" is the common one.
        rights: what else it may ask for.
    """

    name: str
    public_key: str
    namespaces: frozenset[str]
    rights: frozenset[Right]


def make_server_keys(directory: Path) -> tuple[Path, ...]:
    """Make a node's keys in a directory, which is made if it is missing.

    Returns:
        The files that were written.

    Raises:
        ConfigError: others may enter the directory, or there are such keys already.
        OSError: a file cannot be written.
    """
    _make_private(directory)
    _make_private(directory / _CLIENTS)
    public_key, secret_key = _new_pair()
    server = _write(directory / _SERVER, _ServerFile(1, public_key, secret_key))
    secret = directory / NODE_SECRET
    if not secret.exists():
        write_secret(secret)
    return server, secret


def make_client_keys(
    directory: Path, name: str, *, namespaces: Sequence[str] = ("",), rights: Sequence[Right] = ("status",)
) -> tuple[Path, Path]:
    """Make a client's keys, and list it among those that a node lets in. A node that runs sees it at once.

    Args:
        directory: the node's keys, as `make_server_keys` made them.
        name: letters, digits, `.`, `_` and `-`, 64 at most.

    Returns:
        The file to carry to the client, and the one that lists it.

    Raises:
        ConfigError: the name is none, there are no such server keys, or the client has keys already.
        OSError: a file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--name {name!r}: give 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first")
    server = read_server_keys(directory)
    listed_path = server.clients / f"{name}.json"
    if listed_path.exists():
        raise ConfigError(
            f"{listed_path}: this client has keys; delete the file first, which shuts it out, or name another"
        )
    public_key, secret_key = _new_pair()
    carried = directory / f"{name}.client.json"
    _write(carried, _ClientFile(1, name, public_key, secret_key, server.public_key))
    try:
        _write(listed_path, _ListedFile(1, public_key, tuple(namespaces), tuple(rights)))
    except BaseException:
        carried.unlink(missing_ok=True)
        raise
    return carried, listed_path


def read_server_keys(directory: Path) -> ServerKeys:
    """Read a node's keys. Raises ConfigError: there are none, or others may read them."""
    found = _read(directory / _SERVER, _ServerFile, private=True)
    return ServerKeys(directory, found.public_key, found.secret_key)


def read_client_keys(path: Path) -> ClientKeys:
    """Read the file that was carried to a client. Raises ConfigError: it is none, or others may read it."""
    found = _read(path, _ClientFile, private=True)
    return ClientKeys(found.name, found.public_key, found.server_key, found.secret_key)


def read_listed_client(path: Path) -> ListedClient:
    """Read one file of `clients/`. Raises ConfigError: it is none, or others may write it."""
    found = _read(path, _ListedFile, private=False)
    return ListedClient(path.stem, found.public_key, frozenset(found.namespaces), frozenset(found.rights))


def _new_pair() -> tuple[str, str]:
    from tiercel.node.remote.sockets import zmq

    public_key, secret_key = zmq.curve_keypair()
    return public_key.decode(), secret_key.decode()


def _make_private(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"{directory}: a file is in the way, and keys need a directory: name another") from error
    found = directory.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ConfigError(
            f"{directory}: others may enter it, and keys are to lie there: make it yours, and chmod 700 it"
        )


def _write(path: Path, content: msgspec.Struct) -> Path:
    return _write_bytes(path, msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


def _write_bytes(path: Path, content: bytes) -> Path:
    """Write a file of mode 0600, whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.link(draft, path)
    except FileExistsError as error:
        raise ConfigError(f"{path}: there is such a file; keys are never overwritten, so delete it first") from error
    finally:
        draft.unlink()
    return path


_File = TypeVar("_File", bound=msgspec.Struct)


def _read(path: Path, kind: type[_File], *, private: bool) -> _File:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; keys are made by `{KEYGEN}`") from error
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{path}: not a file; keys are made by `{KEYGEN}`")
        _check_mode(path, found, private=private)
        content = file.read(_FILE_BYTES_MAX)
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # what they say may quote the file
        raise ConfigError(f"{path}: not a file that `{KEYGEN}` wrote for this purpose") from None


def _check_mode(path: Path, found: os.stat_result, *, private: bool) -> None:
    """Root may hand a file to a group, as Kubernetes does with a volume; nobody else's file counts as ours."""
    if found.st_uid not in (os.geteuid(), 0):
        raise ConfigError(f"{path}: belongs to another user; chown it")
    is_handed = found.st_uid == 0 != os.geteuid()
    allowed = 0o755 if not private else 0o750 if is_handed else 0o700
    if stat.S_IMODE(found.st_mode) & ~allowed:
        raise ConfigError(f"{path}: others may {'read or ' if private else ''}write it: chmod 600 it")
