"""What is written is read back: every block shared as before, and what a format cannot hold is said."""

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers.seeds import chosen_seed
from tests.helpers.trace_samples import random_trace, shared_blocks
from tiercel.errors import ConfigError, FormatError
from tiercel.tune.traces import (
    NO_SESSION,
    WRITTEN,
    ReadOptions,
    Trace,
    TraceBuilder,
    read_trace,
    with_tokens_per_block,
    write_trace,
)

SIZE = 4


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """Small traces with much sharing, ends of every kind, sessions and waits."""
    builder = TraceBuilder("t", tokens_per_block=SIZE)
    for number in range(draw(st.integers(1, 8))):
        path = draw(st.lists(st.integers(0, 2), max_size=5))
        missing = draw(st.integers(0, SIZE - 1)) if path else 0
        unnamed = draw(st.integers(0, 6)) if not missing else 0
        waits = number > 0 and draw(st.booleans())
        builder.add(
            path,
            arrival_s=draw(st.integers(0, 10_000)) / 1000,
            input_tokens=SIZE * len(path) - missing + unnamed,
            output_tokens=draw(st.integers(0, 9)),
            session=draw(st.sampled_from([None, "a", "b"])),
            after=draw(st.integers(0, number - 1)) if waits else -1,
            delay_s=draw(st.integers(0, 5000)) / 1000 if waits else 0.0,
        )
    return builder.build()


def there_and_back(trace: Trace, folder: Path, target: str) -> tuple[Trace, list[str]]:
    lost = write_trace(trace, folder / "out", target)
    return read_trace(folder / "out", target, options=ReadOptions(tokens_per_block=trace.tokens_per_block)), lost


@pytest.mark.parametrize("target", WRITTEN)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trace=traces())
def test_every_format_keeps_who_shares_how_many_full_blocks(target: str, trace: Trace, tmp_path: Path) -> None:
    back, _ = there_and_back(trace, tmp_path, target)
    if target == "aiperf-inputs":  # which has no times: its order is that of sessions
        assert sorted(back.input_tokens.tolist()) == sorted(trace.input_tokens.tolist())
        assert len(np.unique(back.without_partial_blocks().leaves)) == len(np.unique(unnamed_as_full(trace).leaves))
        return
    full, expected = back.without_partial_blocks(), trace.without_partial_blocks()
    if target == "token-ids":  # tokens behind the last named block are blocks of their own too
        expected = unnamed_as_full(trace)
    assert shared_blocks(full) == shared_blocks(expected)
    assert back.input_tokens.tolist() == trace.input_tokens.tolist()
    assert back.output_tokens.tolist() == trace.output_tokens.tolist()
    assert back.arrivals_s.tolist() == pytest.approx(trace.arrivals_s.tolist(), abs=1e-9)


def unnamed_as_full(trace: Trace) -> Trace:
    """Read the tokens of a trace plainly: a block is one with another if all tokens up to its end are the same."""
    builder = TraceBuilder("t", tokens_per_block=trace.tokens_per_block)
    names: dict[tuple[int, ...], int] = {}
    for request in range(trace.num_requests):
        tokens = trace.tokens(request).tolist()
        ends = range(trace.tokens_per_block, len(tokens) + 1, trace.tokens_per_block)
        path = [names.setdefault(tuple(tokens[:end]), len(names)) for end in ends]
        builder.add(path, arrival_s=request, input_tokens=len(tokens))
    return builder.build()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trace=traces())
def test_tiercels_own_file_keeps_everything(trace: Trace, tmp_path: Path) -> None:
    back, lost = there_and_back(trace, tmp_path, "tiercel")
    assert not lost
    for field in dataclasses.fields(Trace):
        ours, theirs = getattr(trace, field.name), getattr(back, field.name)
        assert np.array_equal(ours, theirs) if isinstance(ours, np.ndarray) else ours == theirs, field.name


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trace=traces())
def test_token_ids_keep_times_sessions_and_waits(trace: Trace, tmp_path: Path) -> None:
    back, _ = there_and_back(trace, tmp_path, "token-ids")
    for name in ("arrivals_s", "input_tokens", "output_tokens", "after", "delays_s"):
        assert getattr(back, name).tolist() == getattr(trace, name).tolist(), name
    ours, theirs = trace.sessions, back.sessions
    assert np.array_equal(ours == NO_SESSION, theirs == NO_SESSION)
    assert np.array_equal(ours[:, None] == ours, theirs[:, None] == theirs)


def test_bailian_keeps_sessions_and_the_partly_filled_blocks(tmp_path: Path) -> None:
    trace = random_trace(chosen_seed())
    back, lost = there_and_back(trace, tmp_path, "bailian")
    named = trace.sessions != NO_SESSION
    assert np.array_equal(
        trace.sessions[named][:, None] == trace.sessions[named], back.sessions[named][:, None] == back.sessions[named]
    )
    assert shared_blocks(back) == shared_blocks(trace)
    assert any(f"{int((~named).sum())} requests are of no session" in what for what in lost)


def test_what_mooncake_loses_is_said(tmp_path: Path) -> None:
    trace = random_trace(chosen_seed(), 60)
    back, lost = there_and_back(trace, tmp_path, "mooncake")
    assert shared_blocks(back) == shared_blocks(trace)
    assert [what.split()[0] for what in lost] == ["which", "that", "that"]
    assert any("blocks of 16 tokens, not 512" in what for what in lost)


def test_a_trace_of_one_size_is_written_in_another_without_loss_of_what_full_blocks_share(tmp_path: Path) -> None:
    trace = random_trace(chosen_seed(), 20, tokens_per_block=64)
    write_trace(with_tokens_per_block(trace, 16), tmp_path / "out.jsonl.gz", "bailian")
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()).startswith(b'{"chat_id"')
    back = with_tokens_per_block(read_trace(tmp_path / "out.jsonl.gz"), 64)
    assert shared_blocks(back.without_partial_blocks()) == shared_blocks(trace.without_partial_blocks())


def test_an_unknown_target_and_a_failed_write_leave_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = random_trace(1)
    with pytest.raises(ConfigError, match="must be one of"):
        write_trace(trace, tmp_path / "out", "weka")

    def interrupted(self: Trace, request: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trace, "tokens", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_trace(trace, tmp_path / "out", "token-ids")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["parents", "leaves", "after", "arrivals_s", "input_tokens", "sessions"])
def test_a_damaged_file_of_ours_is_refused(tmp_path: Path, name: str) -> None:
    trace = random_trace(chosen_seed())
    damaged = getattr(trace, name).copy()
    damaged[len(damaged) // 2] = 1 << 20 if name in ("parents", "leaves", "after", "arrivals_s") else -7
    write_trace(dataclasses.replace(trace, **{name: damaged}), tmp_path / "out", "tiercel")
    with pytest.raises(FormatError, match="is damaged"):
        read_trace(tmp_path / "out")
    whole = (tmp_path / "out").read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:100] + bytes(50) + whole[150:]):
        (tmp_path / "out").write_bytes(broken)
        with pytest.raises(FormatError):
            read_trace(tmp_path / "out")
