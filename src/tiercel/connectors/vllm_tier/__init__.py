"""Tiercel's disk as a secondary tier behind vLLM's own offloading.

    --kv-transfer-config '{"kv_connector": "OffloadingConnector", "kv_role": "kv_both", "kv_connector_extra_config": {
        "spec_name": "TieringOffloadingSpec", "cpu_bytes_to_use": 17179869184, "secondary_tiers": [
            {"type": "TiercelTier", "module_path": "tiercel.connectors.vllm_tier",
             "ssd_cache_dir": "/nvme/kv", "num_ssd_blocks": "200GiB"}]}}'

vLLM keeps its GPU and host memory; this tier keeps chunks of the host memory in files that are bounded, verified on every
read and warm after a restart. The tier's other keys are Tiercel's settings. Importing this package imports vLLM.
"""

from tiercel.connectors.vllm_tier import versions

versions.require()

from tiercel.connectors.vllm_tier.tier import TiercelTier  # noqa: E402  # what is imported there needs the version above

__all__ = ["TiercelTier"]
