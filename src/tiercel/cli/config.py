"""`tiercel config`: what settings amount to, key by key, and the schema of settings files."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tiercel.cli.render import print_json, print_line, print_table


def explain(
    file: Path | None = None, /, *, model: Path | None = None, json: Annotated[bool, Parameter(negative="")] = False
) -> None:
    """Show every setting with its value and where it comes from, what it amounts to, and what was not taken as given.

    Args:
        file: a settings file, YAML, JSON or TOML; without one, the environment alone.
        model: a model's config.json, or its folder, to show what the settings amount to in bytes for it.
        json: print JSON: settings, derived numbers and notes.
    """
    from tiercel.config import NOTE_HEADINGS, ModelConfig, read_config
    from tiercel.config import explain as explain_config

    explained = explain_config(read_config(file), None if model is None else ModelConfig.from_model(model))
    if json:
        print_json(explained)
        return
    rows = [*explained.settings, *explained.derived]
    print_table(
        "",
        ("key", "value", "unit", "from", "meaning"),
        ((row.key, row.value, row.unit, row.source, row.meaning) for row in rows),
    )
    for row in rows:
        if row.note:
            print_line(f"{row.key}: {row.note}")
    for kind, heading in NOTE_HEADINGS.items():
        notes = [note for note in explained.notes if note.kind == kind]
        if notes:
            print_line(f"\n{heading} ({kind}):")
        for note in notes:
            print_line(f"  {note.key}: {note.text}")


def schema() -> None:
    """Print the JSON Schema of settings files, for editors and checks."""
    from tiercel.config.schema import settings_schema

    print_json(settings_schema())
