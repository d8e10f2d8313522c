"""Tiercel's lines in vLLM's log: its warnings and fallbacks, with the request's id, and one line that says what was opened.

vLLM gives handlers to its own logger only, so lines of another package below a warning would be lost. Whoever gave the logger
`tiercel` a handler keeps what they asked for.
"""

import copy
import logging

from tiercel import CacheConfig, CacheFacade, NodeClient, __version__
from tiercel.telemetry.logs import current_request_id

_OURS = "tiercel"


class _Forwarding(logging.Handler):
    """Hands lines to another logger's handlers, in their format and as far as their levels let them."""

    def __init__(self, theirs: logging.Logger) -> None:
        super().__init__()
        self._theirs = theirs

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on one line, under the request that it belongs to."""
        request_id = current_request_id()
        if request_id is not None:
            record = copy.copy(record)
            record.msg, record.args = f"{record.getMessage()} request_id={request_id}", None
        self._theirs.callHandlers(record)


def join_log(theirs: logging.Logger) -> None:
    """Send Tiercel's lines where another logger's go, at its level, unless they go somewhere or it has no handlers itself."""
    ours = logging.getLogger(_OURS)
    if ours.handlers or not theirs.handlers:
        return
    ours.addHandler(_Forwarding(theirs))
    ours.setLevel(theirs.getEffectiveLevel())
    ours.propagate = False


def node_line(client: NodeClient, endpoint: str) -> str:
    """Say whose cache is used, and what it is."""
    return f"{start_line(client, client.config)}; the cache is that of the node at {endpoint}"


def start_line(cache: CacheFacade, config: CacheConfig) -> str:
    """Say what was opened: version, model, blocks, tiers with their directories and what they hold, fingerprint, fallbacks."""
    status = cache.stats()
    geometry = cache.geometry
    size = f"blocks of {geometry.tokens_per_block} tokens, {geometry.block_bytes} bytes"
    parts = [f"Tiercel {__version__} keeps {status.model}: {size}"]
    for tier in status.tiers:
        text = f"{tier.name} {tier.num_slots} blocks ({tier.num_slots * geometry.block_bytes / 2**30:.1f} GiB)"
        if tier.name == "disk":
            text += f" in {', '.join(map(str, config.ssd_cache_dirs))}, {tier.num_ready} found there"
        parts.append(text)
    parts.append(f"fingerprint {status.fingerprint}")
    parts.append("fallbacks: " + ("; ".join(status.notes) or "none"))
    return "; ".join(parts)
