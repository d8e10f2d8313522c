"""The demo's result on a console: one table, the traffic by tier, and what was verified."""

from collections import Counter

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tiercel.demo.results import LABELS, DemoResult, Served, Source, quantile


def print_result(console: Console, result: DemoResult) -> None:
    """Print everything that a person needs to believe the demo, or not to."""
    console.print()
    console.print(_times(result))
    console.print(_traffic(result))
    for line in summary_lines(result):
        console.print(line, highlight=False)
    console.print(_verdict(result))


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds with three significant digits, or a dash for none."""
    if seconds != seconds:
        return "–"
    value = seconds * 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def gigabytes(num_bytes: float) -> str:
    """Bytes in MB or GB."""
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def ttft_row(title: str, values: list[float]) -> list[str]:
    """Count and quantiles of times to first token."""
    return [title, str(len(values)), *(milliseconds(quantile(values, share)) for share in (0.5, 0.9, 0.99))]


def speed_ups(served: list[Served]) -> str:
    """Median of the speed-ups against the same requests without Tiercel."""
    if not served:
        return "–"
    return f"{quantile([one.speed_up for one in served], 0.5):.1f}x"


def _times(result: DemoResult) -> Table:
    table = Table(title="Time to first token, ms", title_style="bold", title_justify="left", box=SIMPLE)
    table.add_column("prompt's KV mostly from")
    for name in ("n", "p50", "p90", "p99", "without", "sooner"):
        table.add_column(name, justify="right")
    table.add_row(*ttft_row("all, without Tiercel", [answer.ttft_s for answer in result.without]), "", "")
    table.add_row(
        *ttft_row("all, with Tiercel", [one.answer.ttft_s for one in result.served]),
        milliseconds(quantile([one.without.ttft_s for one in result.served], 0.5)),
        speed_ups(list(result.served)),
        end_section=True,
    )
    for source in Source:
        served = result.of(source)
        table.add_row(
            *ttft_row(LABELS[source], [one.answer.ttft_s for one in served]),
            milliseconds(quantile([one.without.ttft_s for one in served], 0.5)),
            speed_ups(served),
        )
    return table


def traffic_rows(result: DemoResult) -> list[list[str]]:
    """Per source: name, prompt tokens, share; for tiers also bytes and rate of loads, bytes and rate of stores."""
    tokens = result.tokens_by_source()
    total = sum(tokens.values())
    rows = []
    for name in ("computed", "engine", "host", "disk"):
        row = [name, f"{tokens[name]:,}", f"{tokens[name] / total:.0%}"]
        if name in ("host", "disk"):
            use = result.traffic(name)
            speed = result.machine
            bound_read = speed.memcpy if name == "host" else speed.disk_read
            bound_write = speed.memcpy if name == "host" else speed.disk_write
            row += [gigabytes(use.bytes_read), _rate(use.bytes_read, use.read_s, bound_read)]
            row += [gigabytes(use.bytes_written), _rate(use.bytes_written, use.write_s, bound_write)]
        else:
            row += [""] * 4
        rows.append(row)
    return rows


def _rate(num_bytes: int, seconds: float, bound: float) -> str:
    """A tier's bandwidth while it was at work, beside the machine's."""
    rate = f"{num_bytes / seconds / 1e9:.2f}" if seconds else "–"
    return f"{rate} of {bound / 1e9:.2f}"


def _traffic(result: DemoResult) -> Table:
    table = Table(
        title="Prompt tokens by source; bytes moved by tier, GB/s of the machine's",
        title_style="bold",
        title_justify="left",
        box=SIMPLE,
    )
    table.add_column("source")
    for name in ("tokens", "share", "loaded", "GB/s", "stored", "GB/s"):
        table.add_column(name, justify="right")
    for row in traffic_rows(result):
        table.add_row(*row)
    return table


def summary_lines(result: DemoResult) -> list[str]:
    """What was run and on what, a sentence each."""
    direct = "past the page cache" if result.machine.direct else "through the page cache: no O_DIRECT here"
    killed = result.runs[2]
    return [
        f"Model: {result.model}; {result.block_bytes // 1024} KiB of KV a block of 16 tokens.",
        f"Work: {len(result.workload.turns)} requests about {len(result.workload.documents)} documents, "
        f"{sum(answer.num_prompt_tokens for answer in result.without):,} prompt tokens. The engine itself holds "
        f"{gigabytes(result.engine_bytes)} of KV, the host tier {gigabytes(result.host_bytes)}.",
        f"Machine: memory copy {result.machine.memcpy / 1e9:.1f} GB/s on one core; disk "
        f"{result.machine.disk_read / 1e9:.2f} GB/s read, {result.machine.disk_write / 1e9:.2f} written ({direct}).",
        f"Kill: SIGKILL while stores in flight: {result.stores_running_at_kill}; the next process found "
        f"{killed.found_blocks:,} blocks on disk and was ready after {killed.start_s:.1f} s.",
        f"Failures that became recompute: {_failures(result)}. Peak memory of the engine's process: "
        f"{gigabytes(max(run.peak_bytes for run in result.runs))}. The demo took {result.total_s:.0f} s.",
    ]


def _failures(result: DemoResult) -> str:
    """What failed, by kind."""
    failures = Counter[str]()
    for run in result.runs:
        failures.update(run.failures)
    return ", ".join(f"{kind} {count} times" for kind, count in failures.items()) or "none"


def verification_lines(result: DemoResult) -> list[str]:
    """What was compared and what came out, in words."""
    checks = result.verification
    if checks.passed:
        return [
            f"All {checks.tokens:,} generated tokens equal those of the engine alone, whose KV never left it.",
            f"All {checks.restored_blocks:,} restored blocks are byte-equal to those the engine alone made (SHA-256).",
            f"So are the {checks.computed_blocks:,} blocks that were kept or computed beside the cache.",
        ]
    if not checks.num_mismatches:
        return ["Nothing was restored from Tiercel, so nothing could be verified."]
    return [f"{checks.num_mismatches} mismatches; the first:", *checks.mismatches]


def _verdict(result: DemoResult) -> Panel:
    passed = result.verification.passed
    style = "green" if passed else "red"
    lines = [Text(("✓ " if passed else "✗ ") + line) for line in verification_lines(result)]
    return Panel(Group(*lines), title="verified" if passed else "NOT VERIFIED", border_style=style, title_align="left")
