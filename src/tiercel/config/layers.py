"""Which layers of a model keep which kind of state, read from the facts of its config.json.

Models say it in many spellings; each spelling is one small reader below, tried in order. What looks like a hybrid
model but cannot be read layer by layer is recorded as hybrid in all layers: such a model is refused rather than half
stored.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tiercel.config.messages import problem

FULL_ATTENTION = "full_attention"
"""Name of the layers whose KV grows by every token and is kept whole; the only ones that this version stores."""

_SLIDING = "sliding_attention"
_CHUNKED = "chunked_attention"
_LINEAR = "linear_attention"

_LONGEST = 2**40
"""Tokens beyond which a sequence counts as endless."""

Facts = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class LayerGroup:
    """Layers of one model that keep the same kind of state.

    Attributes:
        name: such as full_attention, sliding_attention, chunked_attention or linear_attention.
        layers: indices of the layers, ascending.
        window: tokens that a layer looks back, None where it looks back over everything or keeps a state instead.
    """

    name: str
    layers: tuple[int, ...]
    window: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not isinstance(self.name, str) or not self.name:
            raise problem("layer_groups.name", self.name, "must be text", f"use {FULL_ATTENTION!r} or the like")
        if not all(type(layer) is int for layer in self.layers):
            raise problem("layer_groups.layers", self.layers, "must be integers", "list layer indices from 0")
        if not self.layers or list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 0:
            raise problem(
                "layer_groups.layers", self.layers, "must be ascending layer indices from 0", "list them once"
            )
        if self.window is not None and (type(self.window) is not int or self.window < 1):
            raise problem("layer_groups.window", self.window, "must be at least 1 token", "leave it out for no window")


def read_groups(facts: Facts, num_layers: int) -> tuple[LayerGroup, ...]:
    """Return the groups of a model's layers, each layer in exactly one.

    Raises:
        ConfigError: a list of layers does not have num_layers entries.
    """
    kinds = next((found for read in _READERS if (found := read(facts, num_layers)) is not None), None)
    if kinds is None:
        kinds = [FULL_ATTENTION] * num_layers
    kinds = _with_special_layers(facts, kinds)
    windows = {
        _SLIDING: _int(facts, "sliding_window", "attention_window_size"),
        _CHUNKED: _int(facts, "attention_chunk_size"),
    }
    return tuple(
        LayerGroup(name=name, layers=tuple(i for i, kind in enumerate(kinds) if kind == name), window=windows.get(name))
        for name in dict.fromkeys(kinds)
    )


def _with_special_layers(facts: Facts, kinds: list[str]) -> list[str]:
    """Mark layers whose cache is not their own or not of the common shape."""
    shared = _int(facts, "num_kv_shared_layers") or 0
    cross = facts.get("cross_attention_layers")
    crossing: list[object] = cross if isinstance(cross, list) else []
    if facts.get("index_head_dim") is not None:
        return ["indexed_attention"] * len(kinds)  # each layer also caches the indexer's keys
    return [
        "cross_attention" if i in crossing else "shared_attention" if i >= len(kinds) - shared else kind
        for i, kind in enumerate(kinds)
    ]


def _from_list(facts: Facts, num_layers: int) -> list[str] | None:
    for key in ("layer_types", "layers_block_type"):
        found = facts.get(key)
        if isinstance(found, list):
            if len(found) != num_layers:
                raise problem(
                    key, found, f"has {len(found)} entries for {num_layers} layers", "correct the config.json"
                )
            return [_plain(str(kind)) for kind in found]
    return None


def _plain(kind: str) -> str:
    return FULL_ATTENTION if kind in ("attention", "full", "global_attention") else kind


def _from_repeated_blocks(facts: Facts, num_layers: int) -> list[str] | None:
    blocks = facts.get("block_types")  # RecurrentGemma: its attention looks back over a window
    if not isinstance(blocks, list) or not blocks:
        return None
    return [
        _SLIDING if blocks[i % len(blocks)] == "attention" else str(blocks[i % len(blocks)]) for i in range(num_layers)
    ]


def _from_letters(facts: Facts, num_layers: int) -> list[str] | None:
    letters = facts.get("hybrid_override_pattern")  # Nemotron-H
    if not isinstance(letters, str):
        return None
    names = {"M": "mamba", "*": FULL_ATTENTION, "-": "no_state", "E": "no_state"}
    if len(letters) != num_layers or not set(letters) <= set(names):
        raise problem(
            "hybrid_override_pattern", letters, f"must be {num_layers} of M, *, - and E", "correct the config.json"
        )
    return [names[letter] for letter in letters]


def _from_numbers(facts: Facts, num_layers: int) -> list[str] | None:
    flags = facts.get("attn_type_list")  # MiniMax: 1 is full attention
    if isinstance(flags, list) and len(flags) == num_layers:
        return [FULL_ATTENTION if flag == 1 else _LINEAR for flag in flags]
    indices = facts.get("attn_layer_indices")  # Bamba
    if isinstance(indices, list):
        return [FULL_ATTENTION if i in indices else "mamba" for i in range(num_layers)]
    period, offset = _int(facts, "attn_layer_period"), _int(facts, "attn_layer_offset") or 0  # Jamba
    if period:
        return [FULL_ATTENTION if i % period == offset else "mamba" for i in range(num_layers)]
    interval = _int(facts, "full_attention_interval")  # Qwen3-Next
    if interval:
        return [FULL_ATTENTION if (i + 1) % interval == 0 else _LINEAR for i in range(num_layers)]
    return None


def _from_chunks(facts: Facts, num_layers: int) -> list[str] | None:
    if _int(facts, "attention_chunk_size") is None:  # Llama 4: layers with rotary positions are chunked
        return None
    rotary = facts.get("no_rope_layers")
    if isinstance(rotary, list) and len(rotary) == num_layers:
        return [_CHUNKED if flag else FULL_ATTENTION for flag in rotary]
    step = _int(facts, "no_rope_layer_interval") or 4
    return [FULL_ATTENTION if (i + 1) % step == 0 else _CHUNKED for i in range(num_layers)]


def _from_window(facts: Facts, num_layers: int) -> list[str] | None:
    window = _int(facts, "sliding_window")
    if window is None or facts.get("use_sliding_window") is False or window >= _longest_sequence(facts):
        return None
    pattern = facts.get("sliding_window_pattern") or facts.get("_sliding_window_pattern")
    if isinstance(pattern, str) and pattern:  # Exaone 4: L local, G global
        return [FULL_ATTENTION if pattern[i % len(pattern)] == "G" else _SLIDING for i in range(num_layers)]
    if type(pattern) is int and pattern > 1:
        return [FULL_ATTENTION if (i + 1) % pattern == 0 else _SLIDING for i in range(num_layers)]
    first = _int(facts, "max_window_layers") if facts.get("use_sliding_window") else None
    return [_SLIDING if i >= (first or 0) else FULL_ATTENTION for i in range(num_layers)]


def _longest_sequence(facts: Facts) -> float:
    """Tokens of the longest sequence, scaled positions included. A window as long hides nothing."""
    longest = _int(facts, "max_position_embeddings")
    scaling = facts.get("rope_scaling")
    factor = scaling.get("factor") if isinstance(scaling, Mapping) else None
    if longest is None or longest > _LONGEST:
        return float("inf")
    return longest * max(1.0, min(factor, _LONGEST)) if isinstance(factor, (int, float)) else longest


def _from_hints(facts: Facts, num_layers: int) -> list[str] | None:
    """State-space or linear-attention settings without a list of layers: every layer may keep such a state."""
    prefixes = ("mamba_", "ssm_", "linear_", "lightning_", "rwkv", "time_mix_", "conv_L")
    hints = [key for key, value in facts.items() if key.startswith(prefixes) and value]
    return [_LINEAR] * num_layers if hints else None


_READERS: tuple[Callable[[Facts, int], list[str] | None], ...] = (
    _from_list,
    _from_repeated_blocks,
    _from_letters,
    _from_numbers,
    _from_chunks,
    _from_window,
    _from_hints,
)


def _int(facts: Facts, *keys: str) -> int | None:
    for key in keys:
        value = facts.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None
