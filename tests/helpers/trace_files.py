"""A small file in each format of traces."""

import zlib
from typing import Any

import msgspec
import numpy as np

from tiercel.telemetry.recording import FRAME_HEAD, MAGIC, NO_RUN, LookupRecord, RecordingAbout, SessionRecord


def _lines(*rows: object) -> bytes:
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


def _recording() -> bytes:
    about = RecordingAbout(fingerprint="ab", model="m", tokens_per_block=16, block_bytes=1)
    keys = np.array([1, 2, 3], "<u8").tobytes()
    records = [
        SessionRecord(started_at=1000.0, about=about),
        LookupRecord(500, NO_RUN, 0, keys=keys, num_tokens=50, matched_blocks=0, hits=()),
        LookupRecord(900, 0, 2, keys=keys, num_tokens=80, matched_blocks=2, hits=(("host", 2),)),
    ]
    payloads = [msgspec.msgpack.encode(record) for record in records]
    return MAGIC + b"".join(FRAME_HEAD.pack(len(payload), zlib.crc32(payload)) + payload for payload in payloads)


def _dynamo(start_ms: int, hashes: list[int]) -> dict[str, Any]:
    replay = {"trace_block_size": 64, "input_length": 64 * len(hashes), "input_sequence_hashes": hashes}
    request = {
        "request_received_ms": start_ms,
        "total_time_ms": 500,
        "output_tokens": 3,
        "model": "m",
        "replay": replay,
    }
    record = {"schema": "dynamo.request.trace.v1", "event_type": "request_end", "event_time_unix_ms": start_ms + 500}
    return record | {"agent_context": {"session_id": "a", "parent_session_id": None}, "request": request}


def _weka(t: float, ids: list[int]) -> dict[str, object]:
    return {"t": t, "type": "n", "model": "m", "in": 64 * len(ids) + 5, "out": 10, "hash_ids": ids, "api_time": 1.5}


def _aiperf(start_s: int, turn: int) -> dict[str, object]:
    about = {"request_start_ns": start_s * 10**9, "request_end_ns": (start_s + 1) * 10**9, "turn_index": turn}
    metrics = {"input_sequence_length": {"value": 40}, "output_sequence_length": {"value": 6}}
    return {"metadata": about | {"conversation_id": "a", "x_correlation_id": "b"}, "metrics": metrics}


_MOONCAKE = _lines(
    {"timestamp": 0, "input_length": 1100, "output_length": 7, "hash_ids": [5, 6, 7]},
    {"timestamp": 5, "input_length": 900, "output_length": 7, "hash_ids": [5, 9], "session_id": "s"},
    {"delay": 500, "input_length": 1500, "output_length": 7, "hash_ids": [5, 9, 11], "session_id": "s"},
)
_BAILIAN = {"timestamp": 1.5, "input_length": 40, "output_length": 5, "type": "text", "turn": 1, "hash_ids": [1, 2, 3]}
_CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello there, and hello again"}], "max_tokens": 9}
_SUBAGENT = {"t": 2, "type": "subagent", "requests": [_weka(2, [1, 7])]}
_WEKA = {
    "id": "a",
    "block_size": 64,
    "hash_id_scope": "local",
    "requests": [_weka(0, [1]), _SUBAGENT, _weka(9, [1, 2])],
}

SAMPLES: dict[str, bytes] = {
    "mooncake": _MOONCAKE,
    "mooncake-whole": _MOONCAKE,
    "bailian": _lines({"chat_id": 1, "parent_chat_id": -1} | _BAILIAN, {"chat_id": 2, "parent_chat_id": 1} | _BAILIAN),
    "weka": _lines(_WEKA, _WEKA | {"id": "b", "requests": [_weka(0, [3])]}),
    "dynamo": _lines(_dynamo(1000, [1, 2]), {"timestamp": 1, "event": _dynamo(2000, [1, 2, 3])}),
    "azure": b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.98,4808,10\n2023-11-16 18:17:04,100,8\n",
    "burstgpt": b"Timestamp,Session ID,Model,Request tokens,Response tokens\n5,s1,m,100,50\n9,s1,m,200,10\n",
    "token-ids": _lines(
        {"arrival_s": 1, "tokens": [*range(40)], "output_tokens": 4, "session_id": "a"},
        {"arrival_s": 2, "tokens": [*range(60)], "output_tokens": 4, "session_id": "a", "after": 0, "delay_s": 0.5},
    ),
    "prompts": _lines({"timestamp": 5} | _CHAT, {"timestamp": "2024-05-10T00:00:00Z", "body": _CHAT}),
    "aiperf-inputs": _lines({"data": [{"session_id": "a", "payloads": [_CHAT, _CHAT]}]}),
    "aiperf-export": _lines(_aiperf(5, 0), _aiperf(9, 1)),
    "recording": _recording(),
}
