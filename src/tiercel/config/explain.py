"""What settings amount to, row by row, for `tiercel config explain FILE`."""

from dataclasses import dataclass

from tiercel.config.cache import SETTINGS
from tiercel.config.load import LoadedConfig
from tiercel.config.model import ModelConfig
from tiercel.config.resolved import ResolvedConfig, resolve_sizes
from tiercel.config.sizes import format_bytes
from tiercel.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ConfigRow:
    """One line of the explanation.

    Attributes:
        key: the setting, or a name with blanks for a derived number.
        value: as text.
        source: "default", "file PATH", "environment NAME", "keyword" or "derived".
        unit: what the value counts, "" where it counts nothing.
        meaning: one line.
        note: what to know of this value here, "" for nothing.
    """

    key: str
    value: str
    source: str
    unit: str
    meaning: str
    note: str = ""


def explain(loaded: LoadedConfig, model: ModelConfig | None = None) -> list[ConfigRow]:
    """Return one row per setting, one per note on a key that has none, and with a model the derived numbers.

    Args:
        loaded: the settings.
        model: the model to size for; by default the one that the settings' file describes, if any.
    """
    notes = dict(note.split(": ", 1) for note in loaded.notes)
    rows = [
        ConfigRow(
            key=key,
            value=_text(getattr(loaded.config, key)),
            source=loaded.sources[key],
            unit=described.unit,
            meaning=described.meaning,
            note=notes.pop(key, ""),
        )
        for key, described in SETTINGS.items()
    ]
    rows += [
        ConfigRow(
            key=key, value="", source="", unit="", meaning="A key that this version takes without effect.", note=note
        )
        for key, note in notes.items()
    ]
    sized_for = model or loaded.model
    return rows if sized_for is None else rows + _derived(loaded, sized_for)


def _derived(loaded: LoadedConfig, model: ModelConfig) -> list[ConfigRow]:
    try:
        resolved = resolve_sizes(loaded.config, model)
    except ConfigError as error:
        return [_row("block bytes", 0, "bytes", "Bytes of KV in one block.", note=str(error))]
    hybrid = ""
    if model.is_hybrid:
        kinds = ", ".join(group.name for group in model.layer_groups)
        hybrid = f"upper bound: the layers are of several kinds ({kinds}), which this version refuses to store"
    padding = resolved.slot_bytes - resolved.block_bytes
    slot_note = f"{padding} bytes of padding for direct I/O" if padding else ""
    rows = [
        _row(
            "token bytes", model.token_size_in_bytes, "bytes", "KV of one token over all layers and ranks.", note=hybrid
        ),
        _row("block bytes", resolved.block_bytes, "bytes", "KV of one block.", note=_chunk_note(resolved)),
        _row("slot bytes", resolved.slot_bytes, "bytes", "What one block takes in a tier.", note=slot_note),
    ]
    for place, num_blocks, num_bytes in (
        ("host", resolved.num_cpu_blocks, resolved.host_bytes),
        ("disk", resolved.num_ssd_blocks, resolved.disk_bytes),
    ):
        if num_blocks:
            tokens = num_blocks * loaded.config.tokens_per_block
            rows.append(_row(f"{place} blocks", num_blocks, "blocks", f"Slots of the {place} tier."))
            rows.append(
                _row(
                    f"{place} bytes", num_bytes, "bytes", f"What the {place} tier takes.", note=format_bytes(num_bytes)
                )
            )
            rows.append(_row(f"{place} tokens", tokens, "tokens", f"Tokens that the {place} tier holds."))
    return rows


def _chunk_note(resolved: ResolvedConfig) -> str:
    if resolved.block_bytes <= resolved.transfer_chunk_bytes:
        return ""
    return "larger than transfer_chunk_bytes: every move goes block by block"


def _row(key: str, value: int, unit: str, meaning: str, *, note: str = "") -> ConfigRow:
    return ConfigRow(key=key, value=str(value), source="derived", unit=unit, meaning=meaning, note=note)


def _text(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return ";".join(value) if isinstance(value, tuple) else str(value)
