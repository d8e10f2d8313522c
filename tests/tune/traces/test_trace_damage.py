"""Whatever stands in a file, its reading ends in a trace that holds together or in an error that names the file."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.helpers.seeds import chosen_seed
from tests.helpers.trace_files import SAMPLES
from tests.helpers.trace_samples import random_trace
from tiercel._native import trace_depths
from tiercel.errors import FormatError
from tiercel.tune.traces import (
    FORMATS,
    NO_REQUEST,
    Trace,
    read_trace,
    summarise_trace,
    with_tokens_per_block,
    write_trace,
)

ROUNDS = 60
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**63,
    2**64,
    10**40,
    1.5,
    1e308,
    "",
    "x",
    "NaN",
    [],
    [[]],
    {},
    {"a": 1},
    [None],
    ["a"],
)


def assert_holds_together(trace: Trace) -> None:
    numbers = np.arange(trace.num_requests)
    assert np.all(trace_depths(trace.parents) == trace.depths)
    assert np.all((trace.leaves >= -1) & (trace.leaves < trace.num_blocks))
    assert np.all(np.isfinite(trace.arrivals_s))
    assert np.all(np.diff(trace.arrivals_s) >= 0)
    assert trace.arrivals_s[0] == 0
    assert np.all((trace.after >= NO_REQUEST) & (trace.after < numbers))
    assert np.all((trace.delays_s >= 0) & (trace.input_tokens >= 0) & (trace.output_tokens >= 0))
    assert np.all((trace.num_blocks_named - 1) * trace.tokens_per_block < np.maximum(trace.input_tokens, 1))
    summarise_trace(with_tokens_per_block(trace, 2 * trace.tokens_per_block))


def read_or_refuse(path: Path, name: str) -> None:
    try:
        trace = read_trace(path, name)
    except FormatError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert_holds_together(trace)


def sample(name: str, folder: Path) -> bytes:
    if name == "tiercel":
        write_trace(random_trace(1), folder / "sample", "tiercel")
        return (folder / "sample").read_bytes()
    return SAMPLES[name]


def damaged_bytes(rng: random.Random, data: bytes) -> bytes:
    broken = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(broken))
        what = rng.randrange(4)
        if what == 0:
            broken[at] = rng.randrange(256)
        elif what == 1:
            del broken[at : at + rng.randrange(1, 30)]
        elif what == 2:
            broken[at:at] = rng.choice(
                (b"\0", b"\n", b"}", b'"', b"-", b"9999999999999999999999", b"e999", b"NaN", b"\xff", b",")
            )
        else:
            broken[at:] = b""
        if not broken:
            return b"x"
    return bytes(broken)


def odd_values(rng: random.Random, data: bytes) -> bytes:
    """Replace a value somewhere in one of the file's JSON objects."""
    rows = [msgspec.json.decode(line) for line in data.splitlines()]
    holder = rng.choice(rows)
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = rng.choice(keys)
        inner = holder[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.3:
            holder[key] = rng.choice(ODD_VALUES)
            return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        holder = inner


def hurt(path: Path, name: str, data: bytes, how: Callable[[random.Random, bytes], bytes]) -> None:
    rng = random.Random(chosen_seed())
    for _ in range(ROUNDS):
        path.write_bytes(how(rng, data))
        read_or_refuse(path, name)


def test_every_format_has_a_sample_that_is_read(tmp_path: Path) -> None:
    assert {*SAMPLES, "tiercel"} == set(FORMATS)
    for name in FORMATS:
        (tmp_path / "file").write_bytes(sample(name, tmp_path))
        found = "mooncake" if name == "mooncake-whole" else name
        assert read_trace(tmp_path / "file").num_requests == read_trace(tmp_path / "file", found).num_requests > 0
        assert_holds_together(read_trace(tmp_path / "file", name))


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_bytes_give_a_trace_or_an_error_with_the_files_name(tmp_path: Path, name: str) -> None:
    hurt(tmp_path / "file", name, sample(name, tmp_path), damaged_bytes)


@pytest.mark.parametrize("name", [name for name, data in SAMPLES.items() if data.startswith(b"{")])
def test_odd_values_give_a_trace_or_an_error_with_the_files_name(tmp_path: Path, name: str) -> None:
    hurt(tmp_path / "file", name, SAMPLES[name], odd_values)
