"""WEKA's agent sessions and a cache's own recordings."""

import gzip
import math
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from tests.helpers.trace_samples import shared_blocks, write_rows
from tiercel.errors import FormatError
from tiercel.telemetry.recording import (
    FRAME_HEAD,
    MAGIC,
    NO_RUN,
    GapRecord,
    LookupRecord,
    Record,
    RecordingAbout,
    SessionRecord,
    StoreRecord,
)
from tiercel.telemetry.recording_summary import summarise_recording
from tiercel.tune.traces import NO_REQUEST, ReadOptions, Trace, read_trace


def weka_request(t: float, ids: list[int], *, took: float = 1.0, rest: int = 5) -> dict[str, object]:
    return {"t": t, "type": "n", "model": "m", "in": 64 * len(ids) + rest, "out": 10, "hash_ids": ids, "api_time": took}


def weka_session(name: str, *requests: dict[str, object], scope: str = "local") -> dict[str, object]:
    return {"id": name, "models": ["m"], "block_size": 64, "hash_id_scope": scope, "requests": list(requests)}


def agent_session(name: str) -> dict[str, object]:
    """A turn from 0 to 1 s; sub-agents from 2 to 9 and 3 to 12 s; a turn at 15 s; one at 20 s, before the last has ended."""
    first = {"t": 2, "type": "subagent", "agent_id": "x", "requests": [weka_request(2, [1, 7], took=7)]}
    second = {"t": 3, "type": "subagent", "requests": [weka_request(3, [8]), weka_request(4, [8, 9], took=8)]}
    return weka_session(
        name, weka_request(0, [1]), first, second, weka_request(15, [1, 2], took=9), weka_request(20, [1, 2, 3])
    )


def test_an_agents_requests_wait_for_what_ended_last_before_them(tmp_path: Path) -> None:
    (tmp_path / "session.json").write_bytes(msgspec.json.format(msgspec.json.encode(agent_session("a")), indent=1))
    trace = read_trace(tmp_path / "session.json")
    assert trace.tokens_per_block == 64
    assert trace.arrivals_s.tolist() == [0, 2, 3, 4, 15, 20]
    assert trace.after.tolist() == [NO_REQUEST, 0, 0, 2, 3, 4]
    assert trace.delays_s.tolist() == [0, 1, 2, 0, 3, 0]
    assert trace.sessions.tolist() == [0, 1, 2, 2, 0, 0]
    assert shared_blocks(trace)[0] == [1, 1, 0, 0, 1, 1]
    assert trace.num_blocks_named.tolist() == [1, 2, 1, 2, 2, 3]


def test_local_ids_mean_nothing_outside_their_session_and_global_ones_do(tmp_path: Path) -> None:
    for scope, expected in (("local", 0), ("global", 1)):
        sessions = (weka_session(name, weka_request(index, [1]), scope=scope) for index, name in enumerate("ab"))
        trace = read_trace(write_rows(tmp_path / "sessions.jsonl", *sessions))
        assert shared_blocks(trace)[0][1] == expected


def test_a_session_that_was_recorded_twice_is_read_once_from_whatever_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "0001.json", agent_session("a"))
    write_rows(tmp_path / "0002.json", agent_session("b"))
    (tmp_path / "0003.json.gz").write_bytes(gzip.compress(msgspec.json.encode(weka_session("c", weka_request(0, [4])))))
    (tmp_path / "README.md").write_text("sessions of agents")
    trace = read_trace(tmp_path)
    assert trace.num_requests == 7
    assert trace.num_sessions == 4
    assert any("1 sessions had the same requests" in note for note in trace.notes)


def test_sessions_begin_at_random_times_of_a_stated_rate(tmp_path: Path) -> None:
    sessions = (weka_session(str(number), weka_request(0, [number])) for number in range(400))
    path = write_rows(tmp_path / "sessions.jsonl", *sessions)
    trace = read_trace(path)
    assert trace.span_s == pytest.approx(399 * 120, rel=0.2)
    assert any("one every 120 s on average, seed 0" in note for note in trace.notes)
    assert read_trace(path, options=ReadOptions(arrivals_per_s=2)).span_s == pytest.approx(200, rel=0.2)


def test_sessions_of_two_block_sizes_are_refused(tmp_path: Path) -> None:
    other = weka_session("b", weka_request(1, [1])) | {"block_size": 32}
    path = write_rows(tmp_path / "sessions.jsonl", weka_session("a", weka_request(0, [1])), other)
    with pytest.raises(FormatError, match=r"line 2, block_size = 32: must be 64"):
        read_trace(path)


def recording(path: Path, *records: Record, tail: bytes = b"") -> Path:
    payloads = [msgspec.msgpack.encode(record) for record in records]
    frames = [FRAME_HEAD.pack(len(payload), zlib.crc32(payload)) + payload for payload in payloads]
    path.write_bytes(MAGIC + b"".join(frames) + tail)
    return path


def begun(started_at: float, tokens_per_block: int = 16) -> SessionRecord:
    about = RecordingAbout(fingerprint="ab", model="m", tokens_per_block=tokens_per_block, block_bytes=1)
    return SessionRecord(started_at=started_at, about=about)


def lookup(time_s: float, keys: list[int], base: tuple[int, int] = (NO_RUN, 0), rest: int = 3) -> LookupRecord:
    named = np.array(keys, "<u8").tobytes()
    tokens = 16 * (len(keys) + base[1]) + rest
    return LookupRecord(int(time_s * 1e6), *base, keys=named, num_tokens=tokens, matched_blocks=0, hits=())


def read_recorded(path: Path) -> Trace:
    trace = read_trace(path)
    assert any("does not say how long answers were" in note for note in trace.notes)
    return trace


def test_a_recordings_lookups_are_requests_over_all_its_sessions(tmp_path: Path) -> None:
    path = recording(
        tmp_path / "lookups.rec",
        begun(1000.0),
        lookup(0.5, [2**64 - 1, 2]),
        StoreRecord(600_000, 0, 2, keys=b"", num_tokens=35, first_block=0),
        lookup(1.5, [3], (0, 2)),
        GapRecord(7),
        begun(2000.0),
        lookup(1.0, [2**64 - 1, 5]),
        tail=b"torn",
    )
    trace = read_recorded(path)
    assert trace.arrivals_s.tolist() == [0, 1, 1000.5]
    assert trace.input_tokens.tolist() == [35, 51, 35]
    assert shared_blocks(trace) == [[2, 2, 1], [2, 3, 1], [1, 1, 2]]
    assert any("7 events are missing" in note for note in trace.notes)
    assert any("last 4 bytes are torn" in note for note in trace.notes)
    assert any("2 sessions" in note for note in trace.notes)


def test_sessions_of_a_recording_follow_each_other_when_the_clock_was_set_back(tmp_path: Path) -> None:
    path = recording(
        tmp_path / "lookups.rec", begun(1000.0), lookup(0.5, [1]), lookup(9.5, [2]), begun(400.0), lookup(1.0, [3])
    )
    trace = read_recorded(path)
    assert trace.arrivals_s.tolist() == [0, 9, 10]
    assert any("of 1 of the sessions the clock says" in note for note in trace.notes)
    assert not any("sorted by time" in note for note in trace.notes)


def test_a_recording_without_a_session_is_told(tmp_path: Path) -> None:
    path = recording(tmp_path / "lookups.rec", lookup(0.5, [1]))
    for read in (read_trace, summarise_recording):
        with pytest.raises(FormatError, match=r"lookups\.rec begins with a LookupRecord, and no session has begun"):
            read(path)


@pytest.mark.parametrize(
    "records",
    [
        (begun(math.nan),),
        (begun(math.inf),),
        (begun(-1.0),),
        (begun(0.0, tokens_per_block=0),),
        (begun(0.0, tokens_per_block=1 << 40),),
        (begun(0.0), replace(lookup(0.5, [1]), num_tokens=-64)),
        (begun(0.0), replace(lookup(0.5, [1]), num_tokens=2**64 - 1)),
        (begun(0.0), replace(lookup(0.5, [1]), matched_blocks=-1)),
        (begun(0.0), replace(lookup(0.5, [1]), hits=(("host", -1),))),
        (begun(0.0), lookup(-0.5, [1])),
        (begun(0.0), lookup(1e13, [1])),
        (begun(0.0), GapRecord(-1)),
    ],
)
def test_a_recording_of_numbers_that_cannot_be_is_told(tmp_path: Path, records: tuple[Record, ...]) -> None:
    path = recording(tmp_path / "lookups.rec", *records)
    for read in (read_trace, summarise_recording):
        with pytest.raises(
            FormatError, match=r"lookups\.rec has a record before byte \d+ that this version cannot read"
        ):
            read(path)


def test_sessions_of_a_cache_with_another_block_size_are_refused_by_name(tmp_path: Path) -> None:
    path = recording(tmp_path / "r", begun(0.0), lookup(0, [1]), begun(86_400.0, 32), lookup(1, [1]))
    with pytest.raises(FormatError, match=r"session of 1970-01-02 00:00:00\+00:00 UTC has blocks of 32 tokens, not 16"):
        read_trace(path)
    with pytest.raises(FormatError, match="has blocks of 16 tokens, not 64"):
        read_trace(path, options=ReadOptions(tokens_per_block=64))
