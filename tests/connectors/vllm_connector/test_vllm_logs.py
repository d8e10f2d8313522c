"""What an operator reads in vLLM's log, and under which request."""

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.connectors.vllm_connector.mini_vllm import BLOCK, Mini, request
from tests.connectors.vllm_connector.test_vllm_requests import settle
from tests.helpers.small_engine import MODEL, config
from tiercel import Cache
from tiercel.connectors.vllm.logs import join_log, start_line
from tiercel.connectors.vllm.plans import log_id
from tiercel.telemetry.logs import bind_request_id


@pytest.fixture
def ours() -> Iterator[logging.Logger]:
    logger = logging.getLogger("tiercel")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    logger.handlers.clear()
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logger.propagate = propagate


@pytest.fixture
def engines() -> tuple[logging.Logger, io.StringIO]:
    """An engine's logger with a handler and a format of its own."""
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(logging.Formatter("(engine) %(levelname)s %(message)s"))
    logger = logging.Logger("engine", logging.INFO)
    logger.addHandler(handler)
    return logger, lines


def test_tiercels_lines_stand_in_the_engines_log_with_their_request(
    ours: logging.Logger, engines: tuple[logging.Logger, io.StringIO]
) -> None:
    theirs, lines = engines
    join_log(theirs)
    join_log(theirs)
    child = logging.getLogger("tiercel.transfer.mover")
    child.info("opened %d%%", 5)
    with bind_request_id("cmpl-7%s"):
        child.warning("move failed: %s", "short read")
    child.debug("left out")
    assert lines.getvalue().splitlines() == [
        "(engine) INFO opened 5%",
        "(engine) WARNING move failed: short read request_id=cmpl-7%s",
    ]


def test_whoever_configured_tiercels_log_keeps_it(
    ours: logging.Logger, engines: tuple[logging.Logger, io.StringIO]
) -> None:
    theirs, lines = engines
    own = io.StringIO()
    ours.addHandler(logging.StreamHandler(own))
    join_log(theirs)
    logging.getLogger("tiercel.cache").error("here")
    assert (own.getvalue(), lines.getvalue()) == ("here\n", "")


def test_an_engine_without_handlers_changes_nothing(ours: logging.Logger) -> None:
    join_log(logging.Logger("engine"))
    assert not ours.handlers


def test_the_start_line_names_tiers_directories_fingerprint_and_fallbacks(tmp_path: Path) -> None:
    settings = config(tmp_path, host=64, disk=256)
    with Cache.open(MODEL, settings) as cache:
        line = start_line(cache, settings)
        status = cache.stats()
    assert "keeps small: blocks of 16 tokens" in line
    assert "; host 64 blocks (" in line
    assert f"; disk 256 blocks (0.0 GiB) in {tmp_path}, 0 found there; " in line
    assert line.endswith(f"; fingerprint {status.fingerprint}; fallbacks: {'; '.join(status.notes) or 'none'}")


def test_stores_staging_and_loads_go_by_vllms_request_id(tmp_path: Path) -> None:
    with Cache.open(MODEL, config(tmp_path, host=64, disk=256)) as cache:
        mini = Mini(cache)
        first = request("cmpl-first", 10 * BLOCK + 1)
        mini.run(first)
        assert {ticket.request_id for ticket in mini.shared.stores["cmpl-first"]} == {"cmpl-first"}
        settle(mini)
    with Cache.open(MODEL, config(tmp_path, host=64, disk=256)) as cache:
        mini = Mini(cache)
        again = request("cmpl-again", 10 * BLOCK + 1)
        mini.add(again)
        assert mini.ask(again) is None
        tracked = mini.scheduler._requests.get("cmpl-again")
        assert tracked is not None
        assert tracked.staging is not None
        assert tracked.staging.request_id == "cmpl-again"
        while (external := mini.ask(again)) is None:
            mini.step()
        mini.admit(again, external)
        mini.worker.load(mini.scheduler.build_plan(_nothing()))
        assert mini.shared.loads["cmpl-again"].ticket.request_id == "cmpl-again"
        while again.waits_for_load:
            mini.step()


def _nothing() -> object:
    cached = SimpleNamespace(req_ids=[], new_block_ids=[], resumed_req_ids=set())
    return SimpleNamespace(num_scheduled_tokens={}, scheduled_new_reqs=[], scheduled_cached_reqs=cached)


@pytest.mark.parametrize("name", ["x" * 10_000, "odd \udc80 name"])
def test_a_request_id_that_a_client_chose_badly_is_served_all_the_same(name: str) -> None:
    with Cache.open(MODEL, config(host=64)) as cache:
        mini = Mini(cache)
        assert mini.run(request(name, 4 * BLOCK + 1)) == 0
        (ticket,) = mini.shared.stores[name]
        assert ticket.request_id == log_id(name)
        settle(mini)
        assert mini.run(request(name + "2", 4 * BLOCK + 1)) == 4 * BLOCK
