"""YAML without repeated keys, and without numbers that YAML 1.1 and 1.2 read differently.

A module of its own: importing PyYAML takes long, and most programs read no file.
"""

import re
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
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError) as error:
        # The last four: what PyYAML raises for a tag that its value does not fit, such as `!!bool maybe`.
        raise ValueError(str(error) or type(error).__name__) from error


_AMBIGUOUS = re.compile(r"[-+]?(0[0-9_]*[0-9][0-9_]*|[0-9_]+(:[0-9_.]+)+)")


class _StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, except that a key given twice and a number of two meanings are errors."""

    def construct_plain_number(self, node: yaml.ScalarNode) -> int | float:
        """Refuse 010, which is 8 in YAML 1.1 and 10 in YAML 1.2, and 1:30, which is 90 or text."""
        text = str(node.value)
        if _AMBIGUOUS.fullmatch(text):
            hint = f"write {text.lstrip('+-0_') or 0}" if ":" not in text else "write one number"
            raise ValueError(f"line {node.start_mark.line + 1}: {text} is read as different numbers by different versions "
                             f"of YAML; {hint}, or put it in quotes if it is text")  # fmt: skip
        is_int = node.tag == "tag:yaml.org,2002:int"
        found: int | float = self.construct_yaml_int(node) if is_int else self.construct_yaml_float(node)
        return found

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        require_unique([self.construct_object(key, deep=True) for key, _ in node.value])
        return super().construct_mapping(node, deep=deep)


for _tag in ("int", "float"):
    _StrictLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _StrictLoader.construct_plain_number)
