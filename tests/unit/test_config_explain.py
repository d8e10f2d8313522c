"""The explanation of settings, shares such as 80%, and the pages that are made from the declarations."""

import json
import re
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest

from tests.helpers.config_samples import SEED_EXAMPLES
from tiercel.config import (
    SETTINGS,
    CacheConfig,
    LayerGroup,
    ModelConfig,
    NoteKind,
    Room,
    check_resources,
    explain,
    load_config,
)
from tiercel.config.reference import reference
from tiercel.config.resolved import DeviceRoom
from tiercel.config.resources import DiskProbe, MemoryProbe, require_fit, room_of
from tiercel.config.schema import schema_text, settings_schema
from tiercel.config.strict_yaml import parse_yaml
from tiercel.errors import ConfigError

DOCS = Path(__file__).parents[2] / "docs"
MODEL = ModelConfig(model_id="m", num_layers=64, num_kv_heads=8, head_size=256, dtype="bfloat16")
BLOCK = 8 * 2**20
VALIDATE = fastjsonschema.compile(settings_schema())


def test_the_explanation_shows_values_sources_notes_and_what_follows() -> None:
    loaded = load_config(
        environ={"TIERCEL_NUM_CPU_BLOCKS": "64GiB"}, enable_ssd=True, ssd_cache_dir=["/a", "/b"], enable_gds=True
    )
    explained = explain(loaded, MODEL)
    rows = {row.key: row for row in explained.settings}
    assert list(rows) == list(SETTINGS)
    assert rows["num_cpu_blocks"].value == "64GiB"
    assert rows["num_cpu_blocks"].source == "environment TIERCEL_NUM_CPU_BLOCKS"
    assert rows["ssd_cache_dir"].value == "/a;/b"
    assert (rows["enable_ssd"].value, rows["metrics_port"].value) == ("true", "null")
    assert [(note.key, note.kind, note.loud) for note in explained.notes] == [("enable_gds", NoteKind.IGNORED, True)]
    derived = {row.key: row.value for row in explained.derived}
    assert derived["token bytes"] == "524288"
    assert derived["block bytes"] == str(BLOCK)
    assert (derived["host blocks"], derived["host tokens"]) == ("8192", str(8192 * 16))
    assert int(derived["disk bytes"]) > 10_000_000 * BLOCK
    assert not explain(loaded).derived


def test_the_explanation_of_what_cannot_run_says_why_instead_of_failing() -> None:
    small = explain(load_config(environ={}, num_cpu_blocks="1MiB"), MODEL)
    (said,) = (note.text for note in small.notes if note.kind is NoteKind.IMPOSSIBLE)
    assert said.startswith("num_cpu_blocks = '1MiB': must hold")
    assert not small.derived, "no number is shown that does not hold"
    groups = (LayerGroup(name="linear_attention", layers=(0,)), LayerGroup(name="full_attention", layers=(1,)))
    hybrid = ModelConfig(model_id="h", num_layers=2, num_kv_heads=1, head_size=8, dtype="float16", layer_groups=groups)
    refused = explain(load_config(environ={}, num_cpu_blocks=1), hybrid)
    assert any("refuses to store" in row.note for row in refused.derived)


def disk(directory: str, device: int, free_blocks: int, own_blocks: int = 0) -> DiskProbe:
    return DiskProbe(
        directory=Path(directory), device=device, free_bytes=free_blocks * BLOCK, own_bytes=own_blocks * BLOCK
    )


def shares(host: str, ssd: str, directories: str = "/a;/b") -> CacheConfig:
    return CacheConfig(
        enable_ssd=True,
        num_cpu_blocks=host,
        num_ssd_blocks=ssd,
        ssd_cache_dir=directories,
        journal_checkpoint_bytes="64MiB",
    )


@pytest.mark.parametrize(("host", "num_blocks"), [("80%", 80), ("12.5 %", 12), ("100%", 100), ("1%", 1)])
def test_a_share_of_memory_is_taken_of_what_is_available(host: str, num_blocks: int) -> None:
    room = Room(memory_bytes=100 * BLOCK, memory_text="test")
    assert CacheConfig(num_cpu_blocks=host).resolve(MODEL, room).num_cpu_blocks == num_blocks


@pytest.mark.parametrize("share", ["100%", "80%", "33.3%"])
@pytest.mark.parametrize("devices", [(1, 1), (1, 2)])
@pytest.mark.parametrize("own", [0, 30])
def test_a_share_of_the_disks_fits_with_its_journal_and_leaves_little(
    share: str, devices: tuple[int, int], own: int
) -> None:
    memory = MemoryProbe(available_bytes=100 * BLOCK, limited_by="test")
    disks = [disk("/a", devices[0], 200 - own, own), disk("/b", devices[1], 200 - own, own)]
    resolved = shares("50%", share).resolve(MODEL, room_of(memory, disks))
    require_fit(resolved, memory, disks)
    whole = 2 * 200 * BLOCK if devices == (1, 2) else (200 + own) * BLOCK
    asked = float(share[:-1]) / 100 * whole
    journal = 16 * BLOCK if devices == (1, 2) else 0  # directories are filled evenly: the second has that much to spare
    assert asked - journal - 4 * BLOCK < resolved.disk_bytes <= asked


def test_the_directory_with_the_least_room_decides() -> None:
    room = Room(
        memory_bytes=BLOCK,
        memory_text="test",
        devices=[
            DeviceRoom(num_dirs=1, num_bytes=1000 * BLOCK, has_journal=True),
            DeviceRoom(num_dirs=1, num_bytes=10 * BLOCK, has_journal=False),
        ],
    )
    assert shares("100%", "50%").resolve(MODEL, room).num_ssd_blocks == 2 * 5


def test_a_share_without_a_look_at_the_machine_and_one_below_a_block_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"num_cpu_blocks = '80%'.*check_resources"):
        CacheConfig(num_cpu_blocks="80%").resolve(MODEL)
    with pytest.raises(ConfigError, match=r"num_cpu_blocks = '80%': is less than a block of 8.00 MiB; free some"):
        CacheConfig(num_cpu_blocks="80%").resolve(MODEL, Room(memory_bytes=BLOCK, memory_text="test"))


def test_this_machine_has_room_for_a_share_of_both_tiers(tmp_path: Path) -> None:
    config = shares("10%", "50%", str(tmp_path / "new"))
    tiny = ModelConfig(model_id="m", num_layers=1, num_kv_heads=1, head_size=24, dtype="float16")
    resolved = check_resources(tiny, config)
    assert resolved.num_cpu_blocks > 1
    assert resolved.num_ssd_blocks > 1
    assert not (tmp_path / "new").exists()


def test_the_explanation_says_what_a_share_comes_to() -> None:
    loaded = load_config(environ={}, num_cpu_blocks="25%")
    room = Room(memory_bytes=400 * BLOCK, memory_text="memory.max = 3355443200")
    (row,) = explain(loaded, room=room).derived
    assert (row.key, row.value, row.note) == (
        "host share",
        str(100 * BLOCK),
        "25% of 3.12 GiB (memory.max = 3355443200)",
    )
    sized = {row.key: row.value for row in explain(loaded, MODEL, room).derived}
    assert sized["host blocks"] == "100"
    assert int(explain(loaded).derived[0].value) > 0  # of this machine


def test_the_pages_are_current() -> None:
    for module, name, text in (
        ("reference", "configuration.md", reference()),
        ("schema", "configuration.schema.json", schema_text()),
    ):
        written = (DOCS / name).read_text(encoding="utf-8")
        assert written == text, f"out of date: run python -m tiercel.config.{module} > docs/{name}"


def test_every_setting_has_a_unit_a_default_a_meaning_and_what_to_measure() -> None:
    for key, described in SETTINGS.items():
        assert described.meaning.endswith("."), key
        assert described.measure.endswith("."), key
        assert described.default_text, key
    numbers = {"COUNT", "POWER_OF_TWO", "NUMBER", "CAPACITY", "SIZE"}
    unitless = [key for key, described in SETTINGS.items() if described.kind.name in numbers and not described.unit]
    assert unitless == ["metrics_port"]


def examples_in_docs() -> list[str]:
    pages = [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]
    found = [block for page in pages for block in re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    assert found
    return found


@pytest.mark.parametrize("content", [*SEED_EXAMPLES, *examples_in_docs()])
def test_the_schema_takes_published_examples(content: str) -> None:
    VALIDATE(parse_yaml(content))


@pytest.mark.parametrize(
    "content",
    [
        {"num_cpu_block": 5},
        {"num_cpu_blocks": 0},
        {"num_cpu_blocks": "5000"},
        {"tokens_per_block": 24},
        {"eviction_policy": "clock"},
        {"cache_config": {}, "evict_ratio": 0.1},
        {"cache_config": {"evict_ratio": 0.9}},
        {"model_config": {"num_layers": 4}},
        {"gpu_kv_layout_type": "BLOCKWISE"},
        [],
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(content: Any, tmp_path: Path) -> None:
    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        VALIDATE(content)
    path = tmp_path / "c.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ConfigError):
        load_config(path, environ={})
