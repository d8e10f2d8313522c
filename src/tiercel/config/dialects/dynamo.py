"""Dynamo KVBM's settings: DYN_KVBM_ variables (version 1), and version 2's files and KVBM_ variables.

A version 2 variable is KVBM_ and the key's path in upper case with _ for the dots. Its gigabytes are 10**9 bytes. Its
files may hold the keys once more under `default`, `leader` and `worker`; the leader's count here.
"""

import dataclasses

from tiercel.config.dialects.convert import blocks, count, flag, gigabytes, text, when
from tiercel.config.dialects.table import Conversion, Dialect, ForeignKey, Inferred, Values, ignored, taken
from tiercel.config.notes import Note, NoteKind

METRICS_PORT = 6880
"""Where KVBM serves metrics unless told otherwise."""

_GPU = "how blocks move to and from a GPU was chosen by measurement; use_ce_transfer_* and transfer_sms_* change it"
_GDS = "this version does without GPUDirect Storage: blocks go between disk and GPU through pinned buffers"
_ONBOARD = "a load is asked for whole or layer by layer in the call (Cache.load, by_layer)"
_REMOTE = "this version has no remote tier; blocks are kept in host memory and on disk only"
_PROCESS = "the cache runs in the engine's process: there is no leader, worker or message bus to set up"
_QUEUES = "transfer_queue_depth_max bounds what waits, and transfer_chunk_bytes what moves at once"
_BLOCKS = "Dynamo counts blocks of the engine's page size, Tiercel blocks of tokens_per_block tokens"
_HOST_FILTER = "every block is admitted to host memory; what lies there already is not stored again"
_FILTER = (
    "Tiercel writes a block to disk when it is seen a second time, lookups included; Dynamo counts registrations only"
)
_POLICIES = ("pass_all", "presence", "presence_lfu")


def _disk_policies(value: object) -> dict[str, object]:
    names = value.strip().strip("[]").replace('"', "").split(",") if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)):
        raise ValueError(f"must be a list of {', '.join(_POLICIES)}")
    policies = [name.strip() for name in names if isinstance(name, str)]
    if len(policies) != len(names) or not {*policies} <= {*_POLICIES, ""}:
        raise ValueError(f"must be a list of {', '.join(_POLICIES)}")
    if not any(policies):
        return {}
    return {"ssd_admission": "on_second_hit" if "presence_lfu" in policies else "through"}


def _named(keys: tuple[ForeignKey, ...]) -> tuple[ForeignKey, ...]:
    """Add to each key its version 2 variable, which wins over version 1's."""
    return tuple(
        dataclasses.replace(
            key, variables=(*key.variables, f"KVBM_{key.name.replace('.', '_').upper()}{'_*' if key.subtree else ''}")
        )
        for key in keys
    )


_TIERS = _named(
    (
        taken(
            "cache.host.cache_size_gb",
            gigabytes("num_cpu_blocks", "GB", "enable_cpu"),
            "DYN_KVBM_CPU_CACHE_GB",
        ),
        taken(
            "cache.host.num_blocks",
            blocks("num_cpu_blocks", "enable_cpu"),
            "DYN_KVBM_CPU_CACHE_OVERRIDE_NUM_BLOCKS",
            weight=1,
            differs=_BLOCKS,
        ),
        taken(
            "cache.disk.cache_size_gb",
            gigabytes("num_ssd_blocks", "GB", "enable_ssd"),
            "DYN_KVBM_DISK_CACHE_GB",
        ),
        taken(
            "cache.disk.num_blocks",
            blocks("num_ssd_blocks", "enable_ssd"),
            "DYN_KVBM_DISK_CACHE_OVERRIDE_NUM_BLOCKS",
            weight=1,
            differs=_BLOCKS,
        ),
        taken("cache.disk.storage_path", text("ssd_cache_dir"), "DYN_KVBM_DISK_CACHE_DIR"),
        ignored("cache.disk.use_gds", _GDS),
        ignored(
            "cache.parallelism", "tp_size and use_mla of the model say how ranks share blocks", "DYN_KVBM_NCCL_MLA_MODE"
        ),
    )
)

_OFFLOAD = _named(
    (
        taken(
            "offload.g1_to_g2.min_priority",
            count("min_store_priority", least=0),
            "DYN_KVBM_HOST_OFFLOAD_PREFIX_MIN_PRIORITY",
        ),
        taken(
            "offload.g2_to_g3.policies", Conversion(sets=("ssd_admission",), convert=_disk_policies), differs=_FILTER
        ),
        ignored("offload.g2_to_g3.min_priority", "min_store_priority holds for every tier"),
        ignored("offload.g2_to_g3.presence_lfu.min_lfu_count", "on_second_hit admits at the second sight, always"),
        ignored("offload.g2_to_g3.presence", "the filter has no parameters", subtree=True),
        ignored("offload.g1_to_g2.policies", _HOST_FILTER),
        ignored("offload.g1_to_g2.presence", _HOST_FILTER, subtree=True),
        ignored("offload.g1_to_g2.presence_lfu", _HOST_FILTER, subtree=True),
        ignored("offload.g1_to_g2.max_concurrent_transfers", _QUEUES, "DYN_KVBM_MAX_CONCURRENT_TRANSFERS"),
        ignored(
            "offload.g1_to_g2.max_batch_size",
            _QUEUES,
            "DYN_KVBM_TRANSFER_BATCH_SIZE",
            "DYN_KVBM_MAX_TRANSFER_BATCH_SIZE",
        ),
        ignored("offload.g2_to_g3.max_concurrent_transfers", _QUEUES),
        ignored("offload.g2_to_g3.max_batch_size", _QUEUES),
        ignored("onboard", _ONBOARD, subtree=True),
    )
)

_AROUND = _named(
    (
        taken(
            "metrics.enabled",
            when({True: {"metrics_port": METRICS_PORT}, False: {}}),
            "DYN_KVBM_METRICS",
        ),
        taken(
            "metrics.port",
            count("metrics_port"),
            "DYN_KVBM_METRICS_PORT",
            weight=1,
            differs="metrics are served as soon as a port is set; Dynamo wants metrics enabled as well",
        ),
        ignored(
            "metrics.cache_stats_max_requests",
            "hit rates are counters without a window",
            "DYN_KVBM_CACHE_STATS_MAX_REQUESTS",
        ),
        ignored(
            "metrics.cache_stats_log_interval_secs",
            "`tiercel stats` shows them when asked",
            "DYN_KVBM_CACHE_STATS_LOG_INTERVAL_SECS",
        ),
        ignored("debug.recording", "there is no such recorder in settings", "DYN_KVBM_ENABLE_RECORD"),
        ignored("events", "this version publishes no events", "DYN_KVBM_KV_EVENTS_ENABLE_CONSOLIDATOR", subtree=True),
        ignored("object", _REMOTE, "DYN_KVBM_OBJECT_*", subtree=True, loud=True),
        ignored(
            "messenger",
            _PROCESS,
            "DYN_KVBM_LEADER_WORKER_INIT_TIMEOUT_SECS",
            "DYN_KVBM_LEADER_ZMQ_*",
            "DYN_KVBM_TRTLLM_ZMQ_PORT",
            subtree=True,
        ),
        ignored("nixl", _GPU, "DYN_KVBM_NIXL_*", subtree=True),
        *(
            ignored(name, _PROCESS, subtree=True)
            for name in ("tokio", "rayon", "nova", "discovery", "control", "disagg", "hub", "worker")
        ),
    )
)

_VERSION_1_ONLY = (
    ForeignKey(
        name="",
        variables=("DYN_KVBM_DISABLE_DISK_OFFLOAD_FILTER",),
        conversion=when({True: {"ssd_admission": "through"}, False: {"ssd_admission": "on_second_hit"}}),
    ),
    ForeignKey(name="", variables=("DYN_KVBM_DISK_DISABLE_O_DIRECT",), conversion=flag("ssd_direct_io", inverted=True)),
    ForeignKey(
        name="",
        variables=("DYN_KVBM_DISK_ZEROFILL_FALLBACK", "DYN_KVBM_DISK_ALLOCATOR_TYPE"),
        note="space is allocated ahead where the filesystem can; where it cannot, files grow and a note says so",
    ),
    ForeignKey(
        name="",
        variables=("KVBM_CACHE_HOST_SIZE_GB",),  # as its example file spells it
        conversion=gigabytes("num_cpu_blocks", "GB", "enable_cpu"),
    ),
    ForeignKey(
        name="",
        variables=("KVBM_CACHE_DISK_SIZE_GB",),
        conversion=gigabytes("num_ssd_blocks", "GB", "enable_ssd"),
    ),
)


def _infer(values: Values) -> Inferred:
    """Add what KVBM does unasked once it has a disk: bypass host memory that has no size, and filter what is written."""
    inferred: dict[str, object] = {}
    notes = []
    if values.get("enable_ssd") and "num_cpu_blocks" not in values:
        inferred["enable_cpu"] = False
        notes.append(
            (
                "enable_cpu",
                "only a disk is configured, and Dynamo bypasses host memory then; set num_cpu_blocks to use it",
            )
        )
    if values.get("enable_ssd") and "ssd_admission" not in values:
        bypass = inferred.get("enable_cpu", values.get("enable_cpu", True)) is False
        inferred["ssd_admission"] = "through" if bypass else "on_second_hit"
        if not bypass:
            notes.append(("ssd_admission", f"Dynamo filters what is written to disk unless told otherwise; {_FILTER}"))
    if values.get("enable_ssd") and "ssd_cache_dir" not in values:
        notes.append(
            (
                "ssd_cache_dir",
                "Dynamo's default is /tmp/, and its files are gone with the process; Tiercel's is ./ssd_cache, and a "
                "restart finds every block again",
            )
        )
    return Inferred(values=inferred, notes=[Note(kind=NoteKind.DIFFERENT, key=key, text=said) for key, said in notes])


DYNAMO = Dialect(
    name="Dynamo KVBM",
    about=(
        "TOML or JSON, version 2; variables of both versions. A gigabyte is 10**9 bytes. Keys below `leader` win over "
        "those at the top, and these over keys below `default`; those below `worker` are ignored. Version 2's variables "
        "win over its files, and these over version 1's. As there, a disk without host memory bypasses host memory, and "
        "what is written to disk is filtered unless something says otherwise."
    ),
    prefixes=("DYN_KVBM_", "KVBM_"),
    strong_prefix="KVBM_",
    file_variable="KVBM_CONFIG_PATH",
    roots=frozenset(
        {"cache", "default", "leader", "offload", "metrics", "debug"}
        | {key.name for key in (*_OFFLOAD, *_AROUND) if key.subtree and "." not in key.name}
    ),
    keys=(*_TIERS, *_OFFLOAD, *_AROUND, *_VERSION_1_ONLY),
    infer=_infer,
)
"""Every key of Dynamo KVBM's that this version knows."""
