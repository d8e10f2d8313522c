"""The setting `tenants`: what it takes, what it comes to, and what its errors say."""

import json
from pathlib import Path

import pytest

from tiercel.config import CacheConfig, ModelConfig, explain, load_config, read_config
from tiercel.errors import ConfigError

MODEL = ModelConfig(num_layers=2, num_kv_heads=2, head_size=16, dtype="float16", model_id="small")

FILE = """\
cache_config:
  enable_ssd: true
  num_cpu_blocks: 1000
  num_ssd_blocks: 4000
  tenants:
    search:
      namespaces: [search, search-lora]
      reserve: 20%
      weight: 4
    batch:
      namespaces: batch
      limit: {cpu: 50%, ssd: 16MiB}
      bandwidth: {ssd: 1GiB/s, cpu: 5000000}
"""


def of(**tenants: object) -> CacheConfig:
    return CacheConfig(num_cpu_blocks=1000, tenants=tenants)


def test_tenants_of_a_file_come_to_blocks_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "cache.yaml").write_text(FILE)
    loaded = load_config(tmp_path / "cache.yaml", environ={})
    search, batch = loaded.config.resolve(MODEL).tenants
    assert (search.name, search.weight, batch.weight) == ("search", 4.0, 1.0)
    assert (search.cpu.reserve_blocks, search.ssd.reserve_blocks) == (200, 800)
    assert (search.cpu.limit_blocks, search.cpu.bytes_per_s) == (1000, None)
    assert (batch.cpu.limit_blocks, batch.ssd.limit_blocks) == (500, 4000)
    assert (batch.cpu.bytes_per_s, batch.ssd.bytes_per_s) == (5_000_000, 2**30)
    assert [tenant.namespaces for tenant in loaded.config.tenant_list] == [("search", "search-lora"), ("batch",)]
    row = next(row for row in explain(loaded, MODEL).settings if row.key == "tenants")
    assert (row.value, row.source) == ("search;batch", f"file {tmp_path / 'cache.yaml'}")


def test_tenants_come_from_the_environment_as_json() -> None:
    given = {"a": {"namespaces": ["x"], "reserve": 10}}
    loaded = read_config(environ={"TIERCEL_TENANTS": json.dumps(given), "TIERCEL_NUM_CPU_BLOCKS": "100"})
    assert loaded.config.resolve(MODEL).tenants[0].cpu.reserve_blocks == 10
    with pytest.raises(ConfigError, match="TIERCEL_TENANTS"):
        read_config(environ={"TIERCEL_TENANTS": "{a: "})


def test_what_is_reserved_of_a_tier_that_is_off_is_nothing() -> None:
    (tenant,) = of(a={"namespaces": "x", "reserve": 40}).resolve(MODEL).tenants
    assert (tenant.cpu.reserve_blocks, tenant.ssd.reserve_blocks, tenant.ssd.limit_blocks) == (40, 0, 0)


def test_a_configuration_with_tenants_can_be_taken_over_into_another() -> None:
    first = of(a={"namespaces": "x"})
    assert CacheConfig(num_cpu_blocks=1000, tenants=first.tenants) == first
    assert hash(first) == hash(of(a={"namespaces": "x"}))
    assert of() == CacheConfig(num_cpu_blocks=1000)


@pytest.mark.parametrize(
    ("tenants", "message"),
    [
        ("all", "tenants = 'all': must hold tenants by name; give names"),
        ({"a": "x"}, "tenants.a = 'x': must hold keys and values"),
        ({"a": {}}, "tenants.a.namespaces = None: must be the namespaces"),
        ({"a": {"namespaces": []}}, "name at least one"),
        ({"a": {"namespaces": ["x", 3]}}, "must be the namespaces of the tenant"),
        ({"": {"namespaces": "x"}}, "must be a name of 1 to 100 printable characters"),
        ({"a": {"namespaces": "x", "reserv": 1}}, r"tenants.a.reserv: unknown key; did you mean 'reserve'"),
        ({"a": {"namespaces": "x"}, "b": {"namespaces": ["y", "x"]}}, "tenants.b.namespaces = 'x': must be named once, and a"),
        ({"a": {"namespaces": "x", "reserve": "120%"}}, r"tenants.a.reserve.cpu = '120%': a share is above 0% and at most 100%"),
        ({"a": {"namespaces": "x", "reserve": {"gpu": 3}}}, "must be by tier: cpu, ssd"),
        ({"a": {"namespaces": "x", "reserve": -1}}, "must be blocks, a size such as 64GiB, or a share"),
        ({"a": {"namespaces": "x", "limit": True}}, "must be blocks, a size such as 64GiB, or a share"),
        ({"a": {"namespaces": "x", "weight": 0}}, "tenants.a.weight = 0: must be a number above 0"),
        ({"a": {"namespaces": "x", "weight": True}}, "tenants.a.weight = True"),
        ({"a": {"namespaces": "x", "bandwidth": "1GiB"}}, 'must be bytes a second, such as "1GiB/s"'),
        ({"a": {"namespaces": "x", "bandwidth": {"ssd": 0}}}, "tenants.a.bandwidth.ssd = 0"),
        ({str(n): {"namespaces": str(n)} for n in range(65)}, "must name at most 64 tenants"),
        (
            {name: {"namespaces": name, "reserve": "40%"} for name in "abc"},
            r"tenants.\*.reserve = '120%': must be at most 100% of the cpu tier in sum; lower some",
        ),
    ],
)  # fmt: skip
def test_a_wrong_description_is_refused_by_key_value_and_remedy(tenants: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CacheConfig(tenants=tenants)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tenants", "message"),
    [
        ({"a": {"namespaces": "x", "reserve": 600}, "b": {"namespaces": "y", "reserve": "50%"}}, "1100 blocks in sum"),
        ({"a": {"namespaces": "x", "reserve": 600, "limit": "10%"}}, "must be at most its limit of 100 blocks"),
    ],
)
def test_reserves_that_do_not_fit_the_tier_are_refused_when_its_size_is_known(tenants: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CacheConfig(num_cpu_blocks=1000, tenants=tenants).resolve(MODEL)  # type: ignore[arg-type]
