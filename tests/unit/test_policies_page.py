"""docs/policies.md shows the results that are kept beside it, and no others."""

import json
from pathlib import Path

from _policy_tables import Results, fill_tables

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "policies.md"
RESULTS = ROOT / "benchmarks" / "results" / "policies.json"


def results() -> Results:
    return Results.from_dict(json.loads(RESULTS.read_text()))


def test_the_page_shows_the_recorded_results() -> None:
    page = PAGE.read_text()
    assert fill_tables(page, results()) == page, "renew it: benchmarks/policies.py --from RESULTS --markdown PAGE"


def test_no_policy_hits_more_than_is_possible() -> None:
    for trace in results().traces:
        for policy, rates in trace.policies.items():
            for rate, most in zip(rates, trace.belady, strict=True):
                assert rate <= most, (trace.name, policy)


def test_the_recorded_lru_is_the_exact_one() -> None:
    for trace in results().traces:
        apart = [abs(a - b) for a, b in zip(trace.policies["lru"], trace.lru, strict=True)]
        assert max(apart) < 1e-6, trace.name
