"""The three runs: without Tiercel; with it until SIGKILL; and on from disk. Asks the same requests in all."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from tiercel.demo.machine import measure_machine
from tiercel.demo.messages import Answer, Ask, Chunk, Opening, Ready, Start, TierUse, WorkerGoneError
from tiercel.demo.model import write_demo_model
from tiercel.demo.options import DemoOptions
from tiercel.demo.process import WorkerProcess
from tiercel.demo.results import DemoResult, RunTotals, Served
from tiercel.demo.verify import Oracle
from tiercel.demo.workload import Turn, make_workload

_NUM_BUFFERS = 3
_NUM_BUFFERS_QUICK = 1
_HOST_SHARE = 0.45
_DISK_SHARE = 1.5
"""Capacities as shares of the workload's KV: the host tier must overflow and the disk must not."""
_HOST_LONGEST = 1.25
"""The host tier holds at least the longest conversation, and some of it twice over: loads and stores overlap."""


class Display(Protocol):
    """Shows a person how far the demo is."""

    def stage(self, title: str, total: int) -> None:
        """Begin a stage of so many requests."""

    def advance(self, note: str) -> None:
        """One more is done."""

    def note(self, note: str) -> None:
        """Say what is going on in the current stage."""


@dataclass(frozen=True, kw_only=True)
class _Run:
    answers: Mapping[int, Answer]
    ready: Ready
    totals: RunTotals
    killed_after: Chunk | None = None


class Scenario:
    """The runs of one demo over one folder, which the caller makes and removes."""

    def __init__(
        self,
        options: DemoOptions,
        directory: Path,
        display: Display,
        *,
        open_worker: Callable[[Path], AbstractContextManager[WorkerProcess]] = WorkerProcess,
    ) -> None:
        """Choose the work. Raises ValueError if the documents are too few."""
        self._options, self._directory, self._display = options, directory, display
        self._open_worker = open_worker
        self.workload = make_workload(options.docs, seed=options.seed, quick=options.quick)
        lengths = self.workload.final_lengths()
        model = options.model or write_demo_model(directory / "model")
        self._without = Start(
            model=str(model),
            device=options.device,
            seed=options.seed,
            num_buffers=_NUM_BUFFERS_QUICK if options.quick else _NUM_BUFFERS,
            buffer_tokens=max(lengths),
            host_tokens=0,
            disk_tokens=0,
            cache_dir=str(directory / "cache"),
        )
        self._with = msgspec.structs.replace(
            self._without,
            host_tokens=int(max(sum(lengths) * _HOST_SHARE, max(lengths) * _HOST_LONGEST)),
            disk_tokens=int(sum(lengths) * _DISK_SHARE),
        )
        self._tokens: dict[tuple[int, int], tuple[int, ...]] = {}

    def run(self) -> DemoResult:
        """Run everything. Raises WorkerGoneError or OSError; never leaves a process behind."""
        began = time.perf_counter()
        workload, display = self.workload, self._display
        display.stage("measuring this machine", 1)
        machine = measure_machine(self._directory)
        display.advance("")
        oracle = Oracle()

        def learn(turn: Turn, answer: Answer) -> None:
            oracle.learn(answer)
            self._tokens[turn.document, turn.turn] = answer.tokens

        def check(turn: Turn, answer: Answer) -> None:
            oracle.check(answer)

        without = self._run("without Tiercel", self._without, workload.turns, learn)
        before = self._run("with Tiercel", self._with, workload.turns, check, kill_request=workload.kill_request)
        rest = workload.turns[workload.kill_request :]
        after = self._run("after SIGKILL, from disk", self._with, rest, check)
        served = [
            Served(turn=turn, answer=run.answers[turn.request], without=without.answers[turn.request], after_kill=late)
            for run, late in ((before, False), (after, True))
            for turn in workload.turns
            if turn.request in run.answers
        ]
        assert before.killed_after is not None
        block_bytes, block_tokens = after.ready.block_bytes, after.ready.tokens_per_block
        return DemoResult(
            workload=workload,
            model=after.ready.model,
            block_bytes=block_bytes,
            host_bytes=self._with.host_tokens // block_tokens * block_bytes,
            engine_bytes=self._with.num_buffers * self._with.buffer_tokens // block_tokens * block_bytes,
            machine=machine,
            without=tuple(without.answers[turn.request] for turn in workload.turns),
            served=tuple(served),
            runs=(without.totals, before.totals, after.totals),
            stores_running_at_kill=before.killed_after.num_stores_running,
            verification=oracle.verification,
            total_s=time.perf_counter() - began,
        )

    def _run(
        self,
        title: str,
        start: Start,
        turns: tuple[Turn, ...],
        take: Callable[[Turn, Answer], None],
        kill_request: int | None = None,
    ) -> _Run:
        """Have one worker answer turns in order, until the end or until it is killed."""
        count = len(turns) if kill_request is None else kill_request
        self._display.stage(title, count)
        answers: dict[int, Answer] = {}
        began = time.perf_counter()
        with self._open_worker(self._directory / "worker.log") as worker:
            ready = worker.open(start, self._show_opening)
            opened = time.perf_counter()
            tiers: tuple[TierUse, ...] = ()
            failures: dict[str, int] = {}
            peak_bytes = 0
            killed_after: Chunk | None = None
            for turn in turns:
                parts = self.workload.prompt(turn, self._tokens)
                ask = Ask(request=turn.request, parts=parts, max_new_tokens=self.workload.num_new_tokens)
                answer = worker.ask(ask, _in_the_middle if turn.request == kill_request else None)
                if isinstance(answer, Chunk):
                    killed_after = answer
                    break
                take(turn, answer)
                tiers, failures = answer.tiers, answer.failures
                # What was compared is not needed again, and is the larger part of an answer.
                answers[turn.request] = msgspec.structs.replace(answer, blocks=())
                self._display.advance(f"TTFT {answer.ttft_s * 1000:.0f} ms")
            if killed_after is None and kill_request is not None:
                raise WorkerGoneError(f"request {kill_request} was answered before the worker could be killed in it")
            if killed_after is None:
                ended = worker.stop()
                tiers, peak_bytes = ended.tiers, ended.peak_bytes
        totals = RunTotals(
            start_s=opened - began,
            wall_s=time.perf_counter() - opened,
            tiers=tiers,
            found_blocks=ready.found_blocks,
            failures=failures,
            peak_bytes=peak_bytes,
        )
        return _Run(answers=answers, ready=ready, totals=totals, killed_after=killed_after)

    def _show_opening(self, opening: Opening) -> None:
        share = f" {opening.done * 100 // opening.total} %" if opening.total > 1 else ""
        self._display.note(opening.stage + share)


def _in_the_middle(chunk: Chunk) -> bool:
    """Whether to kill now: half of the prompt is computed and stores are in flight, or it is the last chance."""
    halfway = chunk.num_tokens * 2 >= chunk.num_total
    return (halfway and chunk.num_stores_running > 0) or chunk.num_tokens >= chunk.num_total
