"""What is said of arguments that do not fit: what was given, and what is needed."""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.helpers.small_engine import MODEL, SmallEngine, config, tokens
from tiercel import Cache, EngineMemory, Outcome, TierName
from tiercel.tiers.throttled import ThrottledTier, TierLimits

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


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("limit_tokens", 1.5, "limit_tokens = 1.5: must be an integer, or None for no limit"),
        ("engine_tokens", 1.5, "engine_tokens = 1.5: must be an integer"),
        ("first_block", "0", "first_block = '0': must be an integer"),
        ("first_block", 2**70, "first_block = 1180591620717411303424: must not be negative, and at most 2147483648"),
        ("timeout_s", "3", "timeout_s = '3': must be a number of seconds"),
        ("timeout_s", 10**400, "timeout_s = .*: must be a number of seconds"),
    ],
)
def test_a_number_that_is_none_is_named_and_starts_nothing(cache: Cache, name: str, value: object, told: str) -> None:
    engine, sequence = SmallEngine(cache.geometry), cache.sequence(tokens(4, seed=1))
    source, given = engine.fill(sequence), {name: value}
    calls: dict[str, Callable[..., object]] = {
        "lookup": lambda **given: cache.lookup(sequence, **given),
        "store": lambda **given: cache.store(sequence, source, **given),
    }
    with pytest.raises((TypeError, ValueError), match=f"^{told}$"):
        calls["lookup" if name in ("limit_tokens", "engine_tokens") else "store"](**given)
    assert cache.lookup(sequence).num_blocks == 0


def test_numbers_of_numpy_are_times_and_every_deadline_behind_them_is_kept() -> None:
    with Cache.open(MODEL, config(host=16)) as cache:
        engine, sequence = SmallEngine(cache.geometry), cache.sequence(tokens(4, seed=1))
        tiers = cache._dispatcher.transfer._tiers
        tiers[TierName.HOST] = ThrottledTier(tiers[TierName.HOST], TierLimits(latency_s=0.3))
        assert cache.store(sequence, engine.fill(sequence), timeout_s=np.float32(30)).wait(np.float32(10)).ok  # type: ignore[arg-type]
        ticket = cache.load(sequence, engine.blocks(0, 4), timeout_s=np.float64(0.05))
        assert ticket.wait(10).outcome is Outcome.DEADLINE


@pytest.mark.parametrize("bound_s", [math.inf, 1e300, 10**30])
def test_a_wait_longer_than_clocks_can_tell_has_the_tickets_own_bound(cache: Cache, bound_s: float) -> None:
    engine, sequence = SmallEngine(cache.geometry), cache.sequence(tokens(4, seed=2))
    ticket = cache.store(sequence, engine.fill(sequence))
    ticket.wait_source(bound_s)
    assert ticket.wait(bound_s).ok


@pytest.mark.parametrize(("bound_s", "error"), [("3", TypeError), (math.nan, ValueError)])
def test_a_wait_of_no_time_is_refused_by_name(cache: Cache, bound_s: Any, error: type[Exception]) -> None:
    engine, sequence = SmallEngine(cache.geometry), cache.sequence(tokens(4, seed=3))
    ticket = cache.store(sequence, engine.fill(sequence))
    for wait in (ticket.wait, ticket.wait_source):
        with pytest.raises(error, match=r"timeout_s = .*: must be a number of seconds"):
            wait(bound_s)
    assert ticket.wait(10).ok


@pytest.mark.parametrize(
    ("load", "told"),
    [
        ((1, 2), "a int is no lookup"),
        ((1, 2, 3), r"\(1, 2, 3\) is no load; give pairs"),
        (7, "7 is no load; give pairs"),
    ],
)
def test_a_load_that_is_no_pair_of_a_lookup_and_blocks_is_refused(cache: Cache, load: Any, told: str) -> None:
    with pytest.raises(TypeError, match=f"^{told}"):
        cache.launch([load])


def test_a_namespace_that_has_no_bytes_is_refused_by_name(cache: Cache) -> None:
    with pytest.raises(ValueError, match=r"^namespace = '\\ud800': must be text that UTF-8 has$"):
        cache.sequence(namespace="\ud800")
