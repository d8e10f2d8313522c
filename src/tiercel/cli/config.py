"""`tiercel config explain`: what a settings file amounts to, key by key."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tiercel.cli.render import print_json, print_line, print_table


def explain(file: Path, /, *, model: Path | None = None, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Show every setting with its value, where it comes from and what it means.

    Args:
        file: a settings file, YAML or JSON.
        model: a model's config.json, or its folder, to show what the settings amount to in bytes for it.
        json: print JSON, one object per row, in a list.
    """
    from tiercel.config import ModelConfig, load_config
    from tiercel.config import explain as explain_config

    loaded = load_config(file)
    rows = explain_config(loaded, None if model is None else ModelConfig.from_model(model))
    if json:
        print_json(rows)
        return
    print_table(
        "",
        ("key", "value", "unit", "from", "meaning"),
        ((row.key, row.value, row.unit, row.source, row.meaning) for row in rows),
    )
    for row in rows:
        if row.note:
            print_line(f"note: {row.key}: {row.note}")
