"""Which vLLM this connector fits, checked once at start."""

import re

from tiercel import ConfigError

OLDEST = (0, 24)
NEWEST = (0, 33)
"""First and last minor version that the connector was read and tested against."""


def check_version(version: str, *, allow_untested: bool = False) -> tuple[int, int]:
    """Return vLLM's major and minor version.

    Args:
        version: as `vllm.__version__` has it.
        allow_untested: take what lies outside the range, too.

    Raises:
        ConfigError: it is not in the supported range.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    number = (int(found[1]), int(found[2])) if found else (0, 0)
    if not OLDEST <= number <= NEWEST and not allow_untested:
        raise ConfigError(
            f"vLLM {version}: this version of Tiercel supports {_text(OLDEST)} to {_text(NEWEST)}; install one of these, "
            f"or set allow_untested_vllm to true in kv_connector_extra_config and watch what happens"
        )
    return number


def _text(number: tuple[int, int]) -> str:
    return f"{number[0]}.{number[1]}"
