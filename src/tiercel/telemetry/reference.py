"""docs/metrics.md, written from the catalogue: `python -m tiercel.telemetry.reference > docs/metrics.md`."""

import sys

from tiercel.telemetry.catalogue import METRICS

_HEAD = """\
# Metrics

Generated from the code: `python -m tiercel.telemetry.reference > docs/metrics.md`.

`metrics_port` serves these to Prometheus at `/metrics`; the numbers of `tiercel stats` are the same. Units are base units, and
counters start at 0 when the cache is opened. `dashboards/tiercel.json` draws them, `examples/prometheus-alerts.yml` watches
them, and [operations](operations.md) says what to look at first.

Values of labels: a `tier`, `source` or `target` is `gpu` (the engine's memory), `host`, `disk` or `remote`; a `queue` is a tier
and a direction, `disk-load` or `disk-store`.
"""


def metrics_reference() -> str:
    """Return the page as Markdown."""
    lines = [_HEAD]
    for metric in METRICS.values():
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
        lines += [f"## {metric.name}", "", f"{metric.type.value}, in {metric.unit}; labels: {labels}.", ""]
        lines += [metric.meaning, "", f"**When high:** {metric.when_high}", ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(metrics_reference())
