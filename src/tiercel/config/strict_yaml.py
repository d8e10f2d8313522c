"""YAML without repeated keys. A module of its own: importing PyYAML takes long, and most programs read no file."""

from collections.abc import Hashable
from typing import Any

import yaml

from tiercel.config.messages import require_unique


def parse_yaml(text: str) -> object:
    """Return the plain values that a YAML text holds; nothing else is ever built.

    Raises:
        ValueError: it is not YAML, holds more than plain values, or gives a key twice.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, except that a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        require_unique([self.construct_object(key, deep=True) for key, _ in node.value])
        return super().construct_mapping(node, deep=deep)
