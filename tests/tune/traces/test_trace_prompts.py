"""Files that hold text: what is shared survives, what was written does not."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.trace_samples import shared_blocks, write_rows
from tiercel.errors import ConfigError, FormatError
from tiercel.tune.traces import NO_REQUEST, ReadOptions, load_tokenizer, read_trace, write_trace

SYSTEM = {"role": "system", "content": "You are a pirate called Redbeard. " * 4}
HELLO = {"role": "user", "content": "Tell me of the secret island"}
EPOCH_NS = 1_795_308_974 << 30
SECRETS = ("Redbeard", "secret island")


def chat(*messages: dict[str, Any], **rest: object) -> dict[str, object]:
    return {"model": "m", "messages": list(messages), **rest}


def test_a_longer_chat_begins_with_the_shorter_one(tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": [{"type": "text", "text": "It lies far west."}]}
    path = write_rows(
        tmp_path / "log.jsonl",
        chat(SYSTEM, HELLO, timestamp=100, max_tokens=20),
        {"timestamp": 101, "body": chat(SYSTEM, HELLO, answer, HELLO), "response": {"usage": {"completion_tokens": 5}}},
        chat(SYSTEM, {"role": "user", "content": "No"}, timestamp=102),
        {"timestamp": 103, "model": "m", "prompt": "Once upon a time there was a block"},
        {"timestamp": 104, "model": "other", "messages": [SYSTEM, HELLO]},
    )
    trace = read_trace(path)
    shared = shared_blocks(trace)
    assert shared[0][1] == shared[0][0] == trace.input_tokens[0] // 16
    assert 0 < shared[0][2] < shared[0][0]
    assert shared[0][3:] == [0, 0]
    assert trace.output_tokens.tolist() == [20, 5, 0, 0, 0]
    assert any("a token is a byte" in note for note in trace.notes)


def test_tools_and_images_are_part_of_what_must_be_equal(tmp_path: Path) -> None:
    def with_image(url: str) -> dict[str, object]:
        image = {"type": "image_url", "image_url": {"url": url}}
        return chat({"role": "user", "content": [image, {"type": "text", "text": "What is it? " * 9}]})

    tools = [{"type": "function", "function": {"name": "sail"}}]
    rows = [with_image("a"), with_image("b"), with_image("a"), {**with_image("a"), "tools": tools}]
    shared = shared_blocks(read_trace(write_rows(tmp_path / "log.jsonl", *rows)))
    assert shared[0][2] == shared[0][0]
    assert shared[0][1] < shared[0][0]
    assert shared[0][3] == 0


@pytest.mark.parametrize("target", ["mooncake", "bailian", "token-ids", "aiperf-inputs", "tiercel"])
def test_no_text_reaches_the_trace_or_a_file_made_of_it(tmp_path: Path, target: str) -> None:
    trace = read_trace(write_rows(tmp_path / "log.jsonl", chat(SYSTEM, HELLO), chat(HELLO)))
    write_trace(trace, tmp_path / "out", target)
    held = (tmp_path / "out").read_bytes() + repr(dataclasses.asdict(trace)).encode()
    assert not any(secret.encode() in held for secret in SECRETS)
    assert sorted(set(trace.parents.tolist())) == sorted({-1, *range(trace.num_blocks)} & set(trace.parents.tolist()))


def test_no_text_is_in_what_is_said_of_a_wrong_row(tmp_path: Path) -> None:
    for wrong in (
        {"messages": "my secret island"},
        {"messages": [{"role": "user", "content": 5}], "prompt": "my secret island"},
        {"prompt": ["my secret island", 7]},
        {"text": "my secret island"},
    ):
        path = write_rows(tmp_path / "log.jsonl", chat(HELLO), wrong)
        with pytest.raises(FormatError, match=r"log\.jsonl, line 2") as caught:
            read_trace(path)
        assert not any(secret in str(caught.value) for secret in SECRETS)


def test_text_is_tokenised_by_a_tokenizer_json(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[UNK]": 0, "ahoy": 1, "there": 2}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    model.save(str(tmp_path / "tokenizer.json"))
    path = write_rows(tmp_path / "log.jsonl", {"prompt": "ahoy there " * 40})
    options = ReadOptions(tokenizer=load_tokenizer(tmp_path))
    trace = read_trace(path, options=options)
    assert trace.input_tokens.tolist() == [80]
    assert not any("byte" in note for note in trace.notes)


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"tokenizer\.json is no tokenizer\.json"):
        load_tokenizer(tmp_path / "tokenizer.json")


def aiperf_inputs(path: Path) -> Path:
    sessions = [
        {"session_id": "a", "payloads": [chat(SYSTEM, max_completion_tokens=8), chat(SYSTEM, HELLO)]},
        {"session_id": "b", "payloads": [chat(SYSTEM, HELLO)]},
    ]
    return write_rows(path / "inputs.json", {"data": sessions})


def test_aiperf_inputs_are_sessions_whose_turns_follow_each_other(tmp_path: Path) -> None:
    trace = read_trace(aiperf_inputs(tmp_path))
    assert trace.num_requests == 3
    assert trace.num_sessions == 2
    assert sorted(trace.after.tolist()) == [NO_REQUEST, NO_REQUEST, 0]
    shared = shared_blocks(trace)
    turn = int(trace.after.argmax())
    assert shared[0][turn] == shared[0][0] > 5


def aiperf_record(session: str, start_s: float, **rest: object) -> dict[str, object]:
    about: dict[str, object] = {
        "request_start_ns": EPOCH_NS + int(start_s * 1e9),
        "request_end_ns": EPOCH_NS + int((start_s + 1) * 1e9),
    }
    about |= {"conversation_id": session, "x_correlation_id": f"x{session}", "turn_index": 0} | rest
    metrics: dict[str, object] = {"input_sequence_length": {"value": 40, "unit": "tokens"}}
    metrics |= {
        "output_sequence_length": {"value": 6, "unit": "tokens"},
        "inter_chunk_latency": {"value": [1.0], "unit": "ms"},
    }
    return {"metadata": about, "metrics": metrics}


def test_an_aiperf_export_has_the_times_and_the_inputs_beside_it_the_prompts(tmp_path: Path) -> None:
    failed = {**aiperf_record("b", 4), "error": {"code": 499, "type": "RequestCancellationError", "message": ""}}
    export = write_rows(
        tmp_path / "profile_export.jsonl",
        aiperf_record("a", 0, benchmark_phase="warmup"),
        aiperf_record("a", 10),
        aiperf_record("a", 14.5, turn_index=1),
        aiperf_record("b", 12),
        failed,
    )
    alone = read_trace(export)
    assert alone.arrivals_s.tolist() == [0, 2, 4.5]
    assert alone.input_tokens.tolist() == [40, 40, 40]
    assert alone.num_blocks_seen.sum() == 0
    assert any("what 3 requests share is not known" in note for note in alone.notes)
    assert any("2 requests of the warm-up" in note for note in alone.notes)
    aiperf_inputs(tmp_path)
    joined = read_trace(tmp_path)
    assert joined.after.tolist() == [NO_REQUEST, NO_REQUEST, 0]
    assert joined.delays_s.tolist() == [0, 0, 3.5]
    assert joined.output_tokens.tolist() == [6, 6, 6]
    assert shared_blocks(joined)[1][2] == joined.num_blocks_named[1]
