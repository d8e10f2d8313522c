"""Small traces and setups that replay in a fraction of a second."""

import json
import random
from pathlib import Path
from typing import Any

from tiercel import CacheConfig, ModelConfig
from tiercel.costs import PrefillCurve
from tiercel.tune.machine import DirectoryFigures, DiskFigure, Figure, Machine, write_machine
from tiercel.tune.replay import Pace, ReplaySetup
from tiercel.tune.simulate import EngineModel
from tiercel.tune.traces import Trace, TraceBuilder

TOKENS_PER_BLOCK = 4
MODEL = ModelConfig(model_id="small", num_layers=2, num_kv_heads=3, head_size=5, dtype="bfloat16")
"""480 bytes a block."""


def random_trace(seed: int, *, num_requests: int = 60, num_documents: int = 8, span_s: float = 0.0) -> Trace:
    """Requests that begin with a part of one of some documents and go on by themselves, often ending within a block."""
    chance = random.Random(seed)
    builder = TraceBuilder(f"random {seed}", tokens_per_block=TOKENS_PER_BLOCK)
    documents = [[100 * number + at for at in range(chance.randrange(1, 12))] for number in range(num_documents)]
    for number in range(num_requests):
        document = chance.choice(documents)
        blocks = document[: chance.randrange(0, len(document) + 1)]
        blocks += [10_000 + 100 * number + at for at in range(chance.randrange(0, 4))]
        input_tokens = max(0, len(blocks) * TOKENS_PER_BLOCK - chance.randrange(0, TOKENS_PER_BLOCK))
        builder.add(
            blocks,
            arrival_s=span_s * number / num_requests,
            input_tokens=input_tokens,
            output_tokens=chance.randrange(0, 12),
        )
    return builder.build()


def settings(directory: Path, *, host: int = 24, disk: int = 0, **others: Any) -> CacheConfig:
    """Settings of a small cache; capacities in blocks, 0 for no such tier."""
    return CacheConfig(
        tokens_per_block=TOKENS_PER_BLOCK,
        enable_cpu=host > 0,
        num_cpu_blocks=max(1, host),
        enable_ssd=disk > 0,
        num_ssd_blocks=max(1, disk),
        ssd_cache_dir=str(directory),
        **others,
    )


def setup(config: CacheConfig, *, pace: Pace = Pace.LOCKSTEP, speedup: float = 1.0, **engine: Any) -> ReplaySetup:
    """A setup whose engine takes no time, unless told otherwise."""
    given: dict[str, Any] = {"prefill": PrefillCurve(), **engine}
    model = EngineModel(**given)
    return ReplaySetup(model=MODEL, config=config, engine=model, pace=pace, speedup=speedup)


def machine(directory: Path) -> Machine:
    """A machine that nobody measured: 2 GB/s in memory, 500 MB/s on disk."""

    def figure(value: float) -> Figure:
        return Figure(value=value, low=value, high=value, repeats=3)

    disk = tuple(
        DiskFigure(
            operation=operation,
            block_bytes=4096,
            depth=8,
            bytes_per_s=figure(500e6),
            latency_p50_s=1e-4,
            latency_p99_s=1e-3,
        )
        for operation in ("read", "write")
    )
    folder = DirectoryFigures(
        path=str(directory),
        filesystem="ext4",
        capacity_bytes=1 << 40,
        free_bytes=1 << 40,
        engine="io_uring",
        direct=True,
        figures=disk,
    )
    return Machine(
        measured_at=0.0,
        tiercel="0.1.0",
        cpu="none",
        num_cores=2,
        memory_bytes=1 << 40,
        kernel="none",
        copy_bytes_per_s=figure(2e9),
        checksum_bytes_per_s=figure(1e10),
        hash_tokens_per_s=figure(1e8),
        directories=(folder,),
    )


def write_inputs(tmp_path: Path) -> list[str]:
    """Write a trace, settings, a model, a machine and a prefill curve; return a command's words that name all but the machine."""
    rows = [
        {"timestamp": 20 * number, "input_length": 40, "output_length": 5, "hash_ids": [number % 7, 100 + number]}
        for number in range(40)
    ]
    (tmp_path / "trace.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tiercel.yaml").write_text(
        f"tokens_per_block: 16\nnum_cpu_blocks: 64\nenable_ssd: true\nnum_ssd_blocks: 128\n"
        f"ssd_cache_dir: {tmp_path / 'ssd'}\nload_policy: always\n"
    )
    facts = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "torch_dtype": "bfloat16",
    }
    (tmp_path / "config.json").write_text(json.dumps(facts))
    (tmp_path / "prefill.json").write_text('{"fixed_s": 0.001, "token_s": 0.0001}')
    write_machine(machine(tmp_path / "ssd"), tmp_path / "machine.json")
    given = {"config": "tiercel.yaml", "model": "config.json", "prefill": "prefill.json"}
    options = [word for name, file in given.items() for word in (f"--{name}", str(tmp_path / file))]
    return [str(tmp_path / "trace.jsonl"), "--tokens-per-block", "32", *options]
