"""A running node against clients that send anything; `tests/faults/hostile_clients.py` says what is held."""

from pathlib import Path

from tests.faults import hostile_clients
from tests.helpers.seeds import chosen_seed


def test_hostile_clients_change_nothing_and_leave_nothing_behind(tmp_path: Path) -> None:
    result = hostile_clients.run(tmp_path, chosen_seed(), 4_000)
    seen = result["what_came_back"]
    assert isinstance(seen, dict)
    assert seen["cut"] > 100
    assert seen["Failed"] > 10
