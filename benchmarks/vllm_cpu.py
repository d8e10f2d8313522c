"""What does Tiercel cost and save a real vLLM engine on the CPU, end to end?

A Llama of 16 layers and 1,024 hidden units with vLLM's dummy weights, prompts of 4,096 tokens: 128 MiB of KV each. Three engines
take turns and swap who goes first: one without a connector, one with a connector that keeps nothing, which is what vLLM itself
takes for having any, and one with Tiercel.

    cold        a new prompt: TTFT and CPU seconds, the latter until every block is stored; of these, Tiercel's own: its
                threads, their helpers and the connector's calls, which says more than the difference of two noisy totals
    restart     the engine is closed and started anew; the same prompts come from disk
    own hit     the same prompt again, from vLLM's own prefix cache: what is left to pay when nothing is loaded
    dead store  the disk tier's files are cut to nothing under the running engine: what the next requests, of 512 tokens, pay
                beyond cold ones

    .venv-vllm/bin/python benchmarks/vllm_cpu.py [--repeats 6] [--tokens 4096] [--dir FOLDER] [--json FILE]
"""

import importlib.util
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _harness import Row, make_parser, report
from _vllm_cpu_engine import BARE, BLOCK_TOKENS, KV_BYTES_A_TOKEN, MODEL, EngineProcess, Extra, Sample, write_model

COLD_BOUND = 1.03
HIT_BOUND_S = 0.5
DEAD_BOUND_S = 0.2
_WARM_UP_TOKENS = 512
_SHORT_TOKENS, _SHORT_PROMPTS = 512, 9


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of a prompt")
    parser.add_argument(
        "--dir", type=Path, default=None, help="where the disk tier lies; by default a temporary folder"
    )
    arguments = parser.parse_args()
    if importlib.util.find_spec("vllm") is None:
        print(
            "vLLM is not installed: NOT measured (make setup-vllm, then .venv-vllm/bin/python benchmarks/vllm_cpu.py)"
        )
        return 0
    generator = random.Random(1)
    prompts = [random_prompt(generator, arguments.tokens) for _ in range(arguments.repeats or 6)]
    with tempfile.TemporaryDirectory(prefix="tiercel-benchmark-", dir=arguments.dir) as directory:
        folder = Path(directory)
        write_model(folder / "model")
        rows = [*cold(folder, prompts), *restarted(folder, prompts), *dead_store(folder, prompts, generator)]
    return report(rows, arguments.json)


def random_prompt(generator: random.Random, num_tokens: int) -> list[int]:
    return [generator.randrange(10, int(str(MODEL["vocab_size"]))) for _ in range(num_tokens)]


def settings(folder: Path, prompts: Sequence[list[int]], *, host_prompts: float) -> dict[str, Any]:
    """The connector's: a disk for all prompts, and host memory for so many."""
    blocks = len(prompts[0]) // BLOCK_TOKENS
    return {
        "num_cpu_blocks": max(1, int(host_prompts * blocks)),
        "enable_ssd": True,
        "num_ssd_blocks": (len(prompts) + 4) * blocks,
        "ssd_cache_dir": str(folder / "cache"),
        "load_policy": "always",
    }


def start(folder: Path, prompts: Sequence[list[int]], extra: Extra) -> EngineProcess:
    """Start an engine and let it run a short prompt, so that its kernels are ready."""
    engine = EngineProcess(folder / "model", len(prompts[0]) + 2 * BLOCK_TOKENS, extra)
    engine.run(random_prompt(random.Random(2), min(_WARM_UP_TOKENS, len(prompts[0]))))
    return engine


def cold(folder: Path, prompts: Sequence[list[int]]) -> list[Row]:
    """New prompts, the engines by turns. Tiercel's store leaves all of them on disk."""
    alone: list[Sample] = []
    bare: list[Sample] = []
    ours: list[Sample] = []
    with (
        start(folder, prompts, None) as plain,
        start(folder, prompts, BARE) as idle,
        start(folder, prompts, settings(folder, prompts, host_prompts=2)) as tiercel,
    ):
        for number, prompt in enumerate(prompts):
            turns: list[tuple[EngineProcess, list[Sample]]] = [(plain, alone), (idle, bare), (tiercel, ours)]
            for engine, samples in turns if number % 2 == 0 else reversed(turns):
                samples.append(engine.run(prompt))
                assert samples[-1].cached_tokens == 0
        own = [plain.run(prompts[-1], keep=True) for _ in prompts]
        assert all(sample.cached_tokens for sample in own)
        tiercel.close()
    return [
        row_of("cold, no connector: TTFT", alone, ttft, "s"),
        row_of("cold, Tiercel: TTFT", ours, ttft, "s"),
        ratios("cold: TTFT, Tiercel / no connector", ours, alone, ttft, None),
        row_of("cold, no connector: CPU", alone, lambda sample: sample.settled_s, "s"),
        row_of("cold, bare connector: CPU", bare, lambda sample: sample.settled_s, "s"),
        row_of("cold, Tiercel: CPU until all is stored", ours, lambda sample: sample.settled_s, "s"),
        ratios("cold: CPU, Tiercel / no connector", ours, alone, lambda sample: sample.settled_s, COLD_BOUND),
        ratios("cold: CPU, bare connector / none", bare, alone, lambda sample: sample.settled_s, None),
        ratios("cold: CPU, Tiercel / bare connector", ours, bare, lambda sample: sample.settled_s, COLD_BOUND),
        row_of("cold: CPU of Tiercel's own", ours, lambda sample: sample.own_s, "s"),
        row_of("cold: CPU, all / all but Tiercel's own", ours, beside_own, "", COLD_BOUND),
        row_of("own prefix cache: TTFT", own, ttft, "s"),
    ]


def restarted(folder: Path, prompts: Sequence[list[int]]) -> list[Row]:
    """A new engine on the directory that the last one left."""
    with start(folder, prompts, settings(folder, prompts, host_prompts=len(prompts) + 1)) as engine:
        disk = [engine.run(prompt) for prompt in prompts]
        host = [engine.run(prompt) for prompt in prompts]
        recomputed = dict(engine.status().activity.recompute)
        engine.close()
    whole = (len(prompts[0]) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
    found = [sample.cached_tokens for sample in (*disk, *host)]
    assert found == [whole] * len(found), f"{found} of {whole} tokens were found; {recomputed}"
    num_bytes = whole * KV_BYTES_A_TOKEN
    return [
        row_of("hit after restart, from disk: TTFT", disk, ttft, "s", HIT_BOUND_S),
        row_of("hit after restart, from disk: KV", disk, lambda sample: num_bytes / sample.ttft_s / 1e9, "GB/s"),
        row_of("hit after restart, from disk: CPU", disk, lambda sample: sample.settled_s, "s"),
        row_of("hit from host memory: TTFT", host, ttft, "s", HIT_BOUND_S),
        row_of("hit from host memory: CPU", host, lambda sample: sample.settled_s, "s"),
    ]


def dead_store(folder: Path, prompts: Sequence[list[int]], generator: random.Random) -> list[Row]:
    """Cut the disk tier's files to nothing under an engine; the prompts that it held are computed. Short ones: what is looked for
    would vanish in the noise of long ones."""
    short = [random_prompt(generator, _SHORT_TOKENS) for _ in range(_SHORT_PROMPTS)]
    with (
        start(folder, prompts, None) as plain,
        start(folder, prompts, settings(folder, prompts, host_prompts=0.01)) as engine,
    ):
        for prompt in short:
            engine.run(prompt)
        for path in (folder / "cache").rglob("data-*"):
            with path.open("r+b") as file:
                file.truncate(0)
        extra: list[float] = []
        for prompt in short:
            baseline = plain.run(random_prompt(generator, len(prompt)))
            extra.append(engine.run(prompt).ttft_s - baseline.ttft_s)
    return [
        Row(
            name="dead store: TTFT of the first request beyond a cold one", value=extra[0], unit="s", bound=DEAD_BOUND_S
        ),
        Row(
            name="dead store: of the requests after it",
            value=statistics.median(extra[1:] or extra),
            unit="s",
            spread=(min(extra[1:] or extra), max(extra[1:] or extra)),
        ),
    ]


def ttft(sample: Sample) -> float:
    return sample.ttft_s


def beside_own(sample: Sample) -> float:
    return sample.settled_s / (sample.settled_s - sample.own_s)


def row_of(
    name: str, samples: Sequence[Sample], value: Callable[[Sample], float], unit: str, bound: float | None = None
) -> Row:
    values = [value(sample) for sample in samples]
    return Row(name=name, value=statistics.median(values), unit=unit, bound=bound, spread=(min(values), max(values)))


def ratios(
    name: str, ours: Sequence[Sample], theirs: Sequence[Sample], value: Callable[[Sample], float], bound: float | None
) -> Row:
    """The median ratio of neighbours in time, and how far the pairs lie apart."""
    values = [value(mine) / value(other) for mine, other in zip(ours, theirs, strict=True)]
    return Row(name=name, value=statistics.median(values), unit="", bound=bound, spread=(min(values), max(values)))


if __name__ == "__main__":
    sys.exit(main())
