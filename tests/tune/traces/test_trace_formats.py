"""What each format's reader makes of a small file in that format."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.trace_samples import shared_blocks, write_rows
from tiercel.tune.traces import NO_REQUEST, NO_SESSION, ReadOptions, Trace, read_trace

CHAT = [{"role": "system", "content": "Be kind. " * 20}, {"role": "user", "content": "Hello"}]


def noted(trace: Trace, *words: str) -> bool:
    return any(all(word in note for word in words) for note in trace.notes)


def test_mooncake_rows_are_requests(tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "trace.jsonl",
        {"timestamp": 1000, "input_length": 1100, "output_length": 7, "hash_ids": [5, 6, 7]},
        {"timestamp": 2500, "input_length": 1024, "output_length": 8, "hash_ids": [5, 6]},
        {"timestamp": 2500, "input_length": 1024, "output_length": 9, "hash_ids": [9, 6]},
    )
    trace = read_trace(path)
    assert trace.tokens_per_block == 512
    assert trace.arrivals_s.tolist() == [0, 1.5, 1.5]
    assert trace.input_tokens.tolist() == [1100, 1024, 1024]
    assert trace.output_tokens.tolist() == [7, 8, 9]
    assert shared_blocks(trace) == [[3, 2, 0], [2, 2, 0], [0, 0, 2]]
    assert trace.num_sessions == 0
    assert not trace.notes


def test_a_mooncake_row_with_a_session_is_one_new_turn(tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "trace.jsonl",
        {"timestamp": 0, "input_length": 1024, "output_length": 512, "hash_ids": [1, 2], "session_id": "a"},
        {"timestamp": 10, "input_length": 1024, "output_length": 100, "hash_ids": [1, 2], "session_id": "b"},
        {"delay": 3000, "input_length": 600, "output_length": 50, "hash_ids": [3, 4], "session_id": "a"},
        {"delay": 1000, "input_length": 600, "output_length": 50, "hash_ids": [3, 4], "session_id": "b"},
        {"timestamp": 60_000, "input_length": 30, "output_length": 1, "hash_ids": [8], "session_id": "a"},
    )
    trace = read_trace(path)
    by_session = [np.flatnonzero(trace.sessions == session).tolist() for session in (0, 1)]
    assert [trace.input_tokens[by_session[0]].tolist(), trace.input_tokens[by_session[1]].tolist()] == [
        [1024, 1024 + 512 + 600, 1024 + 512 + 600 + 50 + 30],
        [1024, 1024 + 100 + 600],
    ]
    first, second, third = by_session[0]
    shared = shared_blocks(trace)
    assert shared[first][second] == 2
    assert shared[second][third] == 2136 // 512
    assert shared[second][by_session[1][1]] == 2, "no two sessions share what follows an answer"
    assert (trace.after[second], trace.delays_s[second]) == (first, 3.0)
    assert trace.after[third] == NO_REQUEST
    assert trace.arrivals_s[third] == 60
    assert noted(trace, "one new turn")


def test_rows_that_hold_whole_prompts_are_noticed_and_read_as_such_when_told(tmp_path: Path) -> None:
    path = write_rows(
        tmp_path / "trace.jsonl",
        {"timestamp": 0, "input_length": 1024, "output_length": 10, "hash_ids": [1, 2], "session_id": "a"},
        {"delay": 50, "input_length": 1500, "output_length": 10, "hash_ids": [1, 2, 3], "session_id": "a"},
    )
    assert noted(read_trace(path), "--format mooncake-whole")
    trace = read_trace(path, "mooncake-whole")
    assert trace.input_tokens.tolist() == [1024, 1500]
    assert shared_blocks(trace)[0][1] == 2
    assert trace.after.tolist() == [NO_REQUEST, 0]


def test_bailian_chats_are_sessions_with_all_that_descends_from_them(tmp_path: Path) -> None:
    common = {"input_length": 40, "output_length": 5, "type": "text", "turn": 1}
    path = write_rows(
        tmp_path / "trace.jsonl",
        {"chat_id": 10, "parent_chat_id": -1, "timestamp": 61.5, "hash_ids": [1, 2, 3], **common},
        {"chat_id": 11, "parent_chat_id": -1, "timestamp": 62.0, "hash_ids": [1, 5, 6], **common},
        {"chat_id": 12, "parent_chat_id": 10, "timestamp": 63.0, "hash_ids": [1, 2, 7], **common},
        {"chat_id": 13, "parent_chat_id": 12, "timestamp": 64.0, "hash_ids": [1, 2, 8], **common},
        {"chat_id": 14, "parent_chat_id": 99, "timestamp": 65.0, "hash_ids": [1], "input_length": 40},
    )
    trace = read_trace(path)
    assert trace.tokens_per_block == 16
    assert trace.sessions.tolist() == [0, 1, 0, 0, 2]
    assert trace.arrivals_s.tolist() == [0, 0.5, 1.5, 2.5, 3.5]
    assert shared_blocks(trace)[0] == [3, 1, 2, 2, 1]
    assert noted(trace, "1 chats continue one that stands nowhere")
    assert noted(trace, "1 requests name fewer blocks")


def burstgpt_lines() -> str:
    return (
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,s1,1,ChatGPT,100,50,150,Conversation log\n"
        "45,s2,1,ChatGPT,100,50,150,Conversation log\n"
        "60,s1,1,ChatGPT,200,10,210,Conversation log\n"
        "118,s1,1,ChatGPT,20,10,30,Conversation log\n"
        "119,,1,GPT-4,20,0,20,API log\n"
    )


def test_burstgpt_sessions_grow_where_the_prompt_is_long_enough(tmp_path: Path) -> None:
    path = tmp_path / "burst.csv"
    path.write_text(burstgpt_lines())
    trace = read_trace(path)
    assert trace.arrivals_s.tolist() == [0, 40, 55, 113, 114]
    assert trace.sessions.tolist() == [0, 1, 0, 0, NO_SESSION]
    assert shared_blocks(trace)[0] == [7, 0, 100 // 16, 0, 0]
    assert shared_blocks(trace)[2][3] == 0
    assert noted(trace, "1 turns whose prompt is at least as long", "1 shorter ones")


def test_azure_dates_and_lengths_are_read_and_nothing_is_shared(tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,4808,10\n"
        "2023-11-16 18:17:04.0319600,4808,8\n"
        "2023-11-16 18:17:05.0319600+00:00,0,8\n"
    )
    trace = read_trace(path)
    assert trace.arrivals_s.tolist() == pytest.approx([0, 0.052, 1.052], abs=1e-6)
    assert trace.num_blocks_named.tolist() == [301, 301, 0]
    assert trace.num_blocks_seen.sum() == 0
    assert noted(trace, "none was taken to share")


def dynamo_record(start_ms: int, end_ms: int, tokens: int, hashes: list[int], **context: str) -> dict[str, object]:
    request = {"request_received_ms": start_ms, "output_tokens": 3, "model": "m"}
    request |= {"replay": {"trace_block_size": 64, "input_length": tokens, "input_sequence_hashes": hashes}}
    record: dict[str, object] = {
        "schema": "dynamo.request.trace.v1",
        "event_type": "request_end",
        "event_time_unix_ms": end_ms,
        "request": request,
    }
    return record | ({"agent_context": context} if context else {})


def test_dynamo_records_bare_and_wrapped_follow_their_agents(tmp_path: Path) -> None:
    big = 2**64 - 5
    path = write_rows(
        tmp_path / "trace.jsonl",
        {"timestamp": 1, "event": dynamo_record(1000, 2000, 128, [big, 2], session_id="a")},
        {"schema": "dynamo.request.trace.v1", "event_type": "tool_end", "tool": {"tool_class": "x"}},
        dynamo_record(2500, 3000, 130, [big, 2, 3], session_id="b", parent_session_id="a"),
        dynamo_record(3200, 4000, 200, [big, 2, 4, 5], session_id="a"),
        dynamo_record(3300, 3400, 64, [big]),
    )
    trace = read_trace(path)
    assert trace.tokens_per_block == 64
    assert trace.arrivals_s.tolist() == [0, 1.5, 2.2, 2.3]
    assert trace.after.tolist() == [NO_REQUEST, 0, 1, NO_REQUEST]
    assert trace.delays_s.tolist() == pytest.approx([0, 0.5, 0.2, 0])
    assert trace.sessions.tolist() == [0, 1, 0, NO_SESSION]
    assert shared_blocks(trace)[0] == [2, 2, 2, 1]
    assert noted(trace, "1 records of payloads and tools")


def test_dynamo_requests_without_hashes_are_kept_and_named(tmp_path: Path) -> None:
    bare = dynamo_record(1000, 2000, 0, [])
    bare["request"] = {"request_received_ms": 5, "input_tokens": 77}
    trace = read_trace(write_rows(tmp_path / "t.jsonl", bare, dynamo_record(1000, 2000, 64, [1])))
    assert trace.input_tokens.tolist() == [77, 64]
    assert trace.tokens_per_block == 64
    assert noted(trace, "1 requests have no `replay`")


def test_token_ids_share_their_leading_full_blocks(tmp_path: Path) -> None:
    tokens = list(range(100))
    path = write_rows(
        tmp_path / "t.jsonl",
        {"arrival_s": 1.0, "tokens": tokens, "output_tokens": 9, "session_id": "x"},
        {"timestamp_ms": 2500, "prompt_token_ids": [*tokens[:50], 7], "max_tokens": 3, "after": 0, "delay_s": 0.25},
        {"timestamp": "1970-01-01T00:00:04Z", "input_ids": tokens, "model": "other"},
    )
    trace = read_trace(path)
    assert trace.tokens_per_block == 16
    assert trace.arrivals_s.tolist() == [0, 1.5, 3]
    assert trace.output_tokens.tolist() == [9, 3, 0]
    assert trace.after.tolist() == [NO_REQUEST, 0, NO_REQUEST]
    assert shared_blocks(trace) == [[6, 3, 0], [3, 3, 0], [0, 0, 6]]
    assert shared_blocks(read_trace(path, options=ReadOptions(tokens_per_block=8)))[0] == [12, 6, 0]
    assert noted(trace, "1 requests do not say how long")


def test_arrivals_that_a_file_lacks_are_drawn_from_the_seed(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "t.jsonl", *({"tokens": [number] * 20} for number in range(500)))
    slow = ReadOptions(arrivals_per_s=0.1, seed=3)
    trace = read_trace(path, options=slow)
    assert trace.span_s == pytest.approx(4990, rel=0.2)
    assert noted(trace, "one every 10 s on average", "seed 3")
    assert np.array_equal(trace.arrivals_s, read_trace(path, options=slow).arrivals_s)
    assert not np.array_equal(trace.arrivals_s, read_trace(path, options=ReadOptions(arrivals_per_s=0.1)).arrivals_s)
