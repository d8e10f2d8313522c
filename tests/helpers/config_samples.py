"""The three example configurations of FlexKV's guide (section 15.6), unchanged."""

SMALL = """\
{
    "server_recv_port": "ipc:///tmp/flexkv_test",
    "cache_config": {
        "enable_cpu": true,
        "enable_ssd": false,
        "enable_remote": false,
        "tokens_per_block": 16,
        "num_cpu_blocks": 10000,
        "evict_ratio": 0.05,
        "use_ce_transfer_h2d": true,
        "use_ce_transfer_d2h": true,
        "transfer_sms_h2d": 8
    }
}
"""
MEDIUM = """\
{
    "server_recv_port": "ipc:///tmp/flexkv_server",
    "cache_config": {
        "enable_cpu": true,
        "enable_ssd": true,
        "enable_remote": false,
        "tokens_per_block": 32,
        "num_cpu_blocks": 100000,
        "num_ssd_blocks": 1000000,
        "ssd_cache_dir": "/data/flexkv_ssd/",
        "evict_ratio": 0.1,
        "ssd_cache_iouring_entries": 1024
    }
}
"""
LARGE = """\
{
    "server_recv_port": "ipc:///tmp/flexkv_server",
    "cache_config": {
        "enable_cpu": true,
        "enable_ssd": true,
        "enable_remote": true,
        "tokens_per_block": 64,
        "num_cpu_blocks": 1000000,
        "num_ssd_blocks": 10000000,
        "num_remote_blocks": 100000000,
        "ssd_cache_dir": "/data/flexkv_ssd/",
        "remote_cache_path": "s3://flexkv-cache/",
        "evict_ratio": 0.05,
        "remote_config_custom": {
            "endpoint": "s3.amazonaws.com",
            "bucket": "flexkv-cache"
        }
    }
}
"""
SEED_EXAMPLES = (SMALL, MEDIUM, LARGE)
