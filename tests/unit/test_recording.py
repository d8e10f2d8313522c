"""Recordings: what is written is read back, whatever happens to the file."""

import json
import os
import random
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import Cache, ConfigError, Sequence, cli
from tiercel.errors import FormatError
from tiercel.telemetry import recorder as recorder_module
from tiercel.telemetry.recorder import Recorder
from tiercel.telemetry.recording import (
    MAGIC,
    GapRecord,
    Recorded,
    RecordedLookup,
    RecordedStore,
    RecordingAbout,
    SessionRecord,
    Tail,
    read_recording,
)
from tiercel.telemetry.recording_summary import summarise_recording

ABOUT = RecordingAbout(fingerprint="ab" * 16, model="tiny", tokens_per_block=16, block_bytes=4096)
Notes = list[str]


def events_of(path: Path) -> list[Recorded]:
    return [event for event in read_recording(path) if not isinstance(event, SessionRecord)]


def names_of(sequence: Sequence, num_blocks: int | None = None) -> NDArray[np.uint64]:
    return np.ascontiguousarray(sequence.keys(0, num_blocks)[:, :8]).view(np.uint64)[:, 0]


def new_sequence(num_blocks: int, seed: int, *, extra: int = 0) -> Sequence:
    return Sequence(b"r" * 16, 16, tokens(num_blocks, seed, extra=extra))


@pytest.fixture
def counts() -> Counter[str]:
    return Counter()


@pytest.fixture
def notes() -> Notes:
    return []


Open = Callable[..., Recorder]


@pytest.fixture
def open_recorder(tmp_path: Path, counts: Counter[str], notes: Notes) -> Open:
    def count(outcome: str, num: int) -> None:
        counts[outcome] += num

    def opened(path: Path = tmp_path / "trace", bytes_max: int = 1 << 30) -> Recorder:
        return Recorder(path, ABOUT, bytes_max=bytes_max, count=count, note=notes.append)

    return opened


def test_a_random_tree_of_conversations_is_read_back_as_it_was(open_recorder: Open, tmp_path: Path) -> None:
    chosen = os.environ.get("TIERCEL_TEST_SEED")
    seed = int(chosen) if chosen else random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"TIERCEL_TEST_SEED={seed}\n")
    rng = np.random.default_rng(seed)
    histories = [tokens(40, seed=1)]
    expected: list[tuple[int, NDArray[np.uint64], int]] = []
    recorder = open_recorder()
    for _ in range(200):
        history = histories[rng.integers(len(histories))]
        kept = history[: int(rng.integers(0, len(history) + 1))]
        grown = np.concatenate([kept, rng.integers(0, 50_000, int(rng.integers(0, 700)), dtype=np.int32)])
        histories.append(grown)
        sequence = Sequence(b"r" * 16, 16, grown)
        recorder.lookup(sequence, 0, [], None)
        expected.append((len(grown), names_of(sequence), -1))
        if rng.random() < 0.5:
            recorder.store(sequence, 0, sequence.num_blocks)
            expected.append((len(grown), names_of(sequence), 0))
    recorder.close()
    events = events_of(tmp_path / "trace")
    assert len(events) == len(expected)
    for event, (num_tokens, keys, first_block) in zip(events, expected, strict=True):
        assert isinstance(event, RecordedLookup | RecordedStore)
        assert isinstance(event, RecordedStore) == (first_block == 0)
        assert event.num_tokens == num_tokens
        assert np.array_equal(event.keys, keys), f"seed {seed}"


def test_a_sequence_that_grows_costs_its_new_blocks_only(open_recorder: Open, tmp_path: Path) -> None:
    recorder = open_recorder()
    sequence = new_sequence(8192, 2)
    recorder.lookup(sequence, 0, [])
    for turn in range(20):
        sequence.extend(tokens(4, seed=100 + turn))
        recorder.lookup(sequence, sequence.num_blocks - 4, [("host", 1)])
    recorder.close()
    assert (tmp_path / "trace").stat().st_size < 8192 * 8 + 20 * (20 * 8 + 64) + 256


def test_a_torn_tail_at_any_byte_loses_the_last_event_only_and_is_cut_before_appending(
    open_recorder: Open, tmp_path: Path
) -> None:
    path = tmp_path / "trace"
    recorder = open_recorder()
    for seed in range(3):
        recorder.lookup(new_sequence(3, seed), 0, [])
    recorder.close()
    whole = path.read_bytes()
    two = next(end for end in range(len(whole), 0, -1) if len(_events_of_prefix(path, whole[:end])) == 2)
    for end in range(two, len(whole)):
        assert len(_events_of_prefix(path, whole[:end])) == 2
    tail = Tail()
    path.write_bytes(whole[:-1])
    assert len([e for e in read_recording(path, tail) if isinstance(e, RecordedLookup)]) == 2
    assert tail.torn_bytes == len(whole) - 1 - tail.end > 0
    again = open_recorder()
    again.lookup(new_sequence(3, 9), 0, [])
    again.close()
    events = list(read_recording(path))
    assert [type(event) for event in events] == [SessionRecord, *[RecordedLookup] * 2, SessionRecord, RecordedLookup]


def _events_of_prefix(path: Path, content: bytes) -> list[Recorded]:
    path.write_bytes(content)
    return events_of(path)


def test_a_flipped_bit_ends_the_reading_before_it(open_recorder: Open, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    recorder = open_recorder()
    for seed in range(3):
        recorder.lookup(new_sequence(3, seed), 0, [])
    recorder.close()
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert len(events_of(path)) == 2


def test_both_files_together_stay_within_the_bound_and_each_can_be_read_alone(
    open_recorder: Open, tmp_path: Path
) -> None:
    path, older = tmp_path / "trace", tmp_path / "trace.1"
    recorder = open_recorder(bytes_max=1 << 16)
    sequence = new_sequence(40, 3)
    for turn in range(400):
        sequence.extend(tokens(10, seed=turn))
        recorder.lookup(sequence, 0, [])
    recorder.close()
    one_event = 8 * sequence.num_blocks + 64
    assert path.stat().st_size + older.stat().st_size <= (1 << 16) + 2 * one_event
    last = events_of(path)[-1]
    assert isinstance(last, RecordedLookup)
    assert np.array_equal(last.keys, names_of(sequence))
    assert len(events_of(older)) > 0


def test_what_the_queue_has_no_room_for_is_dropped_counted_and_marked(
    open_recorder: Open, tmp_path: Path, counts: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "QUEUE_EVENTS_MAX", 4)
    entered, proceed = threading.Event(), threading.Event()

    class Slow:
        num_tokens = 0
        num_blocks = 0

        def keys(self, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
            entered.set()
            proceed.wait(10)
            return np.empty((0, 16), np.uint8)

        def parent_key(self, block: int) -> bytes:
            raise AssertionError("a sequence without blocks has no mark")

    recorder = open_recorder()
    recorder.lookup(Slow(), 0, [])
    assert entered.wait(10)
    for seed in range(9):
        recorder.lookup(new_sequence(1, seed), 0, [])
    proceed.set()
    recorder.close()
    assert counts == {"written": 5, "dropped": 5}
    assert [event.num_events for event in events_of(tmp_path / "trace") if isinstance(event, GapRecord)] == [5]


def test_a_disk_that_is_full_ends_the_recording_and_says_so(
    open_recorder: Open, notes: Notes, counts: Counter[str]
) -> None:
    recorder = open_recorder()
    recorder._file.close()
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123 (unbuffered, as the recorder's own file)
        recorder._file = full
        recorder.lookup(new_sequence(1, 1), 0, [])
        recorder._thread.join(10)
    assert notes
    assert "No space left" in notes[0]
    recorder.lookup(new_sequence(1, 2), 0, [])
    recorder.close()
    assert counts == {"dropped": 2}, "neither was written"


@pytest.mark.parametrize("name", ["trace", "trace.1"])
def test_a_short_file_and_one_in_the_place_of_the_older_part_are_left_alone_too(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"4711\n")
    with pytest.raises(ConfigError, match=f"{name} is no recording"):
        Cache.open(MODEL, config(host=8, record_path=str(tmp_path / "trace")))
    assert (tmp_path / name).read_bytes() == b"4711\n"


@pytest.mark.parametrize(
    ("content", "reason"), [(b"something else", "no recording"), (MAGIC[:-1] + b"\x09" + b"x" * 20, "version 9")]
)
def test_another_file_is_refused_and_left_alone(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "trace"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=reason):
        list(read_recording(path))
    with pytest.raises(ConfigError, match="record_path"):
        Cache.open(MODEL, config(host=8, record_path=str(path)))
    assert path.read_bytes() == content


def test_two_caches_may_not_record_to_one_file(open_recorder: Open, tmp_path: Path) -> None:
    recorder = open_recorder()
    with pytest.raises(ConfigError, match="another cache records to it"):
        Cache.open(MODEL, config(host=8, record_path=str(tmp_path / "trace")))
    recorder.close()


def test_a_cache_records_its_lookups_and_stores_and_the_command_line_sums_them_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trace"
    with Cache.open(MODEL, config(host=64, record_path=str(path))) as cache:
        engine = SmallEngine(cache.geometry)
        sequence = cache.sequence(tokens(10, seed=1, extra=5))
        cache.lookup(sequence, request_id="req-1").release()
        cache.store(sequence, engine.fill(sequence), request_id="req-1").wait(10)
        cache.lookup(cache.sequence(tokens(10, seed=1))).release()
        keys = names_of(sequence)
    lookup, store, hit = events_of(path)
    assert isinstance(lookup, RecordedLookup)
    assert isinstance(store, RecordedStore)
    assert isinstance(hit, RecordedLookup)
    assert (lookup.request_id, store.request_id, hit.request_id) == ("req-1", "req-1", None)
    assert (lookup.num_tokens, lookup.matched_blocks, store.first_block) == (165, 0, 0)
    assert (hit.matched_blocks, hit.hit_blocks) == (10, {"host": 10})
    assert np.array_equal(hit.keys, keys)
    assert lookup.time_s <= store.time_s <= hit.time_s
    summary = summarise_recording(path)
    assert (summary.lookups, summary.stores, summary.hit_rate, summary.distinct_blocks) == (2, 1, 0.5, 10)
    assert cli.main(["record", "info", str(path), "--json"]) == 0
    (session,) = json.loads(capsys.readouterr().out)["sessions"]
    assert session["about"]["tokens_per_block"] == 16
    assert cli.main(["record", "info", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "2 lookups and 1 stores" in shown
    assert "50.0% of the blocks were stored" in shown
    with path.open("ab") as file:
        file.write(b"torn")
    assert cli.main(["record", "info", str(path), "--json"]) == 0
    assert '"torn_bytes": 4' in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["", ".1"])
def test_a_pipe_is_refused_and_never_waited_for(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lookups.rec"
    pipe = path.with_name(path.name + suffix)
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match=rf"^record_path = .*{pipe.name} is no regular file"):
        Cache.open(MODEL, config(host=8, record_path=str(path)))
    for command in (["record", "info"], ["trace", "info"], ["trace", "info", "--format", "recording"]):
        assert cli.main([*command, str(pipe)]) == 1
        assert "is a pipe" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["/", "."])
def test_a_directory_named_as_the_file_is_refused_by_the_settings_name(place: str) -> None:
    with pytest.raises(ConfigError, match=r"^record_path = .*: cannot be recorded to \(Is a directory\)"):
        Cache.open(MODEL, config(host=4, record_path=place))


@pytest.mark.parametrize("moved", [True, False])
def test_a_file_that_is_moved_or_removed_is_begun_anew_and_what_was_moved_is_whole(
    open_recorder: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    monkeypatch.setattr(recorder_module, "_LOOK_INTERVAL_S", 0.0)
    monkeypatch.chdir(tmp_path)
    path, aside = tmp_path / "trace", tmp_path / "aside"
    recorder = open_recorder(Path("trace"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recorder.lookup(new_sequence(3, seed=1), 0, [], None)
    while not recorder._queue.empty() or len(events_of(path)) < 1:
        time.sleep(0.01)
    path.replace(aside) if moved else path.unlink()
    recorder.lookup(new_sequence(3, seed=2), 0, [], None)
    recorder.close()
    assert len(events_of(path)) == 1
    if moved:
        assert len(events_of(aside)) == 1


def test_a_recording_whose_directory_goes_away_ends_with_a_note(
    open_recorder: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: Counter[str], notes: Notes
) -> None:
    monkeypatch.setattr(recorder_module, "_LOOK_INTERVAL_S", 0.0)
    folder = tmp_path / "folder"
    folder.mkdir()
    recorder = open_recorder(folder / "trace")
    shutil.rmtree(folder)
    recorder.lookup(new_sequence(3, seed=1), 0, [], None)
    recorder._thread.join(10)  # before `close`, whose mark would be counted among what is dropped
    recorder.close()
    assert +counts == {"dropped": 1}
    assert "No such file or directory" in notes[0]
