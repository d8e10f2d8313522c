"""The demo's parts that need no engine: the work, the comparison, the process, the page."""

import io
import re
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tiercel.charts import Scale
from tiercel.demo.machine import MachineSpeed
from tiercel.demo.messages import (
    Answer,
    Ask,
    BlockDigest,
    Chunk,
    Opening,
    Part,
    SpanRecord,
    Start,
    Stop,
    TierUse,
    WorkerGoneError,
    receive,
    send,
    to_worker,
)
from tiercel.demo.options import DemoOptions
from tiercel.demo.process import WorkerProcess
from tiercel.demo.report import render_report
from tiercel.demo.results import DemoResult, RunTotals, Served, Source, quantile
from tiercel.demo.verify import Oracle
from tiercel.demo.workload import Workload, make_workload


@pytest.fixture(scope="module")
def work() -> Workload:
    return make_workload(None, seed=3, quick=False)


def an_answer(request: int = 0, **changes: object) -> Answer:
    answer = Answer(
        request=request,
        at_s=0.0,
        num_prompt_tokens=64,
        tokens=(1, 2, 3),
        reused_tokens={"disk": 48},
        ttft_s=0.1,
        total_s=0.2,
        spans=(SpanRecord("load", 0.0, 0.05, 48, "disk"), SpanRecord("prefill", 0.05, 0.1, 16, "")),
        failures={},
        tiers=tuple(TierUse(tier=tier, num_blocks=10, used_blocks=5) for tier in ("engine", "host", "disk")),
        blocks=(BlockDigest(b"a", b"A"), BlockDigest(b"b", b"B")),
        num_restored=1,
    )
    return msgspec.structs.replace(answer, **changes)


def a_result(oracle: Oracle) -> DemoResult:
    workload = make_workload(None, seed=0, quick=True)
    served = tuple(
        Served(turn=turn, answer=an_answer(turn.request), without=an_answer(turn.request, ttft_s=1.0), after_kill=late)
        for turn, late in zip(workload.turns, [False, True] * 4, strict=True)
    )
    run = RunTotals(start_s=1.0, wall_s=2.0, tiers=an_answer().tiers, found_blocks=3, failures={}, peak_bytes=1)
    return DemoResult(
        workload=workload,
        model="a <small> model",
        block_bytes=1024,
        host_bytes=1 << 20,
        engine_bytes=1 << 20,
        machine=MachineSpeed(memcpy=1e10, disk_read=1e9, disk_write=1e9, direct=True),
        without=tuple(one.without for one in served),
        served=served,
        runs=(run, run, run),
        stores_running_at_kill=1,
        verification=oracle.verification,
        total_s=3.0,
    )


def test_the_same_seed_gives_the_same_work_and_another_seed_another(work: Workload) -> None:
    assert make_workload(None, seed=3, quick=False) == work
    assert make_workload(None, seed=4, quick=False) != work


def test_the_turns_of_a_conversation_come_in_order_and_the_kill_falls_into_a_first_one(work: Workload) -> None:
    for document in range(len(work.documents)):
        turns = [turn.turn for turn in work.turns if turn.document == document]
        assert turns == list(range(len(turns)))
        assert len(turns) >= 2
    assert work.turns[work.kill_request].turn == 0
    assert [turn.request for turn in work.turns] == list(range(len(work.turns)))


def test_a_later_turn_begins_with_all_of_the_turn_before(work: Workload) -> None:
    later = next(turn for turn in work.turns if turn.turn == 1)
    earlier = next(turn for turn in work.turns if turn.document == later.document and turn.turn == 0)
    first, second = work.prompt(earlier, {}), work.prompt(later, {(later.document, 0): (7, 8)})
    assert second[: len(first)] == first
    assert second[len(first)] == Part(tokens=(7, 8))


def test_a_folder_with_too_few_documents_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("too short")
    with pytest.raises(ValueError, match="has 0 text files"):
        make_workload(tmp_path, seed=0, quick=True)


def test_options_name_the_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--docs .*missing"):
        DemoOptions(docs=tmp_path / "missing")


def test_equal_answers_pass_and_count_what_was_compared() -> None:
    oracle = Oracle()
    oracle.learn(an_answer())
    oracle.check(an_answer())
    checks = oracle.verification
    assert (checks.passed, checks.restored_blocks, checks.computed_blocks, checks.tokens) == (True, 1, 1, 3)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tokens": (1, 9, 3)}, "generated token 1 differs"),
        ({"blocks": (BlockDigest(b"a", b"X"), BlockDigest(b"b", b"B"))}, "block 0: restored, differs"),
        ({"blocks": (BlockDigest(b"a", b"A"), BlockDigest(b"b", b"X"))}, "block 1: computed beside the cache, differs"),
        ({"blocks": (BlockDigest(b"z", b"A"),)}, "never had this block"),
    ],
)
def test_a_wrong_token_or_byte_is_named(changes: dict[str, Any], told: str) -> None:
    oracle = Oracle()
    oracle.learn(an_answer())
    oracle.check(an_answer(**changes))
    assert not oracle.verification.passed
    assert told in oracle.verification.mismatches[0]


def test_nothing_restored_is_no_pass() -> None:
    oracle = Oracle()
    oracle.learn(an_answer())
    oracle.check(an_answer(num_restored=0))
    assert not oracle.verification.passed


def test_an_engine_that_contradicts_itself_is_no_oracle() -> None:
    oracle = Oracle()
    oracle.learn(an_answer())
    oracle.learn(an_answer(1, blocks=(BlockDigest(b"a", b"X"),)))
    assert "cannot serve as the oracle" in oracle.verification.mismatches[0]


def test_a_request_is_classed_by_where_most_of_its_prompt_came_from(work: Workload) -> None:
    def source(reused: dict[str, int], *, after_kill: bool = False) -> Source:
        answer = an_answer(reused_tokens=reused)
        return Served(turn=work.turns[0], answer=answer, without=answer, after_kill=after_kill).source

    assert source({}) is Source.COMPUTED
    assert source({"engine": 16}) is Source.COMPUTED
    assert source({"host": 32, "disk": 16}) is Source.HOST
    assert source({"disk": 48}) is Source.DISK
    assert source({"disk": 48}, after_kill=True) is Source.DISK_AFTER_KILL


def test_a_quantile_is_the_nearest_rank() -> None:
    assert [quantile([4.0, 1.0, 3.0, 2.0], share) for share in (0.5, 0.9, 0.99, 0.25)] == [2.0, 4.0, 4.0, 1.0]


def test_a_scale_keeps_to_its_ends_and_its_ticks_are_round() -> None:
    scale = Scale(0.08, 12, 0, 100, logarithmic=True)
    assert scale.ticks() == pytest.approx([0.1, 0.3, 1, 3, 10])
    assert (scale(0.001), scale(0.08), scale(12), scale(99)) == (0, 0, 100, 100)
    assert Scale(0, 1.15, 0, 100).ticks(6) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])


def test_the_report_fetches_nothing_and_escapes_what_it_shows() -> None:
    oracle = Oracle()
    oracle.learn(an_answer())
    oracle.check(an_answer())
    page = render_report(a_result(oracle))
    addresses = set(re.findall(r"https?://[^\"]+", page)) - {"http://www.w3.org/2000/svg"}
    assert not addresses
    assert "<script" not in page
    assert "a &lt;small&gt; model" in page
    assert "nan" not in page.lower().replace("tenant", "")
    assert "verdict passed" in page


def test_the_report_says_when_something_was_wrong() -> None:
    oracle = Oracle()
    oracle.learn(an_answer())
    oracle.check(an_answer(tokens=(9, 9, 9)))
    page = render_report(a_result(oracle))
    assert "verdict failed" in page
    assert "generated token 0 differs" in page


def test_a_message_survives_the_pipe_and_a_torn_one_is_reported() -> None:
    ask = Ask(request=1, parts=(Part(mark="<|user|>", text="é"),), max_new_tokens=2)
    pipe = io.BytesIO()
    send(pipe, ask)
    pipe.seek(0)
    assert receive(pipe, to_worker) == ask
    torn = io.BytesIO(pipe.getvalue()[:-1])
    with pytest.raises(WorkerGoneError, match="inside a message"):
        receive(torn, to_worker)
    with pytest.raises(WorkerGoneError, match="does not read"):
        receive(io.BytesIO(b"\x01\x00\x00\x00\xc1"), to_worker)
    with pytest.raises(WorkerGoneError, match="not one of ours"):
        receive(io.BytesIO(b"\xff\xff\xff\xff"), to_worker)


def test_a_worker_that_ends_by_itself_is_reported_with_its_own_words(tmp_path: Path) -> None:
    start = Start(
        model="", device="cpu", seed=0, num_buffers=1, buffer_tokens=1, host_tokens=0, disk_tokens=0, cache_dir=""
    )

    def ignore(opening: Opening) -> None:
        """Progress is of no interest."""

    with (
        WorkerProcess(tmp_path / "log", module="tiercel.demo.no_such_module") as worker,
        pytest.raises(WorkerGoneError, match="no_such_module"),
    ):
        worker.open(start, ignore)


def test_a_worker_is_gone_after_its_block_whatever_happens_in_it(tmp_path: Path) -> None:
    worker = WorkerProcess(tmp_path / "log", module="http.server")
    process: subprocess.Popen[bytes] = worker._process
    assert process.poll() is None
    worker.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert process.poll() is not None


def test_stop_and_chunk_are_messages_of_their_own() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Stop()))["type"] == "Stop"
    chunk = Chunk(request=0, num_tokens=1, num_total=2, num_stores_running=0)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(chunk))["type"] == "Chunk"
