"""What docs/vllm.md tells to type is taken by the code."""

import json
import re
from pathlib import Path
from typing import Any

from tiercel.config import load_config

PAGE = (Path(__file__).parents[2] / "docs" / "vllm.md").read_text()
OWN_KEYS = {
    "config_file",
    "load_timeout_s",
    "model_id",
    "weights_epoch",
    "allow_untested_vllm",
    "model_revision",
    "start_node",
}


def transfer_configs() -> list[dict[str, Any]]:
    return [json.loads(text) for text in re.findall(r"--kv-transfer-config '(.*?)'", PAGE, re.DOTALL)]


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    extra = config["kv_connector_extra_config"]
    entry = extra["secondary_tiers"][0] if "secondary_tiers" in extra else extra
    return {key: value for key, value in entry.items() if key not in {"type", "module_path"} | OWN_KEYS}


def test_the_page_shows_both_ways_in() -> None:
    shown = [config["kv_connector"] for config in transfer_configs()]
    assert shown == ["TiercelConnector", "OffloadingConnector", "TiercelConnector", "TiercelConnector"]


def test_the_settings_in_its_commands_are_settings() -> None:
    for config in transfer_configs():
        load_config(None, environ={}, **settings_of(config))


def test_the_settings_in_its_tables_are_settings() -> None:
    shown = re.findall(r'`("[a-z_]+":[^`]*)`', PAGE)
    assert len(shown) > 10
    for text in shown:
        settings = json.loads("{" + text.replace("...", '"1GiB"') + "}")
        known = {key: value for key, value in settings.items() if key not in OWN_KEYS and not key.startswith("kv_")}
        load_config(None, environ={}, **({"enable_ssd": True} | known))
