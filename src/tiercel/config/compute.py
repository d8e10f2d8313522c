"""What a model's prefill computes, counted from its config.json: matrix products a token, and attention a pair of tokens.

Counted are the weights that a token meets in every layer, two operations each, and the products of a query with a key and of
a weight with a value. Left out are embeddings, norms, activations and the output head, which prefill needs for one token only.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tiercel.config.huggingface import (
    HEADS_KEYS,
    HIDDEN_KEYS,
    LAYERS_KEYS,
    Source,
    count_of,
    head_size_of,
    kv_heads_of,
    read_content,
    text_facts,
)

_INNER = ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "d_ff")
_EXPERTS = ("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts")
_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "top_k_experts")
_UNGATED_NAMES = "bloom codegen falcon gpt2 gpt_bigcode gpt_neo gpt_neox gptj mpt nemotron opt persimmon phi starcoder2"
_UNGATED = frozenset(_UNGATED_NAMES.split())
"""Models whose feed-forward part has two matrices; all others have a gate, and three."""


@dataclass(frozen=True, kw_only=True)
class PrefillWork:
    """Floating point operations of a prefill.

    Attributes:
        flops_per_token: of the matrices that each token meets.
        flops_per_pair: of attention, for each pair of a token and one that it attends to.
    """

    flops_per_token: float
    flops_per_pair: float


def read_prefill_work(source: Source) -> PrefillWork:
    """Count a model's work from its config.json, a folder that holds one, or the file's content.

    Raises:
        ConfigError: the file cannot be read, or lacks a fact; the message names the key.
    """
    text = text_facts(source if isinstance(source, Mapping) else read_content(source)[2])
    hidden, layers = count_of(text, HIDDEN_KEYS), count_of(text, LAYERS_KEYS)
    projections, pair = _attention(text, hidden)
    dense, sparse = _feed_forward(text, hidden)
    num_sparse = _num_sparse_layers(text, layers)
    matrices = layers * projections + (layers - num_sparse) * dense + num_sparse * sparse
    return PrefillWork(flops_per_token=2.0 * matrices, flops_per_pair=2.0 * layers * pair)


def _attention(text: Mapping[str, object], hidden: int) -> tuple[int, int]:
    """Weights of one layer's projections, and products of a pair of tokens."""
    heads = count_of(text, HEADS_KEYS)
    if text.get("kv_lora_rank") is not None:
        rank, rope = count_of(text, ("kv_lora_rank",)), count_of(text, ("qk_rope_head_dim",))
        plain, value = count_of(text, ("qk_nope_head_dim",)), count_of(text, ("v_head_dim",))
        key = plain + rope
        if text.get("q_lora_rank") is not None:
            query_rank = count_of(text, ("q_lora_rank",))
            queries = hidden * query_rank + query_rank * heads * key
        else:
            queries = hidden * heads * key
        latent = hidden * (rank + rope) + rank * heads * (plain + value)
        return queries + latent + heads * value * hidden, heads * (key + value)
    size = head_size_of(text)
    kv_heads = kv_heads_of(text)
    return 2 * hidden * size * (heads + kv_heads), 2 * heads * size


def _feed_forward(text: Mapping[str, object], hidden: int) -> tuple[int, int]:
    """Weights that a token meets in a dense layer, and in one of experts."""
    ungated = str(text.get("model_type")) in _UNGATED
    matrices = 2 if ungated else 3
    inner = 4 * hidden if ungated and not any(key in text for key in _INNER) else count_of(text, _INNER)
    dense = matrices * hidden * inner
    if not any(key in text for key in _EXPERTS):
        return dense, dense
    expert = count_of(text, ("moe_intermediate_size",)) if "moe_intermediate_size" in text else inner
    shared = _optional(text, ("shared_expert_intermediate_size",))
    shared += _optional(text, ("n_shared_experts", "num_shared_experts")) * expert
    chosen = count_of(text, _CHOSEN)
    return dense, matrices * hidden * (chosen * expert + shared) + hidden * count_of(text, _EXPERTS)


def _optional(text: Mapping[str, object], names: tuple[str, ...]) -> int:
    """As `count_of`, and 0 where none of the keys is there or the value is 0."""
    return count_of(text, names) if any(text.get(key) for key in names) else 0


def _num_sparse_layers(text: Mapping[str, object], layers: int) -> int:
    if not any(key in text for key in _EXPERTS):
        return 0
    dense_first = text.get("first_k_dense_replace")
    if isinstance(dense_first, int):
        return max(0, layers - dense_first)
    step, plain = text.get("decoder_sparse_step"), text.get("mlp_only_layers")
    listed = set(plain) if isinstance(plain, list) else set()
    every = step if isinstance(step, int) and step > 0 else 1
    return sum(1 for layer in range(layers) if layer not in listed and (layer + 1) % every == 0)
