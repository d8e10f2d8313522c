"""FlexKV's settings: the keys of its file and its FLEXKV_ variables.

A key of its file is a variable's name in lower case without the prefix, unless the table says otherwise. Its gigabytes
are 2**30 bytes. Keys that an earlier FlexKV shares with Tiercel, such as num_cpu_blocks, are Tiercel's own; `later`
knows those that have no effect.
"""

import dataclasses

from tiercel.config.dialects.convert import count, flag, gigabytes, number, text, whole
from tiercel.config.dialects.table import Conversion, Dialect, ForeignKey, Inferred, Values, ignored, taken
from tiercel.config.notes import Note, NoteKind

_GPU = "use_ce_transfer_* and transfer_sms_* say how a GPU copies; what else there is was chosen by measurement"
_GDS = "this version does without GPUDirect Storage: blocks go between disk and GPU through pinned buffers"
_REMOTE = "this version has no remote tier and shares no blocks between nodes"
_PROCESS = "the cache runs in the engine's process: there is no server and no worker process to set up"
_BLOCKS = "a slot holds one block whole (BLOCKFIRST), which is the only layout"
_LOG = "the program that runs the cache sets up logging"
_TRACE = "there is no trace file; `tiercel stats` and metrics_port show what a cache does"
_SWA = "this version refuses models with sliding windows"
_MLA = "a block is stored once for all ranks that share it"
_CAPACITY = "must be above 0, for FlexKV cannot do without host memory"
_HUGE_PAGES = (
    "FlexKV takes pages from hugetlbfs; Tiercel asks for transparent huge pages, which need no mount, and does so by "
    "default"
)
_NOT_READ = "FlexKV documents it but does not read it"


def _iouring_entries(value: object) -> dict[str, object]:
    entries = whole(value)
    return {"ssd_cache_iouring_entries": entries} if entries else {"ssd_io_engine": "threads"}


_IOURING = Conversion(sets=("ssd_cache_iouring_entries", "ssd_io_engine"), convert=_iouring_entries)


def _each(why: str, names: str, *, loud: bool = False) -> tuple[ForeignKey, ...]:
    return tuple(ignored(name, why, loud=loud) for name in names.split())


def _with_variables(keys: tuple[ForeignKey, ...]) -> tuple[ForeignKey, ...]:
    return tuple(dataclasses.replace(key, variables=(*key.variables, f"FLEXKV_{key.name.upper()}")) for key in keys)


# With a file, FlexKV ignores these variables.
_BASIC = _with_variables(
    (
        taken("cpu_cache_gb", gigabytes("num_cpu_blocks", "GiB", "enable_cpu", zero=_CAPACITY)),
        taken("ssd_cache_gb", gigabytes("num_ssd_blocks", "GiB", "enable_ssd")),
        taken("use_hugepage_cpu_buffer", flag("cpu_hugepages"), differs=_HUGE_PAGES),
        *_each(_GPU, "enable_nixl"),
        *_each("transparent huge pages have one size", "use_hugepage_tmp_buffer hugepage_size_bytes"),
        *_each(_REMOTE, "use_mooncake_store_backend mooncake_store_config_path", loud=True),
        *_each("the element type belongs to the model: dtype of ModelConfig or model_config", "kv_cache_dtype"),
        *_each(_SWA, "swa_multi_group"),
    )
)

# The same, whose names in files are keys of ours.
_BASIC_VARIABLES = (
    ForeignKey(name="", variables=("FLEXKV_SSD_CACHE_DIR",), conversion=text("ssd_cache_dir")),
    ForeignKey(name="", variables=("FLEXKV_ENABLE_GDS",), note=_GDS),
)

_FILE_ONLY = (
    *_each(_REMOTE, "enable_3rd_remote enable_p2p_cpu enable_p2p_ssd", loud=True),
    *_each(
        _REMOTE,
        "num_tmp_cpu_blocks local_zmq_ip local_zmq_port redis_host redis_port local_ip redis_password node_ttl_seconds "
        "mooncake_store_pp_rank mooncake_store_pp_size mooncake_store_node_layer_start mooncake_store_node_layer_end "
        "mooncake_store_total_layers remote_cache_size_mode remote_file_size remote_file_num remote_file_prefix",
    ),
    *_each("FlexKV has removed it, and there is no such tier here", "num_gds_blocks gds_cache_dir"),
    *_each(f"{_NOT_READ}, and refuses to start with it", "swa_multi_layer"),
)

_GLOBAL = _with_variables(
    (
        taken("iouring_entries", _IOURING, "FLEXKV_IORING_ENTRIES"),  # misspelt before version 1.2
        ignored("iouring_flags", "Tiercel sets up its rings by itself", "FLEXKV_IORING_FLAGS"),
        *_each("every directory has one set of files; there is no limit to choose", "max_file_size_gb"),
        *_each("the index is always the native one", "index_accel"),
        *_each(_PROCESS, "server_client_mode server_launch_mode instance_num instance_id enable_mps prefetch_enabled"),
        *_each(_PROCESS, "num_extra_te_channels shm_ipc"),
        *_each(
            _GPU,
            "enable_layerwise_transfer layerwise_notify_mode transfer_num_cta_h2d transfer_num_cta_d2h ce_path_opt "
            "ce_segment_threshold enable_ce_memcpy2d ce_gather_threads ce_gather_nt cudahost_chunk_size_gb "
            "enable_nvcomp nvcomp_batch_size nixl_backend_plugin",
        ),
        *_each(
            _REMOTE,
            "rebuild_interval_ms lease_ttl_ms safety_ttl_ms renew_lease_ms refresh_batch_size idle_sleep_ms "
            "lt_pool_initial_capacity reset_barrier_timeout_ms reset_barrier_poll_ms enable_cfs enable_p2p",
        ),
        *_each(_LOG, "log_level logging_prefix num_log_interval_requests eviction_log_interval_s"),
        *_each(
            _TRACE,
            "enable_trace trace_file_path trace_max_file_size_mb trace_max_files trace_flush_interval_ms transfer_trace",
        ),
        *_each(_MLA, "kv_shared_across_ranks_mode"),
        *_each(f"{_NOT_READ}; its name there is FLEXKV_KV_SHARED_ACROSS_RANKS_MODE, and here {_MLA}", "mla_d2h_mode"),
        *_each("requests are merged where blocks lie side by side, always", "ssd_io_opt"),
        *_each("set metrics_port to the port that metrics are to be served at", "enable_metrics"),
    )
)

_OWN_IN_FILES = tuple(
    ForeignKey(name="", variables=(f"FLEXKV_{key.upper()}",), conversion=conversion)
    for key, conversion in (
        ("eviction_policy", text("eviction_policy")),
        ("evict_ratio", number("evict_ratio")),
        ("evict_start_threshold", number("evict_start_threshold")),
        ("slru_protected_threshold", count("slru_protected_threshold")),
        ("hit_reward_seconds", number("hit_reward_seconds")),
    )
)

_VARIABLES_ONLY = tuple(
    ForeignKey(name="", variables=tuple(names.split()), note=why)
    for names, why in (
        ("ENABLE_FLEXKV", "whether the engine uses a cache is said to the engine"),
        ("FLEXKV_SWA_MULTI_LAYER", f"{_NOT_READ}, and {_SWA}"),
        ("FLEXKV_CPU_LAYOUT FLEXKV_SSD_LAYOUT", _BLOCKS),
        ("FLEXKV_REMOTE_LAYOUT FLEXKV_MOONCAKE_FAULT_*", _REMOTE),
        ("FLEXKV_GDS_LAYOUT FLEXKV_USE_CE_TRANSFER_H2D FLEXKV_USE_CE_TRANSFER_D2H", _GPU),
        ("FLEXKV_TRANSFER_SMS_H2D FLEXKV_TRANSFER_SMS_D2H", _GPU),
        ("FLEXKV_HUGETLBFS_DIR", _HUGE_PAGES),
        ("FLEXKV_MASTER_HOST FLEXKV_MASTER_PORTS FLEXKV_ENABLE_COLLECTIVE_SYNC FLEXKV_SERVER_RECV_PORT", _PROCESS),
        ("FLEXKV_SYNC_GET FLEXKV_MAYBE_SKIP_PUT", "Tiercel's connectors read no variables of FlexKV's"),
    )
)

_LAYOUTS_IN_FILES = (
    *_each(_BLOCKS, "cpu_layout_type ssd_layout_type"),
    *_each(_REMOTE, "remote_layout_type"),
    *_each(_GPU, "gds_layout_type"),
)

_DEFAULTS = (
    ("num_cpu_blocks", "cpu_cache_gb is not given: FlexKV takes 16 GiB then, Tiercel 1000000 blocks; set one of them"),
    (
        "evict_start_threshold",
        "FlexKV's documentation says that it evicts from 0.7 on, but its code waits until 1.0, and so does Tiercel; set"
        " it if you rely on the documentation",
    ),
    (
        "evict_ratio",
        "FlexKV's documentation says that it evicts 0.05 at once, but its code takes 0, and so does Tiercel; set it if "
        "you rely on the documentation",
    ),
)


def _infer(values: Values) -> Inferred:
    """Say which of FlexKV's defaults differ from ours, or from its own documentation."""
    missing = [(key, said) for key, said in _DEFAULTS if key not in values]
    if values.get("enable_ssd") and "ssd_cache_dir" not in values:
        missing.append(
            ("ssd_cache_dir", "FlexKV's variables default to ./flexkv_ssd, its files and Tiercel to ./ssd_cache")
        )
    return Inferred(notes=[Note(kind=NoteKind.DIFFERENT, key=key, text=said) for key, said in missing])


FLEXKV = Dialect(
    name="FlexKV",
    about=(
        "YAML or JSON. A gigabyte is 2**30 bytes. Keys that FlexKV shares with Tiercel (`enable_ssd`, `num_cpu_blocks`, "
        "`ssd_cache_dir`, `evict_ratio`, ...) are Tiercel's own."
    ),
    prefixes=("FLEXKV_",),
    strong_prefix="",
    file_variable="FLEXKV_CONFIG_PATH",
    roots=frozenset(),
    keys=(
        *(dataclasses.replace(key, basic=True) for key in (*_BASIC, *_BASIC_VARIABLES)),
        *_FILE_ONLY,
        *_GLOBAL,
        *_OWN_IN_FILES,
        *_VARIABLES_ONLY,
        *_LAYOUTS_IN_FILES,
    ),
    infer=_infer,
)
"""Every key of FlexKV's that this version knows."""
