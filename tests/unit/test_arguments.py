"""What is said of arguments that do not fit: what was given, and what is needed."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.helpers.small_engine import MODEL, config
from tiercel import Cache, EngineMemory

AXES = "block token head dim"


@pytest.fixture(scope="module")
def cache() -> Iterator[Cache]:
    with Cache.open(MODEL, config(None)) as cache:
        yield cache


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        (np.zeros(32, np.float32), "tokens: ndarray of float32, shape (32,);"),
        (np.zeros(32, np.uint32), "tokens: ndarray of uint32, shape (32,);"),
        (np.zeros(32, ">i4"), "tokens: ndarray of >i4, shape (32,);"),
        (np.zeros((2, 16), np.int32), "tokens: ndarray of int32, shape (2, 16);"),
        (np.zeros(64, np.int32)[::2], "tokens: ndarray of int32, shape (32,), not contiguous;"),
        ((1, 2, 3), "tokens: tuple;"),
        ("one two", "tokens: str;"),
    ],
    ids=["float", "unsigned", "other byte order", "two axes", "strided", "tuple", "text"],
)
def test_tokens_of_a_wrong_kind_are_named_with_what_is_needed(cache: Cache, tokens: Any, told: str) -> None:
    started = cache.sequence()
    for give in (cache.sequence, started.extend):
        with pytest.raises(TypeError, match=re.escape(told)) as raised:
            give(tokens)
        assert "one axis of int32 or int64, C-contiguous" in str(raised.value)
    assert started.num_tokens == 0


@pytest.mark.parametrize(
    ("bad", "error", "told"),
    [
        (-1, ValueError, r"tokens\[70\] = -1: tokens must lie in \[0, 2\^31\)"),
        (2**31, ValueError, r"tokens\[70\] = 2147483648: "),
        (2**80, ValueError, r"tokens\[70\] = 1208925819614629174706176: "),
        ("7", TypeError, r"tokens\[70\] is a str; must be an int"),
        (7.0, TypeError, r"tokens\[70\] is a float; must be an int"),
        (True, TypeError, r"tokens\[70\] is a bool; must be an int"),
        (None, TypeError, r"tokens\[70\] is a NoneType; must be an int"),
    ],
)
def test_a_list_names_the_token_that_is_none_and_changes_nothing(
    cache: Cache, bad: Any, error: type[Exception], told: str
) -> None:
    tokens: list[Any] = list(range(100))
    tokens[70] = bad
    started = cache.sequence()
    for give in (cache.sequence, started.extend):
        with pytest.raises(error, match=told):
            give(tokens)
    assert started.num_tokens == 0


def test_an_extension_by_nothing_at_all_is_refused_as_one(cache: Cache) -> None:
    with pytest.raises(TypeError, match="tokens: NoneType;"):
        cache.sequence().extend(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("given", "kind"), [(None, "None"), (5, "an? int"), (iter(()), "a tuple_iterator")])
def test_memory_of_no_list_of_arrays_is_refused_by_name(cache: Cache, given: object, kind: str) -> None:
    with pytest.raises(TypeError, match=f"^keys: must be a list of arrays, .* not {kind}$"):
        EngineMemory.from_arrays(cache.geometry, given, axes=AXES)  # type: ignore[arg-type]
    if given is not None:
        keys = [np.zeros((4, 16, 2, 16), np.uint16)] * MODEL.num_layers
        with pytest.raises(TypeError, match=f"^values: must be a list of arrays, .* not {kind}$"):
            EngineMemory.from_arrays(cache.geometry, keys, given, axes=AXES)  # type: ignore[arg-type]
