"""What the user of `tiercel advise` gives, and the question that follows from it."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np

from tiercel.config import CacheConfig, ModelConfig, format_bytes
from tiercel.config.messages import problem
from tiercel.errors import ConfigError
from tiercel.tune.advise.advice import Question
from tiercel.tune.advise.asking import TIMES, Budget, Prices, Slo, parse_budget, parse_prices, parse_slo
from tiercel.tune.advise.candidate import Candidate
from tiercel.tune.advise.emit import HEADER
from tiercel.tune.advise.forecast import Forecaster
from tiercel.tune.advise.moving import choose_transfer
from tiercel.tune.advise.objective import Objective
from tiercel.tune.advise.oracle import SimulatedOracle
from tiercel.tune.advise.space import WRITES_SAVED_S, space_of
from tiercel.tune.machine import Machine, read_machine
from tiercel.tune.simulate import (
    EngineFacts,
    PrefillSource,
    SimulationSetup,
    make_setup,
    prefill_of_cache,
    prefill_of_file,
    prefill_of_model,
    simulate,
)
from tiercel.tune.traces import Trace


@dataclass(frozen=True, kw_only=True)
class AdviseOptions:
    """Choices of one question.

    Attributes:
        model: the model's config.json, or its folder.
        machine: a file of `tiercel probe`.
        trace: a trace of any format.
        budget: most that the tiers may take: "host=256GiB,disk=2TiB", and "disk_writes=5TB" a day.
        slo: most seconds of a time, such as "ttft_p99=2s"; known are ttft and e2e by mean, p50, p90, p95 and p99.
        prices: "host=3,disk=0.08,gpu_hour=2.5": of a GiB a month, and of a GPU an hour; then the cheapest is chosen.
        prefill: a JSON file of measured prefills, {"points": [[cached tokens, computed tokens, seconds], ...]}, or of a
            curve, {"fixed_s": ..., "token_s": ..., "token_pair_s": ...}.
        prefill_from: a running cache whose learnt curve is taken: process id, socket or cache directory.
        gpu_rate: floating point operations that one GPU is sold for, a second, where there is no --prefill.
        efficiency: share of that which prefill reaches.
        gpu_kv: memory of the engine's own KV cache, such as "40GiB".
        decode_ms: milliseconds between two tokens that a request generates.
        replicas: engines that share the cache.
        tp_size: GPUs that compute one prompt together.
        dtype: type of the KV cache, where it is not the weights'.
        speedup: arrivals come this many times faster than the trace has them.
        minimise: the time that counts where no prices are given.
        directory: cache directories to write into the settings; those of the machine's file by default.
        evaluations: simulations of the search.
        requests_max: a longer trace is searched on a stretch of this many requests; finalists run on all of it.
        emit: also write the same decision as another cache's configuration; only what it can be told is searched then.
        output: file to write; one that this command wrote before is replaced, any other is refused.
    """

    model: Path
    machine: Path = Path("machine.json")
    trace: Path
    budget: str
    slo: str | None = None
    prices: str | None = None
    prefill: Path | None = None
    prefill_from: str | None = None
    gpu_rate: float | None = None
    efficiency: float = 0.5
    gpu_kv: str | None = None
    decode_ms: float | None = None
    replicas: int = 1
    tp_size: int = 1
    dtype: str | None = None
    speedup: float = 1.0
    minimise: str = "ttft_mean"
    directory: tuple[Path, ...] = ()
    evaluations: int = 40
    requests_max: int = 20_000
    emit: Literal["flexkv"] | None = None
    output: Path = Path("tiercel.yaml")

    def __post_init__(self) -> None:
        if self.minimise not in TIMES:
            raise problem(
                "--minimise", self.minimise, f"must be one of {', '.join(TIMES)}", "take ttft_mean or ttft_p99"
            )
        for name, least in (("evaluations", 1), ("requests_max", 1)):
            if getattr(self, name) < least:
                raise problem(
                    f"--{name.replace('_', '-')}", getattr(self, name), f"must be at least {least}", "leave it out"
                )
        if not 0 < self.speedup < math.inf:
            raise problem(
                "--speedup", self.speedup, "must be a positive number", "leave it out for the trace's own pace"
            )
        _require_writable(self.output, "--output")
        if self.emit == "flexkv":
            _require_writable(self.flexkv_output, "--emit flexkv")
        if sum(source is not None for source in (self.prefill, self.prefill_from, self.gpu_rate)) != 1:
            raise ConfigError("--prefill, --prefill-from, --gpu-rate: one of them must say how fast the engine computes "
                              "prompts; give --gpu-rate 989e12 for an H100 if nobody measured it")  # fmt: skip

    @property
    def flexkv_output(self) -> Path:
        """The file beside `output` that FlexKV's configuration is written to."""
        return self.output.with_name("flexkv.yaml")


def _require_writable(path: Path, option: str) -> None:
    """Refuse what cannot be written before a search is spent on it, and files that somebody else wrote."""
    if not path.absolute().parent.is_dir():
        raise problem(option, str(path), "lies in no folder", "create the folder first")
    if path.is_dir():
        raise problem(option, str(path), "is a folder", "name a file")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise problem(option, str(path), "cannot be written", "name a file where you may write, with --output")
    if path.is_file() and not path.read_bytes()[: len(HEADER)] == HEADER.encode():
        raise problem(option, str(path), "is there already, and was not written by tiercel advise",
                      "name another file with --output, or move that one away")  # fmt: skip


class Asked:
    """The files of the options, read, and the question that they make. Reading happens on first use."""

    def __init__(self, options: AdviseOptions, read_trace: Callable[[Path], Trace], *, seed: int = 0) -> None:
        """seed: of the simulated blocks' keys; the same question with the same seed gets the same answer."""
        self.options = options
        self._seed = seed
        self.budget: Budget = parse_budget(options.budget)
        self.slo: Slo = parse_slo(options.slo) if options.slo is not None else Slo()
        self.prices: Prices | None = None
        if options.prices is not None:
            self.prices = parse_prices(options.prices, self.budget)
        self.model = ModelConfig.from_model(options.model, dtype=options.dtype, tp_size=options.tp_size)
        self.model.require_full_attention()
        self.machine: Machine = read_machine(options.machine)
        self.directories = self._directories()
        self.trace = read_trace(options.trace)
        self._require_room()

    def _directories(self) -> list[str]:
        given = [str(path) for path in self.options.directory]
        measured = [directory.path for directory in self.machine.directories]
        if self.budget.disk_bytes and not measured:
            raise problem("--budget disk", format_bytes(self.budget.disk_bytes), f"cannot be judged: {self.options.machine} has "
                          "no directory measured", "run tiercel probe with --directory, or leave disk out")  # fmt: skip
        return given or measured

    def _require_room(self) -> None:
        """Refuse a budget in which no block has room."""
        block_bytes = self.model.token_size_in_bytes * 16
        for tier, size in (("host", self.budget.host_bytes), ("disk", self.budget.disk_bytes)):
            if 0 < size < block_bytes:
                raise problem(f"--budget {tier}", format_bytes(size), f"holds not one block of 16 tokens, "
                              f"{format_bytes(block_bytes)}", f"give more, or {tier}=0")  # fmt: skip

    @property
    def notes(self) -> list[str]:
        """What to know of the inputs."""
        setup = self.setup(Candidate(host_bytes=self.budget.host_bytes, disk_bytes=self.budget.disk_bytes))
        notes = [*self.trace.notes, *setup.notes]
        memory, free = self.machine.memory_bytes, sum(each.free_bytes for each in self.machine.directories)
        if self.budget.host_bytes > memory:
            notes.append(
                f"the budget's {format_bytes(self.budget.host_bytes)} of host memory are more than the measured machine has, "
                f"{format_bytes(memory)}"
            )
        if self.budget.disk_bytes > free:
            notes.append(
                f"the budget's {format_bytes(self.budget.disk_bytes)} of disk are more than the measured directories have free, "
                f"{format_bytes(free)}"
            )
        if self.budget.disk_bytes and self._span_s <= WRITES_SAVED_S:
            notes.append(
                f"{self._span_s / 60:.0f} minutes of trace are too short for write budgets, which save up an hour's: none "
                "is tried"
            )
        return list(dict.fromkeys(notes))

    @property
    def _span_s(self) -> float:
        return self.trace.span_s / self.options.speedup

    @cached_property
    def prefill(self) -> PrefillSource:
        """How fast the engine computes prompts."""
        options = self.options
        if options.prefill is not None:
            return prefill_of_file(options.prefill)
        if options.prefill_from is not None:
            return prefill_of_cache(options.prefill_from)
        assert options.gpu_rate is not None  # as the options were checked
        return prefill_of_model(options.model, self.model, gpu_flops=options.gpu_rate, efficiency=options.efficiency)

    def setup(self, candidate: Candidate) -> SimulationSetup:
        """Return what is simulated of a candidate, with transfers as the machine does them best."""
        options = self.options
        transfer = choose_transfer(
            self.machine, self.model, candidate.tokens_per_block, has_disk=candidate.disk_bytes > 0
        )
        engine = EngineFacts(
            prefill=self.prefill,
            decode_token_s=None if options.decode_ms is None else options.decode_ms / 1e3,
            kv_bytes=options.gpu_kv,
            replicas=options.replicas,
        )
        config = CacheConfig(**candidate.settings(self.directories), **transfer.settings)
        return make_setup(config, self.model, self.machine, engine, speedup=options.speedup)

    def oracle(self) -> SimulatedOracle:
        """Return who answers what candidates come to."""
        return SimulatedOracle(
            self.trace,
            Forecaster(self.trace),
            self.setup,
            partial(simulate, seed=self._seed),
            requests_max=self.options.requests_max,
        )

    def question(self) -> Question:
        """Return the question."""
        trace, model = self.trace, self.model
        distinct_bytes = float(trace.num_blocks) * trace.tokens_per_block * model.token_size_in_bytes
        return Question(
            model=model,
            machine=self.machine,
            budget=self.budget,
            objective=Objective(
                slo=self.slo,
                minimise=self.options.minimise,
                prices=self.prices,
                num_gpus=model.tp_size,
                disk_writes_per_day=self.budget.disk_writes_per_day,
            ),
            space=space_of(
                self.budget,
                distinct_bytes=distinct_bytes,
                span_s=self._span_s,
                of_flexkv=self.options.emit == "flexkv",
                token_bytes=model.token_size_in_bytes,
            ),
            mean_prompt_tokens=float(np.mean(trace.input_tokens)) if trace.num_requests else 0.0,
            evaluations_max=self.options.evaluations,
        )
