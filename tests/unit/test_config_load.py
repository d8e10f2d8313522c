"""Settings from files, environment and keywords: who wins, and how a mistake is told."""

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tiercel.config import SETTINGS, CacheConfig, ModelConfig, NoteKind, load_config
from tiercel.config.later import LATER_KEYS
from tiercel.config.load import read_config
from tiercel.errors import ConfigError


def written(folder: Path, content: str, name: str = "cache.yaml") -> Path:
    path = folder / name
    path.write_text(content)
    return path


def test_the_defaults_are_those_of_the_field() -> None:
    config = CacheConfig()
    assert (config.enable_cpu, config.enable_ssd, config.tokens_per_block) == (True, False, 16)
    assert (config.num_cpu_blocks, config.num_ssd_blocks, config.evict_ratio) == (1_000_000, 10_000_000, 0.0)
    assert (config.ssd_cache_dir, config.ssd_cache_iouring_entries) == ("./ssd_cache", 512)
    assert load_config(environ={}).config == config


def test_keywords_win_over_environment_over_file_over_defaults_and_each_is_remembered(tmp_path: Path) -> None:
    path = written(tmp_path, "tokens_per_block: 32\nevict_ratio: 0.1\nload_policy: never\n")
    environ = {"TIERCEL_EVICT_RATIO": "0.2", "TIERCEL_LOAD_POLICY": "always", "HOME": "/root"}
    loaded = load_config(path, environ=environ, load_policy="auto")
    assert (loaded.config.tokens_per_block, loaded.config.evict_ratio, loaded.config.load_policy) == (32, 0.2, "auto")
    assert loaded.sources["tokens_per_block"] == f"file {path}"
    assert loaded.sources["evict_ratio"] == "environment TIERCEL_EVICT_RATIO"
    assert loaded.sources["load_policy"] == "keyword"
    assert loaded.sources["num_cpu_blocks"] == "default"
    assert set(loaded.sources) == set(SETTINGS)


def test_the_process_environment_is_read_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERCEL_TOKENS_PER_BLOCK", "64")
    assert CacheConfig.from_env().tokens_per_block == 64
    assert CacheConfig.from_env({}).tokens_per_block == 16


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("TIERCEL_ENABLE_SSD", "on", "enable_ssd", True),
        ("TIERCEL_CPU_HUGEPAGES", "0", "cpu_hugepages", False),
        ("TIERCEL_NUM_CPU_BLOCKS", "5000", "num_cpu_blocks", 5000),
        ("TIERCEL_NUM_CPU_BLOCKS", "64GiB", "num_cpu_blocks", "64GiB"),
        ("TIERCEL_TRANSFER_TIMEOUT_S", "5", "transfer_timeout_s", 5.0),
        ("TIERCEL_METRICS_PORT", "null", "metrics_port", None),
        ("TIERCEL_METRICS_PORT", "9400", "metrics_port", 9400),
        ("TIERCEL_SSD_CACHE_DIR", "/a;/b", "ssd_cache_dirs", (Path("/a"), Path("/b"))),
        ("TIERCEL_STATUS_SOCKET", "/run/t.sock", "status_socket", "/run/t.sock"),
    ],
)
def test_a_variable_becomes_its_settings_type(variable: str, text: str, key: str, value: object) -> None:
    assert getattr(CacheConfig.from_env({variable: text}), key) == value


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"TIERCEL_EVICT_RATE": "0.1"}, "TIERCEL_EVICT_RATE.*unknown variable.*did you mean 'TIERCEL_EVICT_RATIO'"),
        ({"TIERCEL_ENABLE_SSD": "maybe"}, "enable_ssd = 'maybe' .from environment TIERCEL_ENABLE_SSD.*true or false"),
        ({"TIERCEL_TOKENS_PER_BLOCK": "24"}, "tokens_per_block = 24.*use 16 or 32"),
        ({"TIERCEL_CPU_COPY_THREADS": "2.5"}, "cpu_copy_threads = 2.5"),
        ({"TIERCEL_ENABLE_REMOTE": "maybe"}, "enable_remote = 'maybe'.*must be bool or null"),
        ({"TIERCEL_METRICS_PORT": "http"}, "metrics_port = 'http'"),
    ],
)
def test_a_wrong_variable_is_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(environ=environ)


def test_variables_of_the_build_and_the_tests_are_left_alone() -> None:
    assert load_config(environ={"TIERCEL_WITH_LIBURING": "OFF", "TIERCEL_TEST_SEED": "7"}).notes == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tokens_per_blok": 16}, r"tokens_per_blok \(from keyword\): unknown key; did you mean 'tokens_per_block'"),
        ({"tokens_per_block": 0}, "tokens_per_block = 0.*power of two, 1 to 1024"),
        ({"tokens_per_block": 2048}, "tokens_per_block = 2048"),
        ({"tokens_per_block": True}, "tokens_per_block = True"),
        ({"tokens_per_block": None}, "tokens_per_block = None"),
        ({"enable_cpu": 1}, "enable_cpu = 1"),
        ({"num_cpu_blocks": 0}, "num_cpu_blocks = 0.*1 to 2147483648"),
        ({"num_cpu_blocks": 1.5}, "num_cpu_blocks = 1.5"),
        ({"num_cpu_blocks": "64G"}, 'num_cpu_blocks = \'64G\'.*write "64GiB" or "64GB"'),
        ({"num_cpu_blocks": "0%"}, "num_cpu_blocks = '0%'.*above 0% and at most 100%"),
        ({"num_cpu_blocks": "100.1%"}, "num_cpu_blocks = '100.1%'.*at most 100%"),
        ({"num_cpu_blocks": "%"}, "num_cpu_blocks = '%'"),
        ({"transfer_chunk_bytes": "80%"}, "transfer_chunk_bytes = '80%'.*only the capacity of a tier"),
        ({"num_cpu_blocks": "5000"}, "num_cpu_blocks = '5000'.*5000B"),
        ({"num_cpu_blocks": "0GiB"}, "num_cpu_blocks = '0GiB'"),
        ({"evict_ratio": 0.6}, "evict_ratio = 0.6.*number, 0 to 0.5"),
        ({"evict_ratio": float("nan")}, "evict_ratio = nan"),
        ({"transfer_timeout_s": 0}, "transfer_timeout_s = 0"),
        ({"transfer_timeout_s": float("inf")}, "transfer_timeout_s = inf"),
        ({"transfer_chunk_bytes": "1KiB"}, "transfer_chunk_bytes = '1KiB'.*4.00 KiB to 1.00 GiB"),
        ({"ssd_io_engine": "uring"}, "ssd_io_engine = 'uring'.*auto | io_uring | threads"),
        ({"ssd_cache_dir": 7}, "ssd_cache_dir = 7"),
        ({"ssd_cache_dir": ["a", 7]}, "ssd_cache_dir = "),
        ({"ssd_cache_dir": "a\0b"}, "ssd_cache_dir = .*must be a directory"),
        ({"metrics_port": 70000}, "metrics_port = 70000"),
        ({"status_socket": ""}, "status_socket = ''"),
        ({"cpu_kv_layout_type": "LAYERWISE"}, "cpu_kv_layout_type = 'LAYERWISE'.*only do BLOCKWISE"),
        ({"gpu_kv_layout_type": "BLOCKWISE"}, "gpu_kv_layout_type = 'BLOCKWISE'"),
        ({"transfer_sms_h2d": "8"}, "transfer_sms_h2d = '8'.*integer, 1 to 1024, or null"),
        ({"use_ce_transfer_d2h": "yes"}, "use_ce_transfer_d2h = 'yes'.*true or false, or null"),
        ({"enable_gds": "8"}, "enable_gds = '8'.*bool or null"),
        ({"enable_cpu": False}, "enable_cpu = False.*no tier"),
        ({"evict_ratio": 0.3, "evict_start_threshold": 0.3}, "evict_ratio = 0.3.*below evict_start_threshold = 0.3"),
        (
            {"enable_cpu": False, "enable_ssd": True, "ssd_admission": "on_evict"},
            "ssd_admission = 'on_evict'.*nothing would reach the disk",
        ),
        ({"ssd_cache_dir": "a\ud800b"}, "ssd_cache_dir = .*must be a directory"),
        ({"ssd_cache_dir": "~no-such-user/kv"}, "ssd_cache_dir = '~no-such-user/kv'.*home directory"),
        ({"enable_ssd": True, "ssd_cache_dir": " ; "}, "ssd_cache_dir = .*must name a directory"),
        ({"enable_ssd": True, "ssd_cache_dir": "/a;/a"}, "ssd_cache_dir = .*each directory once"),
    ],
)
def test_a_wrong_setting_names_key_value_range_and_remedy(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(environ={}, **given)


def test_a_config_made_by_hand_is_checked_as_strictly() -> None:
    with pytest.raises(ConfigError, match=r"evict_ratio = -0.1"):
        CacheConfig(evict_ratio=-0.1)
    with pytest.raises(ConfigError, match="no tier"):
        CacheConfig(enable_cpu=False)
    assert CacheConfig(enable_cpu=False, enable_ssd=True).ssd_cache_dirs == (Path("ssd_cache"),)


def test_a_disk_tier_smaller_than_host_memory_is_a_note_not_an_error() -> None:
    loaded = load_config(environ={}, enable_ssd=True, num_cpu_blocks=100, num_ssd_blocks=50)
    assert [(note.kind, note.key) for note in loaded.notes] == [(NoteKind.UNLIKELY, "num_ssd_blocks")]
    sizes = load_config(environ={}, enable_ssd=True, num_cpu_blocks="2GiB", num_ssd_blocks="1GiB")
    assert [note.key for note in sizes.notes] == ["num_ssd_blocks"]


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"eviction_policy": "fifo", "hit_reward_seconds": 5}, "hit_reward_seconds"),
        ({"slru_protected_threshold": 3}, "slru_protected_threshold"),
        ({"ssd_write_budget_per_day": "1TB"}, "ssd_write_budget_per_day"),
    ],
)
def test_a_setting_that_another_one_makes_idle_is_a_note(given: dict[str, Any], key: str) -> None:
    assert [(note.kind, note.key) for note in load_config(environ={}, **given).notes] == [(NoteKind.UNLIKELY, key)]


def test_an_unknown_keyword_names_the_nearest_setting() -> None:
    make: Any = CacheConfig
    with pytest.raises(ConfigError, match=r"num_cpu_block \(from keyword\).*did you mean 'num_cpu_blocks'"):
        make(num_cpu_block=5)
    model: Any = ModelConfig
    with pytest.raises(ConfigError, match=r"num_layer \(from keyword\).*did you mean 'num_layers'"):
        model(num_layer=5)


@pytest.mark.parametrize("number", ["010", "-07", "0_7", "1:30", "1:30.5", "190:20:30"])
def test_a_number_that_versions_of_yaml_read_differently_is_refused(tmp_path: Path, number: str) -> None:
    with pytest.raises(ConfigError, match=f"line 1: {number} is read as different numbers"):
        load_config(written(tmp_path, f"num_cpu_blocks: {number}\n"), environ={})


@pytest.mark.parametrize(
    ("number", "value"), [("1_000", 1000), ("0x10", 16), ("0", 0), ("'010B'", "010B"), ("1e2", None)]
)
def test_other_numbers_of_yaml_are_read_as_ever(tmp_path: Path, number: str, value: object) -> None:
    path = written(tmp_path, f"num_cpu_blocks: {number}\n")
    if not value:
        with pytest.raises(ConfigError, match="num_cpu_blocks = "):
            load_config(path, environ={})
    else:
        assert load_config(path, environ={}).config.num_cpu_blocks == value


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("evict_ratio: 0.1\nevict_ratio: 0.2\n", "c.yaml", "'evict_ratio' is given twice"),
        ("cache_config: {enable_cpu: true, enable_cpu: true}\n", "c.yml", "'enable_cpu' is given twice"),
        ('{"evict_ratio": 0.1, "evict_ratio": 0.2}', "c.json", "'evict_ratio' is given twice"),
        ("- 1\n- 2\n", "c.yaml", "must hold keys and values"),
        ("1: 2\n", "c.yaml", "must hold keys and values"),
        ("cache_config: {3: 4}\n", "c.yaml", "3 .from file .*unknown key"),
        ("cache_config: {true: 4}\n", "c.yaml", "True .from file .*unknown key"),
        ("cache_config: {[1, 2]: 4}\n", "c.yaml", "correct the file|unknown key"),
        ("model_config: {3: 4}\n", "c.yaml", "model_config.3 .from file .*unknown key"),
        ("a: [\n", "c.yaml", "correct the file"),
        ("{", "c.json", "correct the file"),
        ("[" * 5000, "c.yaml", "nested too deeply; correct the file"),
        ("[" * 500_000, "c.json", "nested too deeply; correct the file"),
        ("a = 1", "c.ini", "must end in .yaml"),
        ("cache_config: 3\n", "c.yaml", "cache_config = 3"),
        ("cache_config: {}\nevict_ratio: 0.1\n", "c.yaml", "evict_ratio = 0.1.*move it under cache_config"),
        ("cache_config: {}\nmodel_conf: {}\n", "c.yaml", "model_conf .*did you mean 'model_config'"),
        ("cache_config: {evict_ration: 0.1}\n", "c.yaml", "evict_ration .*did you mean 'evict_ratio'"),
        ("!!python/object/apply:os.getcwd []\n", "c.yaml", "correct the file"),
        ("a = [\n", "c.toml", "correct the file"),
        ("evict_ratio: !!bool maybe\n", "c.yaml", "correct the file"),
        ("a = 1", "c.toml", "a .from file .*unknown key"),
        ("model_config: 3\n", "c.yaml", "model_config = 3"),
        ("model_config: {num_layer: 3}\n", "c.yaml", "model_config.num_layer .*'model_config.num_layers'"),
        ("model_config: {foo: 3}\n", "c.yaml", "model_config.foo .*unknown key; known are model_id, num_layers"),
        ("model_config: {num_layers: 3}\n", "c.yaml", "model_config .*lacks model_id, num_kv_heads, head_size, dtype"),
    ],
)
def test_a_wrong_file_is_told_with_its_name(tmp_path: Path, content: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(written(tmp_path, content, name), environ={})
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "missing.yaml", environ={})


@pytest.mark.parametrize(("content", "name"), [("evict_ratio: 0.25", "c.yaml"), ('{"evict_ratio": 0.25}', "c.json")])
def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path, content: str, name: str) -> None:
    assert load_config(written(tmp_path, "\ufeff" + content, name), environ={}).config.evict_ratio == 0.25


def test_two_names_of_one_directory_are_refused(tmp_path: Path) -> None:
    (tmp_path / "kv").mkdir()
    (tmp_path / "link").symlink_to("kv")
    with pytest.raises(ConfigError, match="each directory once"):
        CacheConfig(enable_ssd=True, ssd_cache_dir=[str(tmp_path / "kv"), str(tmp_path / "link")])


def test_an_empty_file_leaves_the_defaults(tmp_path: Path) -> None:
    for name in ("c.yaml", "c.json", "c.toml"):
        assert CacheConfig.from_file(written(tmp_path, "", name)) == CacheConfig()


def test_a_file_may_describe_the_model_with_its_groups(tmp_path: Path) -> None:
    content = """
    model_config:
      model_id: m
      num_layers: 2
      num_kv_heads: 8
      head_size: 128
      dtype: bfloat16
      layer_groups:
        - {name: sliding_attention, layers: [0], window: 128}
        - {name: full_attention, layers: [1]}
    cache_config:
      num_cpu_blocks: 1GiB
    """
    model = load_config(written(tmp_path, content), environ={}).model
    assert model is not None
    assert model.is_hybrid
    assert model.layer_groups[0].layers == (0,)
    with pytest.raises(ConfigError, match=r"layer_groups.windows .*window"):
        load_config(written(tmp_path, content.replace("window:", "windows:")), environ={})


@pytest.mark.parametrize(("value", "is_taken"), [(0, True), (1, True), (False, True), (2, False), ("yes", False)])
def test_a_flag_of_a_later_version_is_taken_as_other_caches_write_flags(value: object, is_taken: bool) -> None:
    with nullcontext() if is_taken else pytest.raises(ConfigError, match="enable_remote"):
        LATER_KEYS["enable_remote"].check(value, "a file")


def test_a_contradiction_tells_where_each_of_its_settings_comes_from(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"enable_cpu = False: .* \(enable_cpu from environment DYN_KVBM_CPU_CACHE_GB\)$"
    ):
        read_config(environ={"DYN_KVBM_CPU_CACHE_GB": "0"})
    path = tmp_path / "cache.yaml"
    path.write_text("evict_start_threshold: 0.5\n")
    told = rf"\(evict_start_threshold from file {re.escape(str(path))}, evict_stop_threshold from keyword\)$"
    with pytest.raises(ConfigError, match=told):
        read_config(path, environ={}, evict_stop_threshold=0.9)


def test_a_file_that_a_variable_names_wrongly_is_told_with_the_variable() -> None:
    with pytest.raises(ConfigError, match=r"^settings file '/nope'.* \(FLEXKV_CONFIG_PATH names the file\)$"):
        read_config(environ={"FLEXKV_CONFIG_PATH": "/nope"})
