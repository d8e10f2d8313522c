"""What settings amount to in blocks and bytes, and whether a machine can hold them."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tiercel.config import (
    CacheConfig,
    LayerGroup,
    ModelConfig,
    check_resources,
    format_bytes,
    parse_size,
)
from tiercel.config.resources import DiskProbe, MemoryProbe, probe_disk, probe_memory, require_fit, room_of
from tiercel.errors import ConfigError

MODEL = ModelConfig(model_id="m", num_layers=64, num_kv_heads=8, head_size=256, dtype="bfloat16")
BLOCK = 8 * 2**20
PLENTY = MemoryProbe(available_bytes=2**60, limited_by="test")


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("64GiB", 64 * 2**30),
        ("64 GB", 64 * 10**9),
        ("512MiB", 512 * 2**20),
        ("1.5tib", 3 * 2**39),
        (" 7 B ", 7),
        ("0.1KB", 100),
        ("4KiB", 4096),
        ("2MB", 2_000_000),
    ],
)
def test_sizes_are_exact(text: str, num_bytes: int) -> None:
    assert parse_size("key", text) == num_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "1e3GB", "64 Gi B", "64GiBs", "1,5GB", "٣GB", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="key = "):
        parse_size("key", text)


def test_sizes_are_shown_in_binary_units() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1536, 8 * 2**40)] == ["0 B", "1023 B", "1.50 KiB", "8.00 TiB"]


def test_capacities_resolve_to_whole_blocks() -> None:
    config = CacheConfig(
        enable_ssd=True, num_cpu_blocks="64GiB", num_ssd_blocks="1TB", ssd_cache_dir=["/a", "/b", "/c"]
    )
    resolved = config.resolve(MODEL)
    assert (resolved.block_bytes, resolved.slot_bytes) == (BLOCK, BLOCK)
    assert (resolved.num_cpu_blocks, resolved.num_ssd_blocks) == (8192, 10**12 // BLOCK)
    assert resolved.host_bytes == 64 * 2**30
    assert resolved.directory_bytes == -(-resolved.num_ssd_blocks // 3) * BLOCK
    assert resolved.transfer_chunk_bytes == 32 * 2**20
    off = CacheConfig().resolve(MODEL)
    assert (off.num_ssd_blocks, off.disk_bytes, off.ssd_cache_dirs) == (0, 0, ())


def test_a_slot_is_padded_to_what_direct_io_needs() -> None:
    tiny = ModelConfig(model_id="m", num_layers=1, num_kv_heads=1, head_size=24, dtype="float16")
    resolved = CacheConfig(num_cpu_blocks="1MiB").resolve(tiny)
    assert (resolved.block_bytes, resolved.slot_bytes, resolved.num_cpu_blocks) == (16 * 96, 4096, 256)


def test_a_capacity_below_one_block_and_a_hybrid_model_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"num_cpu_blocks = '4MiB'.*blocks of 8.00 MiB.*8388608B"):
        CacheConfig(num_cpu_blocks="4MiB").resolve(MODEL)
    with pytest.raises(ConfigError, match=r"num_cpu_blocks = '99999999TB'.*at most 18014398509481984B"):
        CacheConfig(num_cpu_blocks="99999999TB").resolve(MODEL)
    with pytest.raises(ConfigError, match="linear_attention"):
        CacheConfig(num_cpu_blocks=1).resolve(hybrid())


def hybrid() -> ModelConfig:
    groups = (LayerGroup(name="linear_attention", layers=(0,)), LayerGroup(name="full_attention", layers=(1,)))
    return ModelConfig(model_id="h", num_layers=2, num_kv_heads=1, head_size=8, dtype="float16", layer_groups=groups)


def test_more_memory_than_there_is_names_a_capacity_that_fits() -> None:
    memory = MemoryProbe(available_bytes=100 * BLOCK, limited_by="memory.max")
    with pytest.raises(ConfigError, match=r"num_cpu_blocks = 1000000: takes 7.63 TiB.*memory.max.*to 90 or \"720MiB\""):
        require_fit(CacheConfig().resolve(MODEL), memory, [])
    require_fit(CacheConfig(num_cpu_blocks=90).resolve(MODEL), memory, [])
    require_fit(CacheConfig(num_cpu_blocks=100).resolve(MODEL), memory, [])
    with pytest.raises(ConfigError, match="num_cpu_blocks = 101"):
        require_fit(CacheConfig(num_cpu_blocks=101).resolve(MODEL), memory, [])


def disk(directory: str, device: int, free_blocks: int, own_blocks: int = 0) -> DiskProbe:
    return DiskProbe(
        directory=Path(directory), device=device, free_bytes=free_blocks * BLOCK, own_bytes=own_blocks * BLOCK
    )


def two_dirs(num_ssd_blocks: int) -> Any:
    settings: dict[str, Any] = {"enable_ssd": True, "num_cpu_blocks": 1, "journal_checkpoint_bytes": 4096}
    return CacheConfig(num_ssd_blocks=num_ssd_blocks, ssd_cache_dir="/a;/b", **settings).resolve(MODEL)


def test_directories_of_one_device_share_its_free_space() -> None:
    require_fit(two_dirs(190), PLENTY, [disk("/a", 1, 100), disk("/b", 2, 100)])
    with pytest.raises(ConfigError, match=r"num_ssd_blocks = 190: .*in /a, /b.*set num_ssd_blocks to (94|95) or"):
        require_fit(two_dirs(190), PLENTY, [disk("/a", 1, 100), disk("/b", 1, 100)])


def test_what_our_own_files_hold_counts_as_room_and_the_named_capacity_fits() -> None:
    with pytest.raises(ConfigError, match=r"in /b.*set num_ssd_blocks to 19 or"):
        require_fit(two_dirs(190), PLENTY, [disk("/a", 1, 100), disk("/b", 2, 10)])
    require_fit(two_dirs(19), PLENTY, [disk("/a", 1, 100), disk("/b", 2, 10)])
    require_fit(two_dirs(190), PLENTY, [disk("/a", 1, 100), disk("/b", 2, 10, own_blocks=85)])


def test_a_directory_that_does_not_exist_is_looked_at_through_its_parent(tmp_path: Path) -> None:
    probe = probe_disk(tmp_path / "not" / "yet")
    assert probe.free_bytes > 0
    assert probe.own_bytes == 0
    assert not (tmp_path / "not").exists()


def test_only_files_of_the_same_fingerprint_count_as_room_when_it_is_known(tmp_path: Path) -> None:
    fingerprint = bytes(range(16))
    for name in (fingerprint.hex()[:16], "ff" * 8):
        (tmp_path / f"tiercel-v1-{name}").mkdir()
        (tmp_path / f"tiercel-v1-{name}" / "data-0.bin").write_bytes(bytes(range(256)) * 256)
    one, every = probe_disk(tmp_path, fingerprint).own_bytes, probe_disk(tmp_path).own_bytes
    assert 2**16 <= one < every


def machine(root: Path, available_kib: int, cgroup: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available_kib} kB\n")
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_memory_is_what_the_machine_has_where_no_group_limits_it(tmp_path: Path) -> None:
    files = {"memory.max": "max\n"}
    assert probe_memory(machine(tmp_path, 2048, "0::/\n", files)).available_bytes == 2 * 2**20


def test_memory_is_what_the_tightest_group_leaves_with_its_page_cache_counted_as_free(tmp_path: Path) -> None:
    files = {
        "memory.max": f"{8 * 2**20}\n",
        "memory.current": f"{3 * 2**20}\n",
        "memory.stat": f"anon 5\ninactive_file {2**20}\n",
        "box/memory.max": "max\n",
        "box/inner/memory.max": f"{64 * 2**20}\n",
        "box/inner/memory.current": "0\n",
        "box/inner/memory.stat": "anon 0\n",
    }
    probe = probe_memory(machine(tmp_path, 2**20, "0::/box/inner\n", files))
    assert probe.available_bytes == 6 * 2**20
    assert "memory.max" in probe.limited_by


def test_the_older_kind_of_group_is_understood(tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": f"{4 * 2**20}\n",
        "memory/memory.usage_in_bytes": f"{5 * 2**20}\n",
        "memory/memory.stat": "cache 0\ntotal_inactive_file 0\n",
    }
    probe = probe_memory(machine(tmp_path, 2**20, "4:memory:/not/mounted\n0::/\n", files))
    assert probe.available_bytes == 0


def test_this_machine_can_hold_one_block_and_not_a_million(tmp_path: Path) -> None:
    config = CacheConfig(enable_ssd=True, num_cpu_blocks=1, num_ssd_blocks=1, ssd_cache_dir=str(tmp_path / "new"))
    assert check_resources(MODEL, config).num_cpu_blocks == 1
    assert not (tmp_path / "new").exists()
    with pytest.raises(ConfigError, match="num_cpu_blocks = 2147483648"):
        check_resources(MODEL, CacheConfig(num_cpu_blocks=2**31))


@pytest.mark.parametrize("place", ["/proc/nope", "/sys/nope"])
def test_a_place_without_room_for_files_is_named_as_the_directory_and_not_as_the_capacity(place: str) -> None:
    config = CacheConfig(enable_ssd=True, num_cpu_blocks=1, num_ssd_blocks=1, ssd_cache_dir=place)
    with pytest.raises(ConfigError, match=f"ssd_cache_dir = '{place}': .*; name a directory of yours"):
        check_resources(MODEL, config)


@pytest.mark.parametrize("free_bytes", [2**30, 200 * 2**20])
def test_the_capacity_that_is_named_as_fitting_fits_beside_the_journal(tmp_path: Path, free_bytes: int) -> None:
    small = ModelConfig(model_id="m", num_layers=2, num_kv_heads=2, head_size=64, dtype="float16")
    disks = [DiskProbe(directory=tmp_path, device=1, free_bytes=free_bytes, own_bytes=0)]
    given: dict[str, Any] = {"enable_ssd": True, "num_cpu_blocks": 1, "ssd_cache_dir": str(tmp_path)}
    with pytest.raises(ConfigError, match="num_ssd_blocks = '4GiB'") as raised:
        require_fit(CacheConfig(num_ssd_blocks="4GiB", **given).resolve(small), PLENTY, disks)
    found = re.search(r"set num_ssd_blocks to ([0-9]+) or", str(raised.value))
    assert found is not None
    require_fit(CacheConfig(num_ssd_blocks=int(found[1]), **given).resolve(small), PLENTY, disks)


def test_a_disk_that_the_journal_would_fill_says_so_for_a_size_and_for_a_share(tmp_path: Path) -> None:
    disks = [DiskProbe(directory=tmp_path, device=1, free_bytes=64 * 2**20, own_bytes=0)]
    given: dict[str, Any] = {"enable_ssd": True, "num_cpu_blocks": 1, "ssd_cache_dir": str(tmp_path)}
    with pytest.raises(
        ConfigError, match=r"free some, lower journal_checkpoint_bytes \(the journal takes 128\.00 MiB "
    ):
        require_fit(CacheConfig(num_ssd_blocks="1GiB", **given).resolve(MODEL), PLENTY, disks)
    with pytest.raises(ConfigError, match=r"num_ssd_blocks = '100%': is less than a block .* journal of 128\.00 MiB"):
        CacheConfig(num_ssd_blocks="100%", **given).resolve(MODEL, room_of(PLENTY, disks))


def test_settings_are_read_without_torch_or_transformers() -> None:
    code = (
        "import sys, tiercel.config, tiercel.layout; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
