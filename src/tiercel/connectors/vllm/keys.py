"""What of a vLLM request enters its keys besides the tokens, none of it from vLLM's own hashes.

Namespace: the LoRA adapter and the cache salt. Extras of a block: each multimodal item that reaches into it and where that
item begins, seen from the block. Prompts given as embeddings have no tokens to name them by and are not cached.
"""

import hashlib
import json
import secrets
from pathlib import Path
from typing import Any

from tiercel import CacheFacade, Sequence

_NAMESPACE_CHARS_MAX = 1000
"""A longer one is told by its digest: salts are the clients' to choose, and a node takes no name of any length."""


class Adapters:
    """Names LoRA adapters by what they are, not only by what they are called.

    | the adapter's place | its name |
    |---|---|
    | a folder | its files by name, size and time |
    | a folder that changed since it was first met | none: vLLM may or may not have read it anew |
    | anything else (a hub's name) | known in this process only, since it can stand for other weights tomorrow |
    """

    def __init__(self) -> None:
        self._files: dict[tuple[str, int, str], str] = {}
        self._process = secrets.token_hex(16)

    def name(self, lora: Any) -> str | None:
        """Return a name that changes with the adapter's weights; None if they cannot be told."""
        key = (str(lora.lora_name), int(lora.lora_int_id), str(lora.lora_path))
        files = _files(Path(key[2]).expanduser())
        is_reloaded = bool(getattr(lora, "load_inplace", False))
        if files is None:
            return None if is_reloaded else json.dumps([*key, self._process])
        if is_reloaded:
            self._files[key] = files
        if self._files.setdefault(key, files) != files:
            return None
        return json.dumps([key[0], key[2], files])


def _files(folder: Path) -> str | None:
    """A digest of a folder's files; None if it is none that can be read."""
    digest = hashlib.sha256()
    try:
        for entry in sorted(folder.iterdir()):
            found = entry.stat()
            digest.update(f"{entry.name} {found.st_size} {found.st_mtime_ns}\n".encode(errors="surrogateescape"))
    except OSError:
        return None
    return digest.hexdigest()


def is_cacheable(request: Any, *, has_named_items: bool = True) -> bool:
    """Whether tokens and items say all that there is to say of a request's prompt, now and later.

    Args:
        has_named_items: multimodal items are named by what they hold (`facts.names_items`).
    """
    return (
        request.prompt_token_ids is not None
        and getattr(request, "prompt_embeds", None) is None
        and getattr(request, "prompt_is_token_ids", None) is None
        and not getattr(request, "resumable", False)
        and (has_named_items or not getattr(request, "mm_features", None))
    )


def make_sequence(cache: CacheFacade, request: Any, adapters: Adapters) -> Sequence | None:
    """Start a cacheable request's sequence with the tokens that it has so far; None if its adapter has no name."""
    namespace = _namespace(request, adapters)
    if namespace is None:
        return None
    sequence = cache.sequence(namespace=namespace)
    sequence.extend(request.all_token_ids[:], block_extras(request.mm_features, sequence.tokens_per_block))
    return sequence


def _namespace(request: Any, adapters: Adapters) -> str | None:
    parts = []
    if request.lora_request is not None:
        adapter = adapters.name(request.lora_request)
        if adapter is None:
            return None
        parts.append(["lora", adapter])
    if request.cache_salt:
        parts.append(["salt", request.cache_salt])
    text = json.dumps(parts) if parts else ""
    if len(text) > _NAMESPACE_CHARS_MAX:
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    return text


def block_extras(features: Any, tokens_per_block: int) -> dict[int, bytes]:
    """Return, for each block that a multimodal item reaches into, the items and where they begin."""
    items: dict[int, list[list[object]]] = {}
    for feature in features or ():
        start, length = int(feature.mm_position.offset), int(feature.mm_position.length)
        if length:
            for block in range(start // tokens_per_block, (start + length - 1) // tokens_per_block + 1):
                items.setdefault(block, []).append([feature.identifier, start - block * tokens_per_block])
    return {block: json.dumps(sorted(found, key=str)).encode() for block, found in items.items()}
