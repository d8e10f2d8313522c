"""How large the end-to-end benchmark with vLLM is: the model's shape, prompt lengths and counts. Two scales, one code."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The fields of a Llama's `config.json` that set its size, under their names there."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int

    @property
    def token_bytes(self) -> int:
        """Bytes of KV of one token, in bfloat16."""
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim * 2


@dataclass(frozen=True, kw_only=True)
class Length:
    """One length of prompt: how many prompts, and how often the round of hits goes over them.

    Tokens are 8 short of whole blocks, so that any hit computes the same 8 tokens and its outputs can be compared. In arms that
    empty the GPU by going round, `num_prompts` of this length must exceed the engine's own cache by more than one.
    """

    name: str
    tokens: int
    num_prompts: int
    num_prompts_alone: int
    num_prompts_disk: int
    rounds: int
    rounds_disk: int


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Everything that differs between an H100 and a smoke test."""

    shape: Shape
    lengths: tuple[Length, ...]
    block_tokens: int
    num_gpu_blocks: int
    max_model_tokens: int
    max_batched_tokens: int
    tail_tokens: int
    stream_tokens: int
    stream_outputs: int
    arrives_after: int
    num_arrivals: int
    itl_outputs: int
    conversation_tokens: int
    turn_tokens: int
    num_conversations: int
    num_turns: int
    turn_outputs: int
    engine_options: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    bounds: bool = False

    @property
    def longest(self) -> Length:
        return self.lengths[-1]

    def full_tokens(self, length: Length) -> int:
        """Tokens in whole blocks: what a hit brings."""
        return (length.tokens - 1) // self.block_tokens * self.block_tokens


H100 = Scale(
    shape=Shape(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=128256,
    ),
    lengths=(
        Length(
            name="4K",
            tokens=4088,
            num_prompts=28,
            num_prompts_alone=12,
            num_prompts_disk=10,
            rounds=1,
            rounds_disk=1,
        ),
        Length(
            name="16K",
            tokens=16376,
            num_prompts=9,
            num_prompts_alone=7,
            num_prompts_disk=3,
            rounds=1,
            rounds_disk=2,
        ),
        Length(
            name="32K",
            tokens=32760,
            num_prompts=6,
            num_prompts_alone=6,
            num_prompts_disk=2,
            rounds=2,
            rounds_disk=3,
        ),
    ),
    block_tokens=16,
    num_gpu_blocks=6400,
    max_model_tokens=34816,
    max_batched_tokens=8192,
    tail_tokens=1016,
    stream_tokens=2040,
    stream_outputs=200,
    arrives_after=40,
    num_arrivals=3,
    itl_outputs=129,
    conversation_tokens=4096,
    turn_tokens=3072,
    num_conversations=16,
    num_turns=4,
    turn_outputs=64,
    engine_options={
        "gpu_memory_utilization": 0.9,
        "compilation_config": {"cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32, 64]},
    },
    bounds=True,
)

SMOKE = Scale(
    shape=Shape(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        vocab_size=1024,
    ),
    lengths=(
        Length(
            name="120",
            tokens=120,
            num_prompts=16,
            num_prompts_alone=3,
            num_prompts_disk=11,
            rounds=1,
            rounds_disk=1,
        ),
        Length(
            name="504",
            tokens=504,
            num_prompts=4,
            num_prompts_alone=3,
            num_prompts_disk=3,
            rounds=2,
            rounds_disk=2,
        ),
    ),
    block_tokens=32,  # the CPU platform's least
    num_gpu_blocks=36,
    max_model_tokens=640,
    max_batched_tokens=512,
    tail_tokens=40,
    stream_tokens=24,
    stream_outputs=24,
    arrives_after=8,
    num_arrivals=2,
    itl_outputs=17,
    conversation_tokens=64,
    turn_tokens=64,
    num_conversations=4,
    num_turns=3,
    turn_outputs=8,
    engine_options={"enforce_eager": True},
    environment={
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the CPU platform spawns: the engine's process would lack the loader
        "VLLM_LOGGING_LEVEL": "WARNING",
        "OMP_NUM_THREADS": "1",
    },
)
