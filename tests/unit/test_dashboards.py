"""The dashboard and the alert rules ask only for what is served, by labels that it has."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tiercel.telemetry.catalogue import METRICS, SERIES_SUFFIXES, MetricType

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "dashboards" / "tiercel.json"
ALERTS = ROOT / "examples" / "prometheus-alerts.yml"
LABELS_OF_THE_SCRAPE = {"instance", "job"}


def metric_of(series: str) -> str:
    """Return the catalogue's name of a series; fail if there is none."""
    for suffix in SERIES_SUFFIXES:
        name = series.removesuffix(suffix)
        if name != series and name in METRICS and METRICS[name].type is MetricType.HISTOGRAM:
            return name
    assert series in METRICS, f"{series} is not served"
    assert METRICS[series].type is not MetricType.HISTOGRAM, (
        f"{series} is a histogram: ask for one of {SERIES_SUFFIXES}"
    )
    return series


def check(expression: str) -> None:
    """Fail unless an expression names served metrics only, and labels that all of them have."""
    series = re.findall(r"\btiercel_\w+", expression)
    assert series, f"{expression!r} asks for nothing of ours"
    names = [metric_of(name) for name in series]
    for name, selector in re.findall(r"\b(tiercel_\w+)\{([^}]*)\}", expression):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)) - LABELS_OF_THE_SCRAPE
        assert labels <= set(METRICS[metric_of(name)].labels), f"{name} has no {labels}: {expression}"
    allowed = LABELS_OF_THE_SCRAPE | {"le"} | set.intersection(*(set(METRICS[name].labels) for name in names))
    for grouping in re.findall(r"\bby \(([^)]*)\)", expression):
        assert set(re.split(r",\s*", grouping)) <= allowed, f"groups by what is not there: {expression}"
    for function, name in re.findall(r"\b(rate|increase)\((tiercel_\w+)", expression):
        assert METRICS[metric_of(name)].type is not MetricType.GAUGE, f"{function} of a gauge: {expression}"
    for name in series:
        if METRICS[metric_of(name)].type is MetricType.COUNTER and "fallbacks" not in name:
            assert re.search(rf"\b(rate|increase)\({name}\b", expression), f"a counter without a rate: {expression}"
    assert expression.count("(") == expression.count(")")
    assert expression.count("{") == expression.count("}")


def panels() -> Iterator[dict[str, Any]]:
    yield from json.loads(DASHBOARD.read_text())["panels"]


def test_every_query_of_the_dashboard_asks_for_what_is_served() -> None:
    expressions = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    assert len(expressions) > 20
    for expression in expressions:
        check(expression)
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
            assert metric in METRICS
            assert label in LABELS_OF_THE_SCRAPE


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= dashboard.keys()
    assert len({panel["id"] for panel in panels()}) == len(list(panels()))
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        assert panel["type"] in ("row", "timeseries", "stat")
        assert panel["title"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
            used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps([panel["targets"], panel["datasource"]])))
            assert used <= variables | {"__rate_interval"}


def test_every_alert_asks_for_what_is_served_and_says_what_to_do() -> None:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(set(names)) == len(names) > 5
    page = (ROOT / "docs" / "operations.md").read_text()
    for rule in group["rules"]:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        check(rule["expr"])
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}
        assert rule["alert"] in page, f"docs/operations.md does not say what to do for {rule['alert']}"


@pytest.mark.parametrize(
    "expression",
    [
        "rate(tiercel_nothing_total[5m])",
        "rate(tiercel_lookups_total{tier='disk'}[5m])",
        "sum by (queue) (tiercel_tier_blocks)",
        "rate(tiercel_queue_depth[5m])",
        "tiercel_lookup_seconds",
        "sum(tiercel_lookups_total)",
        "sum(rate(tiercel_lookups_total[5m])",
    ],
)
def test_the_check_sees_what_is_wrong(expression: str) -> None:
    with pytest.raises(AssertionError):
        check(expression)
