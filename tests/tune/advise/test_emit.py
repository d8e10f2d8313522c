"""The files that advice is written to: read back, they set what was chosen."""

import json
import shlex
from pathlib import Path

import pytest

from tests.tune.advise.stand_in import GIB, MODEL, Landscape
from tests.tune.advise.test_advice import BUDGET, asked
from tiercel.config import CacheConfig, load_config
from tiercel.tune.advise import Budget
from tiercel.tune.advise.candidate import Candidate, size_text
from tiercel.tune.advise.emit import vllm_flags
from tiercel.tune.advise.report import files_of

DIRECTORIES = ["/nvme0/tiercel", "/nvme1/tiercel"]
HALF_BYTES = 400.0 * GIB


def written(folder: Path, text: str, name: str = "tiercel.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_file_loads_and_gives_the_chosen_values(tmp_path: Path) -> None:
    landscape = Landscape(
        half_bytes=HALF_BYTES,
        disk_worth=0.5,
        policy={"2q": 2.0},
        disk_policy={"lfu": 2.0},
        admission={"on_second_hit": 1.5},
    )
    advice, question = asked(landscape)
    loaded = load_config(written(tmp_path, files_of(advice, question, "some.jsonl", DIRECTORIES).settings), environ={})
    chosen = advice.choice.candidate
    assert loaded.model == MODEL
    assert loaded.config == CacheConfig(**chosen.settings(DIRECTORIES), **advice.transfer.settings)
    resolved = loaded.config.resolve(MODEL)
    assert resolved.num_cpu_blocks == chosen.host_bytes // resolved.slot_bytes
    assert resolved.num_ssd_blocks == chosen.disk_bytes // resolved.slot_bytes
    assert (chosen.eviction_policy, loaded.config.eviction_policy) == ("2q", "2q")
    assert not loaded.notes


def test_each_setting_has_its_reason_as_a_comment(tmp_path: Path) -> None:
    advice, question = asked(Landscape(half_bytes=HALF_BYTES, disk_worth=0.5))
    text = files_of(advice, question, "some.jsonl", DIRECTORIES).settings
    plain = " ".join(line.strip().removeprefix("# ") for line in text.splitlines())
    for reason in advice.reasons:
        assert reason.sentence in plain, reason
    assert "within 256 GiB of host memory and 2.00 TiB of disk" in plain.replace("2 TiB", "2.00 TiB")


@pytest.mark.parametrize(
    "budget", [BUDGET, Budget(host_bytes=100 * 10**9), Budget(host_bytes=300 << 20, disk_bytes=5 << 30)]
)
def test_flexkvs_file_read_back_gives_the_same_settings(tmp_path: Path, budget: Budget) -> None:
    landscape = Landscape(half_bytes=budget.host_bytes * 2, disk_worth=0.5, policy={"slru": 2.0})
    advice, question = asked(landscape, budget=budget, of_flexkv=True)
    files = files_of(advice, question, "some.jsonl", DIRECTORIES)
    assert files.flexkv is not None
    assert advice.choice.candidate.eviction_policy == "slru"
    tokens_per_block = advice.choice.candidate.tokens_per_block
    ours = load_config(written(tmp_path, files.settings), environ={}).config
    theirs = load_config(
        written(tmp_path, files.flexkv, "flexkv.yaml"), environ={}, tokens_per_block=tokens_per_block
    ).config
    assert ours.resolve(MODEL).num_cpu_blocks == theirs.resolve(MODEL).num_cpu_blocks
    assert ours.resolve(MODEL).num_ssd_blocks == theirs.resolve(MODEL).num_ssd_blocks
    keys = ["enable_cpu", "enable_ssd", "tokens_per_block", "eviction_policy", "evict_ratio", "ssd_admission"]
    keys += ["use_ce_transfer_h2d", "use_ce_transfer_d2h"]
    if ours.enable_ssd:
        keys += ["ssd_cache_dirs", "ssd_cache_iouring_entries"]
        assert ours.ssd_eviction_policy == theirs.eviction_policy
    for key in keys:
        assert getattr(ours, key) == getattr(theirs, key), key


def test_flexkvs_file_has_only_keys_that_it_reads(tmp_path: Path) -> None:
    advice, question = asked(Landscape(half_bytes=HALF_BYTES, disk_worth=0.5), of_flexkv=True)
    text = files_of(advice, question, "some.jsonl", DIRECTORIES).flexkv or ""
    keys = {line.partition(":")[0] for line in text.splitlines() if not line.startswith("#")}
    assert keys == {
        "cpu_cache_gb",
        "ssd_cache_gb",
        "ssd_cache_dir",
        "eviction_policy",
        "evict_ratio",
        "iouring_entries",
        "use_ce_transfer_h2d",
        "use_ce_transfer_d2h",
        "transfer_num_cta_h2d",
        "transfer_num_cta_d2h",
    }
    assert f"--block-size {advice.choice.candidate.tokens_per_block}" in text


def test_vllms_flags_are_words_of_a_shell() -> None:
    words = shlex.split(vllm_flags("my files/tiercel.yaml", 64))
    assert words[:3] == ["--block-size", "64", "--kv-transfer-config"]
    connector = json.loads(words[3])
    assert connector["kv_connector"] == "TiercelConnector"
    assert connector["kv_connector_extra_config"] == {"config_file": "my files/tiercel.yaml"}


@pytest.mark.parametrize("num_bytes", [1, 4096, 3 << 20, 64 << 30, 2 << 40, 10**11 + 1])
def test_a_written_size_is_exact(num_bytes: int) -> None:
    from tiercel.config import parse_size

    assert parse_size("", size_text(num_bytes)) == num_bytes


def test_a_host_tier_alone_says_nothing_of_disks() -> None:
    settings = Candidate(host_bytes=GIB).settings(DIRECTORIES)
    assert settings["enable_ssd"] is False
    assert not [key for key in settings if key.startswith("ssd_")]
