"""Where a node is, what its board says, and its secret."""

import mmap
import os
import random
import stat
import threading
from pathlib import Path

import pytest

from tests.helpers.seeds import chosen_seed
from tiercel import ConfigError
from tiercel.costs import PrefillCurve, TransferCost
from tiercel.node.board import BOARD_BYTES, BoardFacts, BoardReader, BoardWriter
from tiercel.node.endpoint import LocalEndpoint, TcpEndpoint, parse_endpoint
from tiercel.node.namespaces import Namespaces, read_secret, write_secret
from tiercel.node.server.labels import OTHER, Labels
from tiercel.tiers.base import TierName


def test_addresses_are_read_and_anything_else_is_refused() -> None:
    assert parse_endpoint("ipc:///run/t/") == LocalEndpoint(Path("/run/t"))
    assert parse_endpoint("tcp://[::1]:5555") == TcpEndpoint("::1", 5555)
    for text in ("ipc://run", "ipc:///", "tcp://host", "tcp://host:0", "tcp://:1", "/run/t", "udp://a:1", ""):
        with pytest.raises(ConfigError, match="no address of a node"):
            parse_endpoint(text)


def facts(number: int) -> BoardFacts:
    cost = TransferCost(float(number), 1.0 + number)
    return BoardFacts(number, PrefillCurve(float(number), 2.0 * number, 3.0 * number), {TierName.DISK: (cost, number)})


def test_the_board_is_never_read_half_written() -> None:
    random.seed(seed := chosen_seed())
    board = BoardWriter()
    reader = BoardReader(board.fd)
    assert reader.facts() == BoardFacts(0, PrefillCurve(), {})
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            board.write(facts(random.randrange(1, 1 << 20)))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(3000):
            seen = reader.facts()
            assert seen in (BoardFacts(0, PrefillCurve(), {}), facts(seen.num_prefills)), f"seed {seed}"
    finally:
        over.set()
        thread.join()
    board.write(facts(7))
    assert reader.facts() == facts(7)
    reader.close()
    board.close()


def test_a_client_cannot_write_to_the_board() -> None:
    board = BoardWriter()
    with pytest.raises(PermissionError):
        mmap.mmap(board.fd, BOARD_BYTES)
    with pytest.raises(PermissionError):
        os.write(board.fd, b"!")
    board.close()


def test_a_secret_is_its_owners_alone_and_makes_other_roots(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_secret(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    secret, fingerprint = read_secret(path), bytes(32)
    ours, open_to_all = Namespaces(fingerprint, secret, None), Namespaces(fingerprint, b"", None)
    assert ours.root("a", "red") == ours.root("b", "red") != open_to_all.root("a", "red")
    assert secret.hex() not in repr(ours)
    with pytest.raises(FileExistsError):
        write_secret(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="others may read it"):
        read_secret(path)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(ConfigError, match="holds no secret"):
        read_secret(path)


def test_clients_cannot_fill_the_metrics_with_names() -> None:
    labels = Labels()
    assert [labels.of(text) for text in ("timeout", "with/slash", "", "x" * 65)] == ["timeout", OTHER, OTHER, OTHER]
    names = {labels.of(f"name{number}") for number in range(1000)}
    assert len(names) <= 65
    assert labels.of("timeout") == "timeout"
