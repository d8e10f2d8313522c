"""docs/curves.md shows the results that are kept beside it, and they are possible ones."""

import json
from pathlib import Path

import pytest
from _curve_tables import Results, fill_tables

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "curves.md"
RESULTS = ROOT / "benchmarks" / "results" / "curves.json"


def results() -> Results:
    return Results.from_dict(
        {name: rows for name, rows in json.loads(RESULTS.read_text()).items() if name != "machine"}
    )


def test_the_page_shows_the_recorded_results() -> None:
    page = PAGE.read_text()
    assert fill_tables(page, results()) == page, "renew it: benchmarks/curves.py --from RESULTS --markdown PAGE"


def test_every_recorded_policy_lies_between_nothing_and_the_bound() -> None:
    for curves in results().curves:
        for policy, rates in curves.policies.items():
            for rate, most in zip(rates, curves.bound, strict=True):
                assert 0 < rate <= most + 1e-9, (curves.name, policy)
        assert curves.bound[-1] <= curves.ideal["blocks"] + 1e-9


def test_recorded_tiers_together_serve_what_one_of_their_size_serves() -> None:
    for curves in results().curves:
        lru = dict(zip(curves.capacities_tokens, curves.policies["lru"], strict=True))
        host, disk = curves.grid_host_tokens.index(2**21), curves.grid_disk_tokens.index(2**21)
        assert sum(curves.grid[host][disk]) == pytest.approx(lru[2**22])
