"""vLLM with Tiercel behind its KV cache: the connector that vLLM loads by this module's path.

    vllm serve MODEL --kv-transfer-config '{"kv_connector": "TiercelConnector",
        "kv_connector_module_path": "tiercel.connectors.vllm", "kv_role": "kv_both",
        "kv_connector_extra_config": {"num_cpu_blocks": "64GiB"}}'

`connector` is what vLLM calls; it hands each call to one of two halves. `scheduling` (with `staging`, `requests`, `keys`)
decides what is loaded and stored, `working` launches it, and `engine` is what both share: the cache, its memory, the
counts. Where workers have processes of their own, `rank_working` is their half and `launching` launches beside the cache;
`reach` is how either way reaches the blocks. `facts`, `identity`, `model`, `pages` and `settings` turn vLLM's configuration into
the cache's; `versions` knows which vLLM this fits; `logs` speaks to the operator. Only `connector` imports vLLM, and only when it
is asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiercel.connectors.vllm.connector import TiercelConnector

__all__ = ["TiercelConnector"]


def __getattr__(name: str) -> object:
    if name != "TiercelConnector":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tiercel.connectors.vllm.connector import TiercelConnector

    return TiercelConnector
