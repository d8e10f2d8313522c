"""Whatever a manifest says, and whatever answers on a status socket: it is read, or refused in our own words; nothing else."""

import copy
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.helpers.small_engine import MODEL, SmallEngine, config, load_prompt, store_prompt
from tests.helpers.tier_samples import disk_options, stripe_folder
from tiercel import Cache
from tiercel.cli.stats import print_snapshot
from tiercel.errors import ConfigError, FormatError, StatusError
from tiercel.telemetry.status import read_status
from tiercel.tiers.disk import DiskTier
from tiercel.tiers.disk_directory import Manifest, read_manifest
from tiercel.tiers.inspect import inspect_directory

FUZZ = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
NESTED = b"[" * 100_000

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 1, 1.0, 2**31, 2**63, 10**400, 1e308, "", "a\0b", "\ud800", "ff" * 32]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=10),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything in a message."""
    if path:
        yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


@st.composite
def damaged(draw: st.DrawFn, good: Any) -> bytes:
    """A good message with one to three values replaced or left out, or some of its bytes."""
    message = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(sorted(places(message), key=str)))
        holder = message
        for step in path:
            holder = holder[step]
        if draw(st.booleans()):
            holder[last] = draw(VALUES)
        elif len(message) > 1:
            del holder[last]
    data = json.dumps(message).encode()
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=4)) + data[at + draw(st.integers(0, 4)) :]
    return data


MANIFEST: dict[str, Any] = {
    "format_version": 1,
    "fingerprint": "ab" * 32,
    "block_bytes": 5000,
    "slot_bytes": 8192,
    "num_slots": 16,
    "set_id": "cd" * 16,
    "stripe": 0,
    "num_stripes": 1,
    "model_id": "m",
}


@FUZZ
@given(data=st.binary(max_size=60) | damaged(MANIFEST))
@example(data=NESTED)
@example(data=b"")
def test_a_manifest_of_any_bytes_is_read_or_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(data)
    said = str(tmp_path)
    try:
        assert isinstance(read_manifest(tmp_path), Manifest)
    except FormatError as error:
        said = str(error)
    assert str(tmp_path) in said


@FUZZ
@given(data=st.data())
@example(data=None)
def test_a_tier_with_a_manifest_of_any_bytes_opens_or_refuses_and_can_be_listed(tmp_path: Path, data: Any) -> None:
    path = stripe_folder(tmp_path) / "manifest.json"
    DiskTier.open(disk_options(tmp_path)).close()
    good = path.read_bytes()
    path.write_bytes(NESTED if data is None else data.draw(damaged(json.loads(good))))
    before = path.read_bytes()
    assert len(inspect_directory(tmp_path)) == 1
    try:
        DiskTier.open(disk_options(tmp_path)).close()
    except (FormatError, ConfigError):
        assert path.read_bytes() == before
    path.write_bytes(good)


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a cache that did something answers, as plain data."""
    with Cache.open(MODEL, config(tmp_path_factory.mktemp("cache"), host=32, disk=64)) as cache:
        engine = SmallEngine(cache.geometry)
        store_prompt(cache, engine, 1)
        load_prompt(cache, engine, 1)
        told: dict[str, Any] = json.loads(msgspec.json.encode(cache.stats()))
        return told


class Answering:
    """A status socket that answers with the same bytes to everybody."""

    def __init__(self, path: Path) -> None:
        self.path, self.answer = path, b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client:
                client.sendall(self.answer)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    server = Answering(Path("s"))
    yield server
    server.close()


@FUZZ
@given(data=st.data())
@example(data=NESTED)
@example(data=b"")
def test_an_answer_of_any_bytes_is_shown_or_refused(server: Answering, answer: dict[str, Any], data: Any) -> None:
    server.answer = data if isinstance(data, bytes) else data.draw(st.binary(max_size=60) | damaged(answer))
    said = server.path.name
    try:
        print_snapshot(read_status(server.path))
    except StatusError as error:
        said = str(error)
    assert server.path.name in said
