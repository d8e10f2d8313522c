"""Other caches' settings: FlexKV's files and variables, Dynamo KVBM's variables and files, and what wins."""

from collections.abc import Mapping
from pathlib import Path

import fastjsonschema
import pytest
import yaml

from tests.helpers.config_samples import LARGE, MEDIUM, SEED_EXAMPLES, SMALL
from tiercel import cli
from tiercel.config import SETTINGS, CacheConfig, LoadedConfig, NoteKind, load_config, read_config
from tiercel.config.dialects.reader import DIALECTS
from tiercel.config.later import LATER_KEYS
from tiercel.config.schema import settings_schema
from tiercel.config.strict_yaml import parse_yaml
from tiercel.errors import ConfigError


def written(folder: Path, content: str, name: str) -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def loaded_from(
    folder: Path, content: str, name: str = "c.yaml", environ: Mapping[str, str] | None = None
) -> LoadedConfig:
    return read_config(written(folder, content, name), environ=environ or {})


def given(loaded: LoadedConfig) -> dict[str, object]:
    """Return the settings that some source gave."""
    return {key: getattr(loaded.config, key) for key, source in loaded.sources.items() if source != "default"}


def notes(loaded: LoadedConfig, kind: NoteKind) -> dict[str, str]:
    return {note.key: note.text for note in loaded.notes if note.kind == kind}


@pytest.mark.parametrize("example", SEED_EXAMPLES)
def test_the_guides_examples_are_the_same_as_json_and_as_yaml_and_can_be_explained(
    tmp_path: Path, example: str, capsys: pytest.CaptureFixture[str]
) -> None:
    block_style = yaml.safe_dump(yaml.safe_load(example))
    assert "{" not in block_style
    paths = [written(tmp_path, example, "a.json"), written(tmp_path, example, "b.yaml")]
    paths.append(written(tmp_path, block_style, "c.yml"))
    first, *others = [read_config(path, environ={}) for path in paths]
    for other in others:
        assert other.config == first.config
        assert set(other.notes) == set(first.notes)
    for path in paths:
        assert cli.main(["config", "explain", str(path)]) == 0
        assert "Taken without effect" in capsys.readouterr().out


def test_the_guides_examples_mean_what_they_say(tmp_path: Path) -> None:
    small = loaded_from(tmp_path, SMALL)
    assert given(small) == {
        "enable_cpu": True,
        "enable_ssd": False,
        "tokens_per_block": 16,
        "num_cpu_blocks": 10_000,
        "evict_ratio": 0.05,
        "use_ce_transfer_h2d": True,
        "use_ce_transfer_d2h": True,
        "transfer_sms_h2d": 8,
        "server_recv_port": "ipc:///tmp/flexkv_test",
    }
    assert {note.key for note in small.notes} == {"enable_remote"}
    medium = loaded_from(tmp_path, MEDIUM).config
    assert medium.ssd_cache_dirs == (Path("/data/flexkv_ssd"),)
    assert (medium.num_ssd_blocks, medium.ssd_cache_iouring_entries, medium.tokens_per_block) == (1_000_000, 1024, 32)


def test_a_remote_tier_that_is_asked_for_is_left_out_loudly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded = load_config(written(tmp_path, LARGE, "large.json"), environ={})
    assert (loaded.config.enable_ssd, loaded.config.num_cpu_blocks) == (True, 1_000_000)
    remote = {"enable_remote", "num_remote_blocks", "remote_cache_path", "remote_config_custom"}
    assert remote == {note.key for note in loaded.notes}
    (note,) = [note for note in loaded.notes if note.loud]
    assert str(note).startswith("enable_remote: ignored: this version has no remote tier")
    assert [(record.levelname, record.args) for record in caplog.records] == [("WARNING", (note,))]
    assert not any(other.loud for other in loaded_from(tmp_path, SMALL).notes)


def test_every_field_of_the_guide_is_known_with_its_default_or_one_that_was_measured() -> None:
    fields = """tokens_per_block=16 num_cpu_blocks=1000000 num_ssd_blocks=10000000 num_remote_blocks=null evict_ratio=0.0
        cpu_kv_layout_type=BLOCKWISE ssd_kv_layout_type=BLOCKWISE remote_kv_layout_type=BLOCKWISE
        gpu_kv_layout_type=LAYERWISE use_ce_transfer_h2d=null use_ce_transfer_d2h=null transfer_sms_h2d=null
        transfer_sms_d2h=null ssd_cache_iouring_entries=512 enable_cpu=true enable_ssd=false enable_remote=false"""
    for key, default in (field.split("=") for field in fields.split()):
        known = SETTINGS.get(key) or LATER_KEYS[key]
        assert (key, known.default_text) == (key, default)


FLEXKV_FILE = """\
cpu_cache_gb: 32
ssd_cache_gb: 1024
ssd_cache_dir: /data0/flexkv_ssd/;/data1/flexkv_ssd/
enable_gds: false
eviction_policy: slru
evict_start_threshold: 0.7
evict_ratio: 0.05
hit_reward_seconds: 10
iouring_entries: 256
transfer_num_cta_h2d: 8
server_client_mode: 1
redis_password: secret
"""


def test_a_file_of_flexkvs_is_taken(tmp_path: Path) -> None:
    loaded = loaded_from(tmp_path, FLEXKV_FILE)
    assert given(loaded) == {
        "enable_cpu": True,
        "enable_ssd": True,
        "num_cpu_blocks": "32GiB",
        "num_ssd_blocks": "1024GiB",
        "ssd_cache_dir": "/data0/flexkv_ssd/;/data1/flexkv_ssd/",
        "eviction_policy": "slru",
        "evict_start_threshold": 0.7,
        "evict_ratio": 0.05,
        "hit_reward_seconds": 10.0,
        "ssd_cache_iouring_entries": 256,
    }
    assert loaded.sources["num_cpu_blocks"] == f"file {tmp_path / 'c.yaml'} (cpu_cache_gb)"
    ignored = notes(loaded, NoteKind.IGNORED)
    assert set(ignored) == {"enable_gds", "transfer_num_cta_h2d", "server_client_mode", "redis_password"}
    assert not any("secret" in str(note) for note in loaded.notes)
    assert list(notes(loaded, NoteKind.UNLIKELY)) == ["hit_reward_seconds"]


@pytest.mark.parametrize(
    ("variable", "value", "settings"),
    [
        ("FLEXKV_CPU_CACHE_GB", "16", {"num_cpu_blocks": "16GiB", "enable_cpu": True}),
        ("FLEXKV_SSD_CACHE_GB", "100", {"num_ssd_blocks": "100GiB", "enable_ssd": True}),
        ("FLEXKV_SSD_CACHE_GB", "0", {"enable_ssd": False}),
        ("FLEXKV_SSD_CACHE_DIR", "/a;/b", {"ssd_cache_dir": "/a;/b"}),
        ("FLEXKV_EVICTION_POLICY", "filo", {"eviction_policy": "filo"}),
        ("FLEXKV_EVICT_RATIO", "0.05", {"evict_ratio": 0.05}),
        ("FLEXKV_EVICT_START_THRESHOLD", "0.7", {"evict_start_threshold": 0.7}),
        ("FLEXKV_SLRU_PROTECTED_THRESHOLD", "3", {"slru_protected_threshold": 3}),
        ("FLEXKV_HIT_REWARD_SECONDS", "5", {"hit_reward_seconds": 5.0}),
        ("FLEXKV_IOURING_ENTRIES", "1024", {"ssd_cache_iouring_entries": 1024}),
        ("FLEXKV_IORING_ENTRIES", "64", {"ssd_cache_iouring_entries": 64}),
        ("FLEXKV_IOURING_ENTRIES", "0", {"ssd_io_engine": "threads"}),
        ("FLEXKV_USE_HUGEPAGE_CPU_BUFFER", "0", {"cpu_hugepages": False}),
        ("KVBM_CACHE_HOST_CACHE_SIZE_GB", "4.5", {"num_cpu_blocks": "4.5GB", "enable_cpu": True}),
        ("DYN_KVBM_CPU_CACHE_OVERRIDE_NUM_BLOCKS", "77", {"num_cpu_blocks": 77, "enable_cpu": True}),
        ("DYN_KVBM_DISK_CACHE_DIR", "/nvme", {"ssd_cache_dir": "/nvme"}),
        ("DYN_KVBM_DISK_DISABLE_O_DIRECT", "true", {"ssd_direct_io": False}),
        ("DYN_KVBM_DISABLE_DISK_OFFLOAD_FILTER", "true", {"ssd_admission": "through"}),
        ("DYN_KVBM_DISABLE_DISK_OFFLOAD_FILTER", "0", {"ssd_admission": "on_second_hit"}),
        ("DYN_KVBM_HOST_OFFLOAD_PREFIX_MIN_PRIORITY", "50", {"min_store_priority": 50}),
        ("DYN_KVBM_HOST_OFFLOAD_PREFIX_MIN_PRIORITY", "-3", {"min_store_priority": 0}),
        ("KVBM_OFFLOAD_G1_TO_G2_MIN_PRIORITY", "7", {"min_store_priority": 7}),
        ("KVBM_OFFLOAD_G2_TO_G3_POLICIES", '["presence", "presence_lfu"]', {"ssd_admission": "on_second_hit"}),
        ("KVBM_OFFLOAD_G2_TO_G3_POLICIES", "pass_all", {"ssd_admission": "through"}),
        ("DYN_KVBM_METRICS_PORT", "7000", {"metrics_port": 7000}),
        ("DYN_KVBM_METRICS", "true", {"metrics_port": 6880}),
    ],
)
def test_a_variable_sets_what_it_means_here(variable: str, value: str, settings: dict[str, object]) -> None:
    assert given(read_config(environ={variable: value})) == settings


def test_dynamos_disk_is_filtered_and_without_a_size_its_host_memory_is_bypassed() -> None:
    both = read_config(environ={"DYN_KVBM_CPU_CACHE_GB": "4", "DYN_KVBM_DISK_CACHE_GB": "8"})
    assert (both.config.num_cpu_blocks, both.config.num_ssd_blocks) == ("4GB", "8GB")
    assert (both.config.ssd_admission, both.sources["ssd_admission"]) == ("on_second_hit", "as Dynamo KVBM does")
    assert set(notes(both, NoteKind.DIFFERENT)) == {"ssd_admission", "ssd_cache_dir"}
    for environ in ({"DYN_KVBM_DISK_CACHE_GB": "8"}, {"DYN_KVBM_DISK_CACHE_GB": "8", "DYN_KVBM_CPU_CACHE_GB": "0"}):
        only_disk = read_config(environ=environ).config
        assert (only_disk.enable_cpu, only_disk.enable_ssd, only_disk.ssd_admission) == (False, True, "through")
    ours = read_config(environ={"DYN_KVBM_DISK_CACHE_GB": "8"}, num_cpu_blocks=100).config
    assert (ours.enable_cpu, ours.ssd_admission) == (True, "on_second_hit")
    unfiltered = {"DYN_KVBM_CPU_CACHE_GB": "4", "DYN_KVBM_DISK_CACHE_GB": "8"}
    unfiltered["DYN_KVBM_DISABLE_DISK_OFFLOAD_FILTER"] = "true"
    assert read_config(environ=unfiltered).config.ssd_admission == "through"


KVBM_TOML = """\
[tokio]
worker_threads = 4
[default.cache.host]
cache_size_gb = 1.0
[leader.cache.host]
cache_size_gb = 4.0
[worker.cache.host]
cache_size_gb = 2.0
[cache.disk]
cache_size_gb = 20.0
storage_path = "/mnt/nvme/kv_cache"
use_gds = true
[offload.g1_to_g2]
policies = ["presence"]
min_priority = 30
[offload.g2_to_g3]
policies = ["presence_lfu"]
[offload.g2_to_g3.presence_lfu]
min_lfu_count = 4
[offload.g2_to_g3.unheard]
of = 1
[onboard]
mode = "inter"
[object.client]
type = "s3"
"""


def test_a_file_of_dynamos_is_taken_the_leaders_part_of_it(tmp_path: Path) -> None:
    loaded = loaded_from(tmp_path, KVBM_TOML, "kvbm.toml")
    assert given(loaded) == {
        "enable_cpu": True,
        "enable_ssd": True,
        "num_cpu_blocks": "4.0GB",
        "num_ssd_blocks": "20.0GB",
        "ssd_cache_dir": "/mnt/nvme/kv_cache",
        "ssd_admission": "on_second_hit",
        "min_store_priority": 30,
    }
    ignored = notes(loaded, NoteKind.IGNORED)
    assert {"tokio", "worker", "cache.disk.use_gds", "onboard", "object"} < set(ignored)
    assert "offload.g2_to_g3.presence_lfu.min_lfu_count" in ignored
    assert list(notes(loaded, NoteKind.UNKNOWN)) == ["offload.g2_to_g3.unheard.of"]
    assert [note.key for note in loaded.notes if note.loud] == ["object"]
    fastjsonschema.compile(settings_schema())({"cache": {"host": {"cache_size_gb": 4.0}}})


def test_ours_win_over_theirs_whatever_the_source_and_the_loser_is_named(tmp_path: Path) -> None:
    environ = {"FLEXKV_CPU_CACHE_GB": "16", "FLEXKV_EVICT_RATIO": "0.2"}
    loaded = loaded_from(tmp_path, "num_cpu_blocks: 5000\nevict_ratio: 0.2\n", environ=environ)
    assert loaded.config.num_cpu_blocks == 5000
    assert notes(loaded, NoteKind.CONTRADICTORY) == {
        "FLEXKV_CPU_CACHE_GB": f"asks for num_cpu_blocks = '16GiB', but num_cpu_blocks (file {tmp_path / 'c.yaml'}) wins; "
        "remove one of them"
    }


@pytest.mark.parametrize(
    ("environ", "winner"),
    [
        ({"DYN_KVBM_CPU_CACHE_GB": "4", "DYN_KVBM_CPU_CACHE_OVERRIDE_NUM_BLOCKS": "77"}, 77),
        ({"DYN_KVBM_CPU_CACHE_GB": "4", "KVBM_CACHE_HOST_CACHE_SIZE_GB": "5"}, "5GB"),
        ({"KVBM_CACHE_HOST_CACHE_SIZE_GB": "5", "DYN_KVBM_CPU_CACHE_OVERRIDE_NUM_BLOCKS": "77"}, 77),
    ],
)
def test_within_a_dialect_the_winner_is_the_one_that_wins_there(environ: dict[str, str], winner: object) -> None:
    for items in (environ.items(), reversed(environ.items())):
        loaded = read_config(environ=dict(items))
        assert loaded.config.num_cpu_blocks == winner
        assert len(notes(loaded, NoteKind.CONTRADICTORY)) == 1


def test_version_2_variables_win_over_its_file_and_that_over_version_1(tmp_path: Path) -> None:
    content = "cache: {host: {cache_size_gb: 6}}"
    strong = {"DYN_KVBM_CPU_CACHE_GB": "4", "KVBM_CACHE_HOST_CACHE_SIZE_GB": "5"}
    assert loaded_from(tmp_path, content, environ=strong).config.num_cpu_blocks == "5GB"
    weak = {"DYN_KVBM_CPU_CACHE_GB": "4"}
    assert loaded_from(tmp_path, content, environ=weak).config.num_cpu_blocks == "6GB"


def test_a_variable_names_the_file_and_makes_flexkv_deaf_to_its_basic_variables(tmp_path: Path) -> None:
    path = written(tmp_path, "cpu_cache_gb: 8\n", "flexkv.yml")
    environ = {"FLEXKV_CONFIG_PATH": str(path), "FLEXKV_SSD_CACHE_GB": "100", "FLEXKV_EVICT_RATIO": "0.1"}
    loaded = read_config(environ=environ)
    assert (loaded.config.num_cpu_blocks, loaded.config.enable_ssd, loaded.config.evict_ratio) == ("8GiB", False, 0.1)
    assert "FLEXKV_CONFIG_PATH names a file" in notes(loaded, NoteKind.IGNORED)["FLEXKV_SSD_CACHE_GB"]
    other = loaded_from(tmp_path, "num_cpu_blocks: 7\n", environ=environ)
    assert (other.config.num_cpu_blocks, other.config.enable_ssd) == (7, True)
    assert "FLEXKV_CONFIG_PATH" in notes(other, NoteKind.IGNORED)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"FLEXKV_CPU_CACHE_GB": "0"},
            "FLEXKV_CPU_CACHE_GB = '0' .from environment.: must be above 0.*as FlexKV would",
        ),
        ({"FLEXKV_CPU_CACHE_GB": "lots"}, "FLEXKV_CPU_CACHE_GB = 'lots'.*must be a number"),
        ({"FLEXKV_SSD_CACHE_GB": "-1"}, "FLEXKV_SSD_CACHE_GB = '-1'.*must not be below 0"),
        ({"FLEXKV_EVICTION_POLICY": "clock"}, "eviction_policy = 'clock' .from environment FLEXKV_EVICTION_POLICY"),
        ({"FLEXKV_EVICT_RATIO": "0.6"}, "evict_ratio = 0.6 .from environment FLEXKV_EVICT_RATIO.*0 to 0.5"),
        ({"FLEXKV_IOURING_ENTRIES": "1.5"}, "must be a whole number"),
        ({"FLEXKV_USE_HUGEPAGE_CPU_BUFFER": "2"}, "must be true or false"),
        ({"KVBM_OFFLOAD_G2_TO_G3_POLICIES": "all"}, "must be a list of pass_all, presence, presence_lfu"),
        ({"DYN_KVBM_CPU_CACHE_GB": "nan"}, "must be a number"),
        (
            {"FLEXKV_CPU_CACHE_GB": "16", "DYN_KVBM_CPU_CACHE_GB": "4"},
            "DYN_KVBM_CPU_CACHE_GB.*FLEXKV_CPU_CACHE_GB.*num_cpu_blocks = .*set num_cpu_blocks itself",
        ),
        ({"DYN_KVBM_CPU_CACHE_GB": "0"}, "enable_cpu = False.*no tier"),
    ],
)
def test_a_foreign_value_that_stands_for_nothing_is_refused_by_name(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(environ=environ)


def test_unknown_foreign_variables_are_left_alone_but_named() -> None:
    loaded = read_config(environ={"FLEXKV_CPU_CACHE_GIB": "16", "DYN_KVBM_ODD": "1", "DYN_LOG": "x", "FLEXKVX": "1"})
    unknown = notes(loaded, NoteKind.UNKNOWN)
    assert set(unknown) == {"FLEXKV_CPU_CACHE_GIB", "DYN_KVBM_ODD"}
    assert "did you mean 'FLEXKV_CPU_CACHE_GB'" in unknown["FLEXKV_CPU_CACHE_GIB"]
    assert "did you mean" not in unknown["DYN_KVBM_ODD"], "a prefix alone is no likeness"
    assert loaded.config == CacheConfig()


def test_what_flexkv_documents_but_does_not_do_is_said() -> None:
    loaded = read_config(environ={"FLEXKV_MLA_D2H_MODE": "sharded", "FLEXKV_SWA_MULTI_LAYER": "1"})
    assert all("documents it but does not read it" in text for text in notes(loaded, NoteKind.IGNORED).values())
    assert len(loaded.notes) == 2
    used = read_config(environ={"FLEXKV_SSD_CACHE_GB": "9"})
    assert set(notes(used, NoteKind.DIFFERENT)) == {
        "num_cpu_blocks",
        "evict_start_threshold",
        "evict_ratio",
        "ssd_cache_dir",
    }


def test_an_unknown_key_in_a_file_is_an_error_that_knows_the_foreign_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cpu_cache_gib .*did you mean 'cpu_cache_gb'"):
        loaded_from(tmp_path, "cpu_cache_gib: 4\n")


def test_a_file_that_holds_itself_or_endless_keys_is_refused(tmp_path: Path) -> None:
    levels = ["a: &a {x1: 1, x2: 1, x3: 1, x4: 1}"]
    for old, new in zip("abcdef", "bcdefg", strict=True):
        levels.append(f"{new}: &{new} {{y1: *{old}, y2: *{old}, y3: *{old}, y4: *{old}}}")
    with pytest.raises(ConfigError, match="more than 2000 keys"):
        loaded_from(tmp_path, "cache:\n  " + "\n  ".join(levels))
    assert notes(loaded_from(tmp_path, "cache: &c {host: *c}\n"), NoteKind.UNKNOWN)


def test_every_table_row_leads_to_a_setting_or_says_why_not_and_no_name_is_taken_twice() -> None:
    for dialect in DIALECTS:
        variables = [name for known in dialect.keys for name in known.variables]
        names = [known.name for known in dialect.keys if known.name]
        assert len(variables) == len(set(variables))
        assert len(names) == len(set(names))
        assert not set(names) & (set(SETTINGS) | set(LATER_KEYS))
        for known in dialect.keys:
            assert set(known.sets) <= set(SETTINGS), known
            assert known.sets or known.note, known
            assert known.name or known.variables, known


def test_the_schema_takes_what_flexkv_writes() -> None:
    fastjsonschema.compile(settings_schema())(parse_yaml(FLEXKV_FILE))
