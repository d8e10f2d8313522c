"""What a new user gives by mistake is named, with file, line, key, value and remedy; what is only torn is read up to there."""

import gzip
import re
from pathlib import Path

import msgspec
import pytest

from tests.helpers.trace_samples import write_rows
from tiercel.errors import ConfigError, FormatError
from tiercel.tune.traces import ReadOptions, read_trace

GOOD = {"timestamp": 0, "input_length": 1024, "output_length": 1, "hash_ids": [1, 2]}
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"timestamp": -1}, "timestamp = -1: expected `float` >= 0"),
        ({"timestamp": "now"}, "timestamp = 'now': expected `float | null`, got `str`"),
        ({"timestamp": 1e300}, "timestamp = 1e+300: expected `float` <= 1"),
        ({"input_length": -5}, "input_length = -5: expected `int` >= 0"),
        ({"input_length": 2**70}, "input_length = 1180591620717411303424: "),
        ({"input_length": 10.5}, "input_length = 10.5: expected `int`"),
        ({"hash_ids": [1, None]}, "hash_ids[1] = None: expected `int`"),
        ({"hash_ids": [1, -2]}, "hash_ids[1] = -2: expected `int` >= 0"),
        ({"hash_ids": [1, 2**64]}, "hash_ids = 18446744073709551616: must be an integer of 0 to 2^64 - 1"),
        ({"hash_ids": [1, 2, 3]}, "number of hash_ids = 3: are more blocks of 512 tokens than a prompt of 1024"),
        ({"input_length": 1000, "hash_ids": [0] * 63}, "number of hash_ids = 63: are more blocks of 512 tokens"),
        ({"input_length": None}, "input_length = None: expected `int`, got `null`"),
    ],
)
def test_a_wrong_row_is_told_with_line_key_and_value(tmp_path: Path, wrong: dict[str, object], told: str) -> None:
    path = write_rows(tmp_path / "trace.jsonl", GOOD, GOOD | wrong, GOOD)
    with pytest.raises(FormatError, match=re.escape(f"{path}, line 2, {told}")) as caught:
        read_trace(path)
    assert "(read as mooncake)" in str(caught.value)


def test_a_row_with_blocks_of_another_size_tells_which_one_fits(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "trace.jsonl", GOOD | {"input_length": 1000, "hash_ids": list(range(63))})
    with pytest.raises(FormatError, match="if its blocks hold 16, give --tokens-per-block 16"):
        read_trace(path)
    assert read_trace(path, options=ReadOptions(tokens_per_block=16)).num_references == 63


@pytest.mark.parametrize("named", [None, "mooncake"])
def test_a_row_of_bailians_format_in_mooncakes_is_told_with_what_is_expected(tmp_path: Path, named: str | None) -> None:
    """Its few blocks would pass for few of Mooncake's, and its seconds for milliseconds."""
    row = {"chat_id": 2, "parent_chat_id": -1, "timestamp": 61.1, "input_length": 40, "type": "text", "hash_ids": [7]}
    path = write_rows(tmp_path / "trace.jsonl", GOOD, row)
    told = f"{path}, line 2, parent_chat_id = -1: is of a row in Bailian's format, with seconds and blocks of 16 tokens; expected"
    with pytest.raises(FormatError, match=re.escape(told)):
        read_trace(path, named)


@pytest.mark.parametrize("text", ['{"timestamp": NaN}', "{'timestamp': 1}", '{"timestamp": 1e999}', "\0\0\0", "[1, 2"])
def test_a_line_that_is_no_json_is_told(tmp_path: Path, text: str) -> None:
    path = write_rows(tmp_path / "trace.jsonl", GOOD)
    path.write_bytes(path.read_bytes() + text.encode() + b"\n" + path.read_bytes())
    with pytest.raises(FormatError, match=r"trace\.jsonl, line 2 is no JSON.*correct or remove the line|binary"):
        read_trace(path)


def test_a_missing_key_is_told(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "trace.jsonl", GOOD, {"timestamp": 1, "hash_ids": []})
    with pytest.raises(FormatError, match=r"line 2.*missing required field `input_length`"):
        read_trace(path)


@pytest.mark.parametrize(
    "row", ["2023-11-16,1.5,2", "2023-11-16,nan,2", "2023-11-16,-1,2", "yesterday,1,2", "-5,1,2", "7,1"]
)
def test_a_wrong_cell_is_told(tmp_path: Path, row: str) -> None:
    path = tmp_path / "azure.csv"
    path.write_text(AZURE + "2023-11-15,1,1\n" + row + "\n7,1,1\n")
    with pytest.raises(FormatError, match=r"azure\.csv, line 3.*correct or remove"):
        read_trace(path)


def test_an_aligned_header_with_a_mark_and_carriage_returns_is_read(tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    path.write_bytes(b"\xef\xbb\xbf" + AZURE.encode().replace(b"\n", b"\r\n") + b"5,100,1\r\n\r\n3,50,1\r\n")
    trace = read_trace(path)
    assert trace.input_tokens.tolist() == [50, 100]
    assert any("1 requests stood behind later ones" in note for note in trace.notes)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (bytes(range(256)) * 10, "is binary and no trace"),
        (gzip.compress(b"\x7fELF" + bytes(100)), "is binary and no trace"),
        (b"hello world\n", "its columns are hello world"),
        (b'{"a": 1, "b": 2}\n', "its first object has a, b; name it with --format"),
        (b'[{"timestamp": 1}]\n', "is a JSON list"),
        (b'{"broken": \n', "begins with neither"),
        (AZURE.encode(), "holds no request"),
        (gzip.compress(b"x" * 100)[:-20], "cannot be decompressed"),
        (b"TIERREC\x63", "is a recording of version 99"),
    ],
)
def test_a_file_that_is_no_trace_is_told_so(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "what"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=re.escape(told)) as caught:
        read_trace(path)
    assert str(path) in str(caught.value)


def test_a_torn_last_line_is_left_out_and_told(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "trace.jsonl", GOOD, GOOD)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    trace = read_trace(path)
    assert trace.num_requests == 1
    assert any("line 2, the last one, is torn" in note for note in trace.notes)
    path.write_bytes(whole[:-1])
    assert read_trace(path).num_requests == 2


def test_a_torn_last_row_of_a_table_is_left_out_and_told(tmp_path: Path) -> None:
    for torn in ("9,", "9,1", "9,1,"):
        (tmp_path / "azure.csv").write_text(AZURE + "5,100,1\n" + torn)
        trace = read_trace(tmp_path / "azure.csv")
        assert trace.num_requests == 1
        assert any("line 3, the last one, is torn" in note for note in trace.notes)


def test_a_torn_line_with_a_newline_is_no_tail(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "trace.jsonl", GOOD, GOOD)
    path.write_bytes(path.read_bytes()[:-20] + b"\n")
    with pytest.raises(FormatError, match="line 2 is no JSON"):
        read_trace(path)


def test_a_whole_last_line_of_another_kind_is_no_tail(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "trace.jsonl", GOOD)
    path.write_bytes(path.read_bytes() + b'{"input_length": 5}')
    with pytest.raises(FormatError, match="line 2"):
        read_trace(path)


def test_a_compressed_file_that_was_cut_off_is_read_up_to_there(tmp_path: Path) -> None:
    rows = b"".join(
        msgspec.json.encode(GOOD | {"timestamp": number, "hash_ids": [number]}) + b"\n" for number in range(9000)
    )
    path = tmp_path / "trace.jsonl.gz"
    path.write_bytes(gzip.compress(rows)[:-4000])
    trace = read_trace(path)
    assert 0 < trace.num_requests < 9000
    assert any("cut off behind line" in note for note in trace.notes)


def test_the_first_line_of_a_torn_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(msgspec.json.encode(GOOD)[:-3])
    with pytest.raises(FormatError, match="begins with neither"):
        read_trace(path)


def test_folders_without_sessions_and_missing_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="folder without a session"):
        read_trace(tmp_path)
    write_rows(tmp_path / "trace.jsonl", GOOD)
    with pytest.raises(FormatError, match="folder whose first file is of format mooncake"):
        read_trace(tmp_path)
    with pytest.raises(FormatError, match="a trace of format mooncake is a file"):
        read_trace(tmp_path, "mooncake")
    with pytest.raises(FileNotFoundError):
        read_trace(tmp_path / "nowhere")


def test_unknown_formats_and_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be one of dynamo, weka"):
        read_trace(tmp_path, "csv")
    for size in (0, -16, 24, 1 << 17):
        with pytest.raises(ConfigError, match="power of two"):
            ReadOptions(tokens_per_block=size)
    for rate in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="more than 0"):
            ReadOptions(arrivals_per_s=rate)


@pytest.mark.parametrize(
    "format", ["weka", "bailian", "dynamo", "aiperf-export", "aiperf-inputs", "token-ids", "prompts"]
)
def test_a_file_named_as_another_format_is_refused_by_its_first_row(tmp_path: Path, format: str) -> None:  # noqa: A002
    path = write_rows(tmp_path / "trace.jsonl", GOOD)
    with pytest.raises(FormatError, match=rf"trace\.jsonl.*read as {format}"):
        read_trace(path, format)
