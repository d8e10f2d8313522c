"""The phases of the end-to-end benchmark with vLLM, and what they check of each sample. The same for every arm.

A `Record` collects measures by name and is written to disk after each phase, so that an arm that dies leaves what it had.
A sample whose cached tokens or output tokens are not what they must be is kept out of the measure and named in it.
"""

import json
import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _vllm_arms import Arm
from _vllm_engine import Engine, Job, Sample
from _vllm_io import TreeIo
from _vllm_scale import Length, Scale

_SETTLE_S = 0.15
_DISK_QUIET_S = 0.4
_DISK_WAIT_MAX_S = 20.0
_CHECK_TOKENS = 8


@dataclass(kw_only=True)
class Measure:
    """Values of one quantity, and why further samples of it were not valid."""

    unit: str
    values: list[float] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Record:
    """What one arm found."""

    arm: str
    path: Path
    engine: dict[str, Any] = field(default_factory=dict)
    measures: dict[str, Measure] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    phase_s: dict[str, float] = field(default_factory=dict)
    finished: bool = False

    def add(self, name: str, value: float, unit: str, problems: Sequence[str] = ()) -> None:
        measure = self.measures.setdefault(name, Measure(unit=unit))
        if problems:
            number = len(measure.values) + len(measure.invalid)
            measure.invalid.append(f"sample {number}, {value:.4g} {unit}: {'; '.join(problems)}")
        else:
            measure.values.append(value)

    def write(self) -> None:
        result = asdict(self) | {"path": None}
        self.path.write_text(json.dumps(result) + "\n")


class Phases:
    """One arm's run over one engine."""

    def __init__(self, engine: Engine, scale: Scale, arm: Arm, record: Record) -> None:
        self._engine = engine
        self._scale = scale
        self._arm = arm
        self._record = record
        self._random = np.random.default_rng(1)
        self._io = TreeIo()
        self._prompts: dict[str, list[list[int]]] = {}

    def run(self, names: Sequence[str]) -> None:
        """Run phases in the order given; one that fails is noted, and the next begins."""
        phases: dict[str, Callable[[], None]] = {f"length {one.name}": self._runner(one) for one in self._scale.lengths}
        phases |= {"tail": self.tail, "arrivals": self.arrivals, "itl": self.inter_token, "turns": self.turns}
        self.warm_up()
        for name, phase in phases.items():
            kind = name.partition(" ")[0]
            if kind not in names or kind in self._arm.without:
                continue
            started = time.perf_counter()
            try:
                phase()
            except Exception:  # noqa: BLE001 - one phase's failure must not lose the others'; it is in the result
                self._record.errors[name] = traceback.format_exc()
            self._record.phase_s[name] = round(time.perf_counter() - started, 2)
            self._record.write()
            print(f"{name}: {self._record.phase_s[name]} s {self._record.errors.get(name, '')}", flush=True)
        self._record.finished = True
        self._record.write()

    def warm_up(self) -> None:
        for length in self._scale.lengths:
            self._engine.one(self._prompt(length.tokens), 4)
        self._engine.one(self._prompt(256), 4)

    def length(self, length: Length) -> None:
        """Cold, then from the GPU; in arms with a cache, then from that: in the order in which they were stored."""
        counters = self._engine.counters()
        prompts = [self._prompt(length.tokens) for _ in range(self._arm.num_prompts(length))]
        self._prompts[length.name] = prompts
        references: list[list[int]] = []
        for prompt in prompts:
            cold = self._engine.one(prompt)
            self._add(f"cold {length.name}", cold, _cached_problems(cold, 0, 0))
            self._settle()
            warm = self._engine.one(prompt, _CHECK_TOKENS)
            self._add(f"GPU hit {length.name}", warm, _cached_problems(warm, self._scale.full_tokens(length), 0))
            references.append(warm.tokens)
        equal = sum(one == other for number, one in enumerate(references) for other in references[:number])
        self._record.facts[f"equal outputs of different prompts {length.name}"] = equal
        self._rates(f"store {length.name}", counters)
        if self._arm.hit is not None:
            counters = self._engine.counters()
            for _ in range(self._arm.num_rounds(length)):
                for prompt, reference in zip(prompts, references, strict=True):
                    self._hit(length, prompt, reference)
            self._rates(f"load {length.name}", counters)

    def visit(self, length: Length) -> None:
        """One new prompt: cold, then from the GPU, then from the arm's cache with nothing in the engine's own."""
        prompt = self._prompt(length.tokens)
        full = self._scale.full_tokens(length)
        cold = self._engine.one(prompt)
        self._add(f"cold {length.name}", cold, _cached_problems(cold, 0, 0))
        self._settle()
        warm = self._engine.one(prompt, _CHECK_TOKENS)
        self._add(f"GPU hit {length.name}", warm, _cached_problems(warm, full, 0))
        if self._arm.hit is not None:
            self._settle()
            self._engine.evict_gpu()
            self._hit(length, prompt, warm.tokens)

    def tail(self) -> None:
        """Most of a long prompt cached, its end new."""
        longest = self._scale.longest
        block_tokens = self._scale.block_tokens
        num_cached = (longest.tokens - self._scale.tail_tokens) // block_tokens * block_tokens
        name = f"{self._arm.hit or 'GPU hit'} of {num_cached} + {self._scale.tail_tokens} new"
        for prompt in self._prompts_of(longest):
            if self._arm.hit is None:
                self._engine.one(prompt)
            else:
                self._engine.evict_gpu()
            sample = self._engine.one(prompt[:num_cached] + self._prompt(self._scale.tail_tokens))
            expected = (num_cached, 0) if self._arm.hit is None else (0, num_cached)
            self._add(name, sample, _cached_problems(sample, *expected))
            self._settle()

    def arrivals(self) -> None:
        """Streams decode and a long prompt arrives: how long do they wait for a token until it has its first?"""
        longest = self._scale.longest
        # Hits first: what arrives cold pushes others out. From memory the youngest, from disk the oldest.
        prompts = self._prompts_of(longest)[:: 1 if self._arm.on_disk else -1]
        full = self._scale.full_tokens(longest)
        for number in range(self._scale.num_arrivals):
            prompt = prompts[number % len(prompts)]
            if self._arm.hit is None:
                self._engine.one(prompt)
            else:
                self._engine.evict_gpu()
            self._arrival(self._arm.hit or "GPU hit", prompt, (full, 0) if self._arm.hit is None else (0, full))
        for _ in range(self._scale.num_arrivals):
            self._arrival("cold", self._prompt(longest.tokens), (0, 0))

    def inter_token(self) -> None:
        """Decode steps of one stream behind a long prompt, and of 16 short ones side by side."""
        prompt = self._prompt(self._scale.longest.tokens)
        self._engine.one(prompt)
        self._settle()
        for _ in range(3):
            sample = self._engine.one(prompt, self._scale.itl_outputs)
            self._add_gaps(f"ITL, 1 stream at {self._scale.longest.name}", [sample])
        for _ in range(2):
            jobs = [
                Job(prompt=self._prompt(self._scale.stream_tokens), max_tokens=self._scale.itl_outputs)
                for _ in range(16)
            ]
            self._add_gaps(f"ITL, 16 streams at {self._scale.stream_tokens}", self._engine.run(jobs))

    def turns(self) -> None:
        """Conversations that grow turn by turn, all asked at once: seconds for the whole, and where the tokens came from."""
        scale = self._scale
        system = self._prompt(scale.conversation_tokens // 4)
        histories = [
            system + self._prompt(scale.conversation_tokens - len(system)) for _ in range(scale.num_conversations)
        ]
        order = np.random.default_rng(7)
        samples: list[Sample] = []
        started = time.perf_counter()
        for _ in range(scale.num_turns):
            numbers = [int(number) for number in order.permutation(scale.num_conversations)]
            jobs = [Job(prompt=histories[number], max_tokens=scale.turn_outputs) for number in numbers]
            answers = self._engine.run(jobs)
            for number, answer in zip(numbers, answers, strict=True):
                histories[number] = histories[number] + answer.tokens + self._prompt(scale.turn_tokens)
            samples += answers
        seconds = time.perf_counter() - started
        self._record.add(f"multi-turn, {len(samples)} requests", seconds, "s")
        times = sorted(sample.ttft_s * 1e3 for sample in samples)
        self._record.add("multi-turn, mean TTFT", statistics.mean(times), "ms")
        self._record.add("multi-turn, p95 TTFT", times[int(len(times) * 0.95)], "ms")
        self._record.facts["multi-turn tokens"] = {
            "prompt": sum(sample.num_prompt_tokens for sample in samples),
            "from the GPU": sum(sample.num_local or 0 for sample in samples),
            "from the cache": sum(sample.num_external or 0 for sample in samples),
        }

    def _runner(self, length: Length) -> Callable[[], None]:
        return lambda: self.length(length)

    def _prompt(self, num_tokens: int) -> list[int]:
        tokens: list[int] = self._random.integers(10, self._scale.shape.vocab_size - 10, num_tokens).tolist()
        return tokens

    def _prompts_of(self, length: Length) -> list[list[int]]:
        """The prompts that this length's phase stored, or new ones if it was left out."""
        if length.name not in self._prompts:
            self._prompts[length.name] = [self._prompt(length.tokens) for _ in range(self._arm.num_prompts(length))]
            for prompt in self._prompts[length.name]:
                self._engine.one(prompt)
                self._settle()
        return self._prompts[length.name]

    def _hit(self, length: Length, prompt: list[int], reference: list[int]) -> None:
        if self._arm.on_disk:
            self._engine.evict_gpu()
        read_before = self._io.read_bytes()
        sample = self._engine.one(prompt, _CHECK_TOKENS)
        full = self._scale.full_tokens(length)
        problems = _cached_problems(sample, 0, full)
        if sample.tokens != reference:
            problems.append(f"tokens {sample.tokens}, of the GPU hit {reference}")
        if self._arm.on_disk:
            problems += self._unread(full, read_before, at_least=0.95)
        self._add(f"{self._arm.hit} {length.name}", sample, problems)
        time.sleep(0.05)

    def _arrival(self, kind: str, prompt: list[int], expected: tuple[int, int]) -> None:
        scale = self._scale
        jobs = [Job(prompt=self._prompt(scale.stream_tokens), max_tokens=scale.stream_outputs) for _ in range(8)]
        read_before = self._io.read_bytes()
        *streams, late = self._engine.run(jobs, arrival=(scale.arrives_after, Job(prompt=prompt)))
        problems = _cached_problems(late, *expected)
        if self._arm.on_disk:
            problems += self._unread(expected[1], read_before, at_least=0.5)
        begun_s = max(stream.token_times_s[0] for stream in streams)
        gaps = [gap for stream in streams for gap in stream.gaps if gap[0] >= begun_s]
        beside = [end - start for start, end in gaps if end > late.started_s and start < late.token_times_s[0]]
        before = [end - start for start, end in gaps if end <= late.started_s]
        title = f"8 streams, a {kind} of {scale.longest.name} arrives"
        if not beside or not before:
            problems.append("the streams had ended")
        self._record.add(f"{title}: its TTFT", late.ttft_s * 1e3, "ms", problems)
        self._record.add(f"{title}: longest gap", max(beside, default=0.0) * 1e3, "ms", problems)
        self._record.add(f"{title}: mean gap", statistics.fmean(beside or [0.0]) * 1e3, "ms", problems)
        self._record.add("8 streams, nothing arrives: longest gap", max(before, default=0.0) * 1e3, "ms")
        self._settle()

    def _unread(self, num_tokens: int, read_before: int, *, at_least: float) -> list[str]:
        """What is wrong with a hit from disk if less than that share of its bytes was read from devices."""
        num_read = self._io.read_bytes() - read_before
        expected = num_tokens * self._scale.shape.token_bytes
        if num_read >= expected * at_least:
            return []
        return [f"{num_read / 1e6:.0f} MB were read from disk, of {expected / 1e6:.0f}"]

    def _add(self, name: str, sample: Sample, problems: Sequence[str]) -> None:
        self._record.add(name, sample.ttft_s * 1e3, "ms", problems)

    def _add_gaps(self, name: str, samples: Sequence[Sample]) -> None:
        """The median gap of one run is one value: single gaps vary by the step, and only runs can be compared."""
        begun_s = max(sample.token_times_s[0] for sample in samples)
        gaps = sorted(end - start for sample in samples for start, end in sample.gaps if start >= begun_s)
        self._record.add(name, statistics.median(gaps) * 1e3, "ms")
        self._record.add(f"{name}, mean", statistics.fmean(gaps) * 1e3, "ms")
        self._record.add(f"{name}, p99", gaps[int(len(gaps) * 0.99)] * 1e3, "ms")

    def _settle(self) -> None:
        """Let stores end: a moment, and with a disk until nothing more is written."""
        time.sleep(_SETTLE_S)
        if self._arm.on_disk:
            self._io.wait_for_writes(quiet_s=_DISK_QUIET_S, timeout_s=_DISK_WAIT_MAX_S)

    def _rates(self, name: str, before: dict[str, float]) -> None:
        """Keep what the connector's own counters say of a phase, and the rate if they say bytes and seconds."""
        grown = {key: value - before.get(key, 0.0) for key, value in self._engine.counters().items()}
        self._record.facts[f"counters, {name}"] = {key: value for key, value in grown.items() if value}
        counters = (self._arm.rates or {}).get(name.partition(" ")[0])
        if counters is None:
            return
        moved, spent, waited = counters
        seconds = grown.get(spent, 0.0) - grown.get(waited, 0.0)
        if seconds > 0:
            rate = grown.get(moved, 0.0) / seconds / 1e9
            self._record.add(f"{name}, by the connector's clock", rate, "GB/s")


def _cached_problems(sample: Sample, num_local: int, num_external: int) -> list[str]:
    found = (sample.num_local, sample.num_external)
    if found == (num_local, num_external):
        return []
    return [f"{found[0]} tokens from the GPU and {found[1]} from the cache, not {num_local} and {num_external}"]
