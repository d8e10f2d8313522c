"""What must hold of a vLLM engine before its KV can be kept: everything else is refused at start, by name.

One group of layers whose KV grows by every token and is kept whole, in the scheduler's process or in those of vLLM's "mp"
executor on the same host.
"""

from typing import Any

from tiercel import ConfigError

_WORKER_PROCESSES = "mp"
"""The executor that puts workers into processes of their own, on this host."""

_WHOLE = ("FullAttentionSpec", "MLAAttentionSpec", "TQFullAttentionSpec")
"""vLLM's names of layers whose KV is kept whole. Told apart by name, since the classes come and go with its versions."""

_TOKENS_PER_BLOCK_MAX = 1024


def require_parallelism(vllm_config: Any) -> None:
    """Raise ConfigError for an engine that is spread over ranks in a way that this version does not reach."""
    parallel = vllm_config.parallel_config
    for name in ("pipeline_parallel_size", "prefill_context_parallel_size", "decode_context_parallel_size", "nnodes"):
        value = getattr(parallel, name, 1)
        if value > 1:
            raise ConfigError(
                f"{name} = {value}: this version of TiercelConnector reaches engines with {name} = 1; "
                f"run vLLM so, or without this connector"
            )
    backend = getattr(parallel, "distributed_executor_backend", None)
    if backend == "ray":
        raise ConfigError(
            "distributed_executor_backend = ray: workers may run on other hosts, where TiercelConnector does not reach; "
            "set it to mp"
        )
    size = getattr(parallel, "tensor_parallel_size", 1)
    if size > 1 and backend != _WORKER_PROCESSES:
        raise ConfigError(
            f"tensor_parallel_size = {size} with distributed_executor_backend = {backend}: TiercelConnector reaches the "
            f"ranks of vLLM's own processes; set distributed_executor_backend to mp"
        )


def has_worker_processes(vllm_config: Any) -> bool:
    """Whether vLLM's workers run in processes of their own, beside the scheduler's."""
    return getattr(vllm_config.parallel_config, "distributed_executor_backend", None) == _WORKER_PROCESSES


def whole_group(kv_cache_config: Any) -> Any:
    """Return the one group of layers that there is.

    Raises:
        ConfigError: there are several, or one that does not keep every token's KV.
    """
    groups = list(kv_cache_config.kv_cache_groups)
    if len(groups) != 1:
        kinds = ", ".join(f"{type(group.kv_cache_spec).__name__} ({len(group.layer_names)} layers)" for group in groups)
        raise ConfigError(
            f"the model keeps KV of {len(groups)} kinds: {kinds or 'none'}; TiercelConnector keeps models with one. Models "
            f"that mix full and sliding-window attention run with --disable-hybrid-kv-cache-manager; Mamba and linear "
            f"attention do not"
        )
    group = groups[0]
    spec = group.kv_cache_spec
    kind = type(spec).__name__
    if kind not in _WHOLE:
        raise ConfigError(
            f"the model's layers are all of kind {kind}; TiercelConnector keeps {', '.join(_WHOLE)}. On GPUs TiercelTier keeps "
            f"what vLLM's offloading does; else run without either"
        )
    if getattr(spec, "non_causal", False):
        raise ConfigError(
            "the model's attention is not causal: KV of a prefix depends on what follows it, so it is no other prompt's; run it "
            "without TiercelConnector"
        )
    _require_block_size(spec.block_size)
    if getattr(getattr(spec, "kv_quant_mode", None), "is_per_token_head", False):
        raise ConfigError(
            "kv_cache_dtype with scales per token and head keeps these outside the KV cache's tensors, where "
            "TiercelConnector does not reach; take another kv_cache_dtype"
        )
    return group


def _require_block_size(block_size: int) -> None:
    if block_size & (block_size - 1) or not 1 <= block_size <= _TOKENS_PER_BLOCK_MAX:
        raise ConfigError(
            f"block_size = {block_size}: must be a power of two up to {_TOKENS_PER_BLOCK_MAX}; set vLLM's --block-size so"
        )


def require_fixed_scales(vllm_config: Any) -> None:
    """Raise ConfigError if the KV's scales are made anew in each process, so that KV of one is not that of another."""
    if getattr(vllm_config.cache_config, "calculate_kv_scales", False):
        raise ConfigError(
            "calculate_kv_scales gives each run its own scales, so KV of one run is wrong in the next; take scales from the "
            "checkpoint, or leave the KV cache unquantized"
        )


def require_prefixes(vllm_config: Any) -> None:
    """Raise ConfigError for an engine that has to compute a prompt whole: a prefix that was loaded ends it, or makes its answers
    wrong."""
    model = vllm_config.model_config
    if not model.is_prefix_caching_supported:
        pooler = getattr(model, "pooler_config", None)
        pooling = "" if pooler is None else f", with {pooler.seq_pooling_type}/{pooler.tok_pooling_type} pooling"
        raise ConfigError(
            f"vLLM does not support prefix caching with {model.model} (runner {model.runner_type}{pooling}): it has to compute "
            f"every prompt whole; run it without TiercelConnector"
        )
    is_whole = not (
        vllm_config.cache_config.enable_prefix_caching or vllm_config.scheduler_config.enable_chunked_prefill
    )
    if is_whole and model.use_mla and str(vllm_config.device_config.device_type) == "cpu":
        raise ConfigError(
            f"{model.model} has MLA, whose prompts vLLM computes whole on this CPU (enable_prefix_caching and "
            f"enable_chunked_prefill are false); run it without TiercelConnector, or on a GPU"
        )


def require_recompute_around(outer: Any) -> None:
    """Raise ConfigError if the connector that stands around ours lets requests fail whose load has lost blocks: vLLM goes by its
    setting alone, and ours does not reach it."""
    policy = outer._vllm_config.kv_transfer_config.kv_load_failure_policy
    if policy != "recompute":
        raise ConfigError(
            f"kv_load_failure_policy = {policy!r} of {type(outer).__name__}: a request would fail for a block that "
            f"TiercelConnector cannot load; set it to recompute, beside {type(outer).__name__}"
        )


def names_items(vllm_config: Any) -> bool:
    """Whether vLLM names a multimodal item by what it holds. With both of its caches off it counts items instead, from 1 in each
    process, so that the first image of every run has the same name."""
    multimodal = getattr(vllm_config.model_config, "multimodal_config", None)
    is_counted = multimodal is not None and getattr(multimodal, "mm_processor_cache_gb", 1) == 0
    return not is_counted or bool(vllm_config.cache_config.enable_prefix_caching)
