"""Traces as other systems leave them: byte order marks, damaged archives, pipes, hostile names, absurd sums."""

import gzip
import os
import random
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.helpers.trace_samples import write_rows
from tiercel import cli
from tiercel.errors import FormatError
from tiercel.tune.traces import read_trace, write_trace

ROW = {"timestamp": 0, "input_length": 1100, "output_length": 7, "hash_ids": [5, 6, 7]}
BOM = b"\xef\xbb\xbf"


def test_a_byte_order_mark_before_lines_or_a_document_is_passed_over(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "trace.jsonl", ROW, ROW)
    path.write_bytes(BOM + path.read_bytes())
    assert read_trace(path).num_requests == 2
    path.write_bytes(BOM + b'{\n"data": [{"session_id": "a", "payloads": [{"prompt": [1, 2]}]}]\n}\n')
    assert read_trace(path, "aiperf-inputs").num_requests == 1


@pytest.mark.parametrize("damage", ["trailing", "checksum"])
def test_a_damaged_archive_is_named_with_the_last_line_that_could_be_read(tmp_path: Path, damage: str) -> None:
    drawn = random.Random(4)
    rows = b"".join(msgspec.json.encode(ROW | {"timestamp": drawn.random()}) + b"\n" for _ in range(9000))
    data = bytearray(gzip.compress(rows))
    data[-6] ^= 0xFF if damage == "checksum" else 0
    path = tmp_path / "trace.jsonl.gz"
    path.write_bytes(bytes(data) + (b"junk" if damage == "trailing" else b""))
    with pytest.raises(FormatError, match=r"trace\.jsonl\.gz, line 9000 is the last that can be decompressed"):
        read_trace(path)


def test_a_pipe_is_refused_before_a_byte_of_it_is_lost(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="is a pipe, and a trace is read more than once"):
        read_trace(tmp_path / "pipe")


def test_a_session_that_adds_up_to_more_than_any_model_takes_is_refused(tmp_path: Path) -> None:
    turn = {"session_id": "a", "timestamp": 0, "input_length": 1 << 27, "output_length": 5, "hash_ids": []}
    with pytest.raises(FormatError, match=r"line 2, session_id = 'a': comes with the turns before it to 268435461"):
        read_trace(write_rows(tmp_path / "trace.jsonl", turn, turn))


def test_a_saved_trace_with_absurd_lengths_is_refused(tmp_path: Path) -> None:
    trace = read_trace(write_rows(tmp_path / "trace.jsonl", ROW))
    write_trace(replace(trace, input_tokens=np.array([1 << 60])), tmp_path / "saved", "tiercel")
    with pytest.raises(FormatError, match="more tokens than any model takes"):
        read_trace(tmp_path / "saved")


@pytest.mark.parametrize("name", [b"x\x1b[31m.jsonl", b"x\x80.jsonl"])
def test_a_file_of_any_name_becomes_a_trace_with_a_printable_one(
    tmp_path: Path, name: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / os.fsdecode(name)
    write_rows(path, ROW)
    trace = read_trace(path)
    assert trace.name.isprintable()
    write_trace(replace(trace, name=path.name.replace("\udc80", "\n")), tmp_path / "saved", "tiercel")
    assert read_trace(tmp_path / "saved").name.isprintable()
    assert cli.main(["trace", "info", str(path)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_what_a_hostile_file_holds_reaches_no_terminal_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trace.csv").write_bytes(b"\x1b[31mred\x1b]0;title\x07,b\n1,2\n")
    assert cli.main(["trace", "info", str(tmp_path / "trace.csv")]) == 1
    told = capsys.readouterr().err
    assert "?[31mred" in told
    assert "\x1b" not in told


def test_a_trace_written_to_a_device_leaves_the_device(tmp_path: Path) -> None:
    trace = read_trace(write_rows(tmp_path / "trace.jsonl", ROW))
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_trace(trace, tmp_path / "pipe", "mooncake")
        assert b'"input_length":1100' in os.read(reader, 1 << 12)
    finally:
        os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
