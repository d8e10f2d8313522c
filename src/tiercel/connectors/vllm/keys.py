"""What of a vLLM request enters its keys besides the tokens, none of it from vLLM's own hashes.

Namespace: the LoRA adapter and the cache salt. Extras of a block: each multimodal item that reaches into it and where that
item begins, seen from the block. Prompts given as embeddings have no tokens to name them by and are not cached.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from tiercel import Cache, Sequence


class Adapters:
    """Names LoRA adapters by what they are, not only by what they are called."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, int, str], str] = {}

    def name(self, lora: Any) -> str:
        """Return a name that changes with the adapter's files. They are looked at when the adapter is first met, as vLLM
        does, and again when it is told to load them anew."""
        key = (str(lora.lora_name), int(lora.lora_int_id), str(lora.lora_path))
        if key not in self._names or getattr(lora, "load_inplace", False):
            self._names[key] = json.dumps([key[0], key[2], _files(Path(key[2]))])
        return self._names[key]


def _files(folder: Path) -> str:
    if not folder.is_dir():
        return ""
    digest = hashlib.sha256()
    for entry in sorted(folder.iterdir()):
        found = entry.stat()
        digest.update(f"{entry.name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def is_cacheable(request: Any) -> bool:
    """Whether tokens say all that there is to say of a request's prompt, now and later."""
    return (
        request.prompt_token_ids is not None
        and getattr(request, "prompt_embeds", None) is None
        and getattr(request, "prompt_is_token_ids", None) is None
        and not getattr(request, "resumable", False)
    )


def make_sequence(cache: Cache, request: Any, adapters: Adapters) -> Sequence:
    """Start a cacheable request's sequence with the tokens that it has so far."""
    sequence = cache.sequence(namespace=_namespace(request, adapters))
    sequence.extend(request.all_token_ids[:], block_extras(request.mm_features, sequence.tokens_per_block))
    return sequence


def _namespace(request: Any, adapters: Adapters) -> str:
    parts = []
    if request.lora_request is not None:
        parts.append(["lora", adapters.name(request.lora_request)])
    if request.cache_salt:
        parts.append(["salt", request.cache_salt])
    return json.dumps(parts) if parts else ""


def block_extras(features: Any, tokens_per_block: int) -> dict[int, bytes]:
    """Return, for each block that a multimodal item reaches into, the items and where they begin."""
    items: dict[int, list[list[object]]] = {}
    for feature in features or ():
        start, length = int(feature.mm_position.offset), int(feature.mm_position.length)
        if length:
            for block in range(start // tokens_per_block, (start + length - 1) // tokens_per_block + 1):
                items.setdefault(block, []).append([feature.identifier, start - block * tokens_per_block])
    return {block: json.dumps(sorted(found, key=str)).encode() for block, found in items.items()}
