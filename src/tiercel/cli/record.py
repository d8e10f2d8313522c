"""`tiercel record`: what a recording of lookups and stores holds."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tiercel.cli.render import bytes_text, counts_text, print_json, print_line, seconds_text
from tiercel.telemetry.recording_summary import RecordingSummary, summarise_recording


def info(file: Path, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Show how many lookups and stores a recording holds, over what time, and their hit rate.

    Args:
        file: a file that `record_path` named, or its older part FILE.1.
        json: print JSON.
    """
    summary = summarise_recording(file)
    if json:
        print_json(summary)
    else:
        _print_summary(file, summary)


def _print_summary(file: Path, summary: RecordingSummary) -> None:
    print_line(f"{file}: {bytes_text(summary.num_bytes)}, {summary.lookups} lookups and {summary.stores} stores")
    for session in summary.sessions:
        about = session.about
        print_line(
            f"session of {about.model}: {about.tokens_per_block} tokens and {bytes_text(about.block_bytes)} a block, "
            f"fingerprint {about.fingerprint}"
        )
    print_line(f"span: {seconds_text(summary.span_s)} in {len(summary.sessions)} sessions")
    rate = "none with a full block" if summary.hit_rate is None else f"{summary.hit_rate:.1%} of the blocks were stored"
    print_line(f"lookups: {summary.lookup_tokens} tokens, {summary.lookup_blocks} blocks; {rate}")
    print_line(f"loaded from: {counts_text(summary.hit_blocks)}; different blocks: {summary.distinct_blocks}")
    if summary.events_missing:
        print_line(f"note: {summary.events_missing} events are missing, because the recorder fell behind")
    if summary.torn_bytes:
        print_line(f"note: the last {bytes_text(summary.torn_bytes)} are torn or damaged and were left out")
