"""Structured logs and notes."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from tiercel.telemetry import logs


@pytest.fixture(autouse=True)
def restored_logger() -> Iterator[None]:
    logger = logging.getLogger("tiercel")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logger.propagate = propagate


def test_a_json_line_keeps_level_message_fields_and_request_id() -> None:
    stream = io.StringIO()
    logs.configure("DEBUG", "json", stream=stream)
    with logs.bind_request_id("req-7"):
        logging.getLogger("tiercel.transfer").info("moved %d blocks", 3, extra={"tier": "disk", "slots": {1}})
    line = json.loads(stream.getvalue())
    assert line["time"].endswith("Z")
    del line["time"]
    assert line == {
        "level": "info",
        "logger": "tiercel.transfer",
        "message": "moved 3 blocks",
        "tier": "disk",
        "slots": "{1}",
        "request_id": "req-7",
    }


def test_an_extra_field_cannot_replace_a_field_of_the_line() -> None:
    stream = io.StringIO()
    logs.configure("INFO", "json", stream=stream)
    logging.getLogger("tiercel").info("hello", extra={"level": "forged", "logger": "forged"})
    assert json.loads(stream.getvalue())["level"] == "info"


def test_a_human_line_ends_with_the_fields() -> None:
    stream = io.StringIO()
    logs.configure("INFO", "human", stream=stream)
    with logs.bind_request_id("req-7"):
        logging.getLogger("tiercel.cache").warning("slow", extra={"seconds": 2})
    assert stream.getvalue().endswith("WARNING tiercel.cache: slow seconds=2 request_id=req-7\n")


def test_a_human_line_stays_one_line_whatever_a_client_calls_its_request() -> None:
    stream = io.StringIO()
    logs.configure("INFO", "human", stream=stream)
    with logs.bind_request_id("evil\n2026-11-23 ERROR tiercel: forged \x1b[31m"):
        logging.getLogger("tiercel.cache").warning("slow")
    assert stream.getvalue().count("\n") == 1
    assert r"request_id='evil\n2026-11-23 ERROR tiercel: forged \x1b[31m'" in stream.getvalue()


def test_an_exception_keeps_its_traceback() -> None:
    stream = io.StringIO()
    logs.configure("INFO", "json", stream=stream)
    try:
        raise OSError("broken")
    except OSError:
        logging.getLogger("tiercel").exception("failed")
    assert "OSError: broken" in json.loads(stream.getvalue())["exception"]


def test_configuring_again_replaces_the_first_setting_and_obeys_the_level() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure("INFO", "json", stream=first)
    logs.configure("ERROR", "human", stream=second)
    logging.getLogger("tiercel").warning("quiet")
    logging.getLogger("tiercel").error("loud")
    assert first.getvalue() == ""
    assert "loud" in second.getvalue()
    assert "quiet" not in second.getvalue()


def test_an_unknown_format_or_level_changes_nothing() -> None:
    before = logging.getLogger("tiercel").handlers[:]
    with pytest.raises(ValueError, match="log format 'xml' is unknown"):
        logs.configure("INFO", "xml")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="LOUD"):
        logs.configure("LOUD", "json")
    assert logging.getLogger("tiercel").handlers == before


def test_a_note_is_logged_once_and_kept(caplog: pytest.LogCaptureFixture) -> None:
    kinds: list[str] = []
    notes = logs.Notes(logging.getLogger("tiercel.test"), kinds.append)
    with caplog.at_level(logging.WARNING, logger="tiercel.test"):
        notes.add("threads instead of io_uring", kind="some")
        notes.add("threads instead of io_uring", kind="some")
        notes.add("small pages", kind="some")
    assert kinds == ["some"] * 3, "each is counted, whether it is logged again or not"
    assert notes.texts() == ("threads instead of io_uring", "small pages")
    assert [record.message for record in caplog.records] == ["threads instead of io_uring", "small pages"]


def test_notes_are_bounded() -> None:
    notes = logs.Notes(logging.getLogger("tiercel.test"))
    for number in range(logs.NOTES_MAX + 10):
        notes.add(f"note {number}", kind="some")
    assert len(notes.texts()) == logs.NOTES_MAX
