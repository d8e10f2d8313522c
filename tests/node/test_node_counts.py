"""What a node counts of its clients, and what tenants hold, where an operator looks: status, metrics, `stats`, `top`."""

from pathlib import Path

import pytest

from tests.helpers.raw_client import RawClient, ask, dial
from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tests.helpers.telemetry_samples import sample_snapshot
from tiercel.cli.node import print_node
from tiercel.cli.stats import print_snapshot
from tiercel.node.endpoint import LocalEndpoint
from tiercel.node.joining import Hello, Refused
from tiercel.node.server import NodeServer
from tiercel.telemetry.prometheus import samples
from tiercel.tune.live.history import History
from tiercel.tune.live.screen import lines
from tiercel.tune.live.watching import Look


def told(node: NodeServer) -> dict[tuple[str, tuple[str, ...]], object]:
    """Every sample that a scraper would see."""
    return {(name, labels): value for name, labels, value in samples(node.cache.stats())}


def test_what_a_node_turned_away_is_in_its_status_its_metrics_and_its_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with NodeServer(MODEL, config(host=16, node_clients_max=1), LocalEndpoint(tmp_path / "node")) as node:
        with dial(node.endpoint.directory) as stranger:
            assert isinstance(ask(stranger, b"nonsense"), Refused)
        with RawClient(node.endpoint.directory, node.cache.geometry), dial(node.endpoint.directory) as late:
            assert isinstance(ask(late, Hello("late", None)), Refused)
            status, seen = node.status(), told(node)
            assert (status.malformed, status.refused, status.unread, status.unobserved) == (1, 1, 0, 0)
            for event, count in {"malformed": 1, "refused": 1, "unread": 0, "unobserved": 0}.items():
                assert seen["tiercel_node_events_total", (event,)] == count
            assert seen["tiercel_node_clients", ()] == 1
            print_node(status, node.cache.stats(), str(node.endpoint))
    assert "turned away or lost by the node: malformed 1, refused 1" in capsys.readouterr().out


def test_what_a_tenant_holds_is_told_in_bytes_by_tier(tmp_path: Path) -> None:
    tenants = {"a": {"namespaces": "team-a", "reserve": 4, "limit": 8}}
    with NodeServer(MODEL, config(host=16, tenants=tenants), LocalEndpoint(tmp_path / "node")) as node:
        cache, block = node.cache, node.cache.geometry.block_bytes
        engine = SmallEngine(cache.geometry)
        for seed in range(2):
            sequence = cache.sequence(tokens(6, seed=seed), namespace="team-a")
            assert cache.store(sequence, engine.fill(sequence)).wait(10).num_blocks_ok == 6
        seen = told(node)
        for what, blocks in {"held": 8, "reserved": 4, "limit": 8}.items():
            assert seen["tiercel_tenant_bytes", ("host", "a", what)] == blocks * block
        assert seen["tiercel_tenant_evicted_blocks_total", ("host", "a")] == 4
        assert seen["tiercel_tenant_bytes", ("host", "", "held")] == 0


def test_tenants_are_in_the_text_of_stats_and_top(capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = sample_snapshot()
    print_snapshot(snapshot)
    printed = capsys.readouterr().out
    assert "team-a" in printed
    assert "(everybody else)" in printed
    history = History()
    history.add(snapshot)
    shown = "\n".join(line.text for line in lines(Look(history=history, number=1, count=1), 120))
    assert "team-a host" in shown
    assert "160 KiB" in shown
