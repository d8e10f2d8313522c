"""Key files: who may read them, what they say, and that no secret gets out."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import App

from tiercel.cli.node_keys import keygen
from tiercel.errors import ConfigError
from tiercel.node.namespaces import SECRET_BYTES, make_secret, read_secret
from tiercel.node.remote import read_client_keys, read_server_keys
from tiercel.node.remote.keys import make_client_keys, make_server_keys, read_listed_client
from tiercel.node.remote.listing import Listing


def secrets_in(directory: Path) -> list[str]:
    secrets = [(directory / "node_secret").read_text().strip()]
    for path in directory.glob("*.json"):
        secrets.append(json.loads(path.read_text())["secret_key"])
    return secrets


def test_key_files_are_for_their_owner_alone_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_server_keys(tmp_path / "keys")
        make_client_keys(tmp_path / "keys", "ops")
    finally:
        os.umask(before)
    paths = [tmp_path / "keys", *(tmp_path / "keys").rglob("*")]
    assert len(paths) == 6
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    make_server_keys(tmp_path / "keys")
    carried, listed = make_client_keys(tmp_path / "keys", "ops", namespaces=("a", "ü"), rights=("reset",))
    server, client, entry = read_server_keys(tmp_path / "keys"), read_client_keys(carried), read_listed_client(listed)
    assert client.server_key == server.public_key
    assert (client.name, client.public_key) == (entry.name, entry.public_key) == ("ops", entry.public_key)
    assert (set(entry.namespaces), set(entry.rights)) == ({"a", "ü"}, {"reset"})
    assert "secret_key" not in listed.read_text()
    assert len(read_secret(tmp_path / "keys" / "node_secret")) == SECRET_BYTES


def test_a_repr_does_not_tell_a_secret(tmp_path: Path) -> None:
    make_server_keys(tmp_path / "keys")
    carried, _ = make_client_keys(tmp_path / "keys", "ops")
    shown = repr(read_server_keys(tmp_path / "keys")) + repr(read_client_keys(carried))
    assert "ops" in shown
    for secret in secrets_in(tmp_path / "keys"):
        assert secret not in shown


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    make_server_keys(tmp_path / "keys")
    make_client_keys(tmp_path / "keys", "ops")
    before = {path: path.read_bytes() for path in (tmp_path / "keys").rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="never overwritten"):
        make_server_keys(tmp_path / "keys")
    with pytest.raises(ConfigError, match="has keys"):
        make_client_keys(tmp_path / "keys", "ops")
    assert before == {path: path.read_bytes() for path in (tmp_path / "keys").rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-a", "a b", "ä", "a" * 65, "a\n"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    make_server_keys(tmp_path / "keys")
    with pytest.raises(ConfigError, match="--name"):
        make_client_keys(tmp_path / "keys", name)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_keys_that_others_may_read_or_write_are_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    make_server_keys(tmp_path / "keys")
    (tmp_path / "keys" / "server.json").chmod(mode)
    with pytest.raises(ConfigError, match=r"server\.json: .* chmod 600"):
        read_server_keys(tmp_path / "keys")


def test_a_directory_that_others_may_enter_gets_no_keys(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o755)
    (tmp_path / "keys").chmod(0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        make_server_keys(tmp_path / "keys")
    assert list((tmp_path / "keys").iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "{}", "[" * 100_000, '{"version": 1, "public_key": 5, "secret_key": "hush"}', "\xff"]
)
def test_a_file_that_is_none_is_told_without_its_content(tmp_path: Path, content: str) -> None:
    make_server_keys(tmp_path / "keys")
    (tmp_path / "keys" / "server.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match="not a file that") as told:
        read_server_keys(tmp_path / "keys")
    assert "hush" not in str(told.value)
    assert told.value.__cause__ is None


def test_missing_keys_name_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tiercel node keygen --directory"):
        read_server_keys(tmp_path)


def test_the_list_follows_its_folder(tmp_path: Path) -> None:
    make_server_keys(tmp_path / "keys")
    listing = Listing(tmp_path / "keys" / "clients")
    assert listing.by_name("ops") is None
    _, listed = make_client_keys(tmp_path / "keys", "ops")
    client = listing.by_name("ops")
    assert client is not None
    assert listing.by_key(client.public_key) is client or listing.by_key(client.public_key) == client
    listed.unlink()
    assert listing.by_name("ops") is None


def test_a_listed_file_that_is_none_keeps_its_client_alone_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_server_keys(tmp_path / "keys")
    make_client_keys(tmp_path / "keys", "good")
    make_client_keys(tmp_path / "keys", "bad")
    (tmp_path / "keys" / "clients" / "bad.json").write_text("{")
    listing = Listing(tmp_path / "keys" / "clients")
    assert listing.by_name("good") is not None
    assert listing.by_name("bad") is None
    assert listing.by_name("bad") is None
    assert len(caplog.records) == 1
    assert "bad.json" in caplog.text


def test_a_list_that_others_may_write_to_lets_nobody_in(tmp_path: Path) -> None:
    make_server_keys(tmp_path / "keys")
    make_client_keys(tmp_path / "keys", "ops")
    clients = tmp_path / "keys" / "clients"
    listing = Listing(clients)
    assert listing.by_name("ops") is not None
    clients.chmod(0o777)
    (clients / "x").touch()
    assert listing.by_name("ops") is None
    with pytest.raises(ConfigError, match="nobody but this user"):
        Listing(clients)


def test_keygen_makes_keys_that_a_door_takes_and_prints_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = App(result_action="return_value")
    app.command(keygen)
    place = str(tmp_path / "keys")
    app(["keygen", "--directory", place])
    app(["keygen", "--directory", place, "--name", "ops", "--namespace", "a", "--namespace", "", "--right", "reset"])
    entry = read_listed_client(tmp_path / "keys" / "clients" / "ops.json")
    assert (set(entry.namespaces), set(entry.rights)) == ({"a", ""}, {"reset"})
    shown = capsys.readouterr().out
    assert "ops.client.json" in shown
    assert "node_secret" in shown
    for secret in secrets_in(tmp_path / "keys"):
        assert secret not in shown


def test_keygen_without_a_name_takes_nothing_that_is_of_a_client(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--name"):
        keygen(directory=tmp_path / "keys", namespace=("a",))
    assert not (tmp_path / "keys").exists()


def test_the_secret_alone_is_made_without_pyzmq(tmp_path: Path) -> None:
    code = "import sys; sys.modules['zmq'] = None; from tiercel.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "node", "keygen", "--directory", str(tmp_path / "keys")]
    made = subprocess.run([*command, "--secret-only"], capture_output=True, text=True, timeout=60, check=False)
    assert made.returncode == 0, made.stderr
    assert len(read_secret(tmp_path / "keys" / "node_secret")) == SECRET_BYTES
    again = subprocess.run([*command, "--secret-only"], capture_output=True, text=True, timeout=60, check=False)
    assert "exists" in again.stderr
    both = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "pyzmq" in both.stderr


def test_a_secret_made_before_is_kept_with_the_keys(tmp_path: Path) -> None:
    before = make_secret(tmp_path / "keys").read_bytes()
    make_server_keys(tmp_path / "keys")
    assert (tmp_path / "keys" / "node_secret").read_bytes() == before


@pytest.mark.parametrize("place", ["file", "file/keys"])
def test_a_file_where_keys_are_to_lie_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=f"{tmp_path / place}: a file is in the way"):
        make_server_keys(tmp_path / place)
