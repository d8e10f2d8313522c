"""What the operator asks for, parsed; and what is said when it is wrong."""

import pytest

from tiercel.errors import ConfigError
from tiercel.tune.advise.asking import Budget, parse_budget, parse_prices, parse_slo

BUDGET = Budget(host_bytes=1 << 30, disk_bytes=1 << 40)


def test_limits_are_read_with_their_units() -> None:
    assert parse_slo("ttft_p99=2s, e2e_mean=1.5min,ttft_p50=300ms").limits_s == {
        "ttft_p99": 2.0,
        "e2e_mean": 90.0,
        "ttft_p50": pytest.approx(0.3),
    }


def test_a_budget_is_read_in_bytes() -> None:
    budget = parse_budget("host=256GiB,disk=2TiB,disk_writes=5TB")
    assert budget == Budget(host_bytes=256 << 30, disk_bytes=2 << 40, disk_writes_per_day=5 * 10**12)
    assert parse_budget("host=1GiB,disk=0").disk_bytes == 0


def test_prices_are_plain_numbers() -> None:
    prices = parse_prices("host=3,disk=0.08,gpu_hour=2.5", BUDGET)
    assert (prices.host_gib_month, prices.disk_gib_month, prices.gpu_hour) == (3.0, 0.08, 2.5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ttft_p99=2", '--slo ttft_p99 = .*write it as "2s"'),
        ("ttft_p98=2s", "--slo ttft_p98.*did you mean 'ttft_p9"),
        ("ttft_p99=0s", "above 0"),
        ("ttft_p99", "KEY=VALUE"),
        ("ttft_p99=1s,ttft_p99=2s", "given twice"),
    ],
)
def test_a_wrong_limit_is_named_with_a_remedy(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_slo(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("host=64", "--budget host"),
        ("host=64G", "64GiB"),
        ("memory=64GiB", "--budget memory.*known are host, disk"),
        ("host=0,disk=0", "leaves no tier"),
        ("host=1GiB,disk_writes=1TB", "no room.*add disk"),
        ("host=1GiB,disk=1TiB,disk_writes=1KB", "at least 1MiB"),
    ],
)
def test_a_wrong_budget_is_named_with_a_remedy(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_budget(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("host=3,disk=1", "lacks gpu_hour"),
        ("gpu_hour=2,host=1", "lacks disk"),
        ("gpu_hour=$2,host=1,disk=1", "without a currency"),
    ],
)
def test_a_wrong_price_is_named_with_a_remedy(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_prices(text, BUDGET)
