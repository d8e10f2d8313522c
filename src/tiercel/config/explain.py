"""What settings amount to, for `tiercel config explain`: values, where they come from, numbers, and what to know."""

from collections.abc import Sequence
from dataclasses import dataclass

from tiercel.config.cache import SETTINGS
from tiercel.config.load import LoadedConfig
from tiercel.config.model import ModelConfig
from tiercel.config.notes import Note, NoteKind
from tiercel.config.resolved import ResolvedConfig, Room, resolve_sizes, share_bytes
from tiercel.config.resources import probe_room
from tiercel.config.sizes import format_bytes
from tiercel.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ConfigRow:
    """One line of the explanation.

    Attributes:
        key: the setting, or a name with blanks for a derived number.
        value: as text.
        source: where it comes from, as `LoadedConfig.sources` tells it, or "derived".
        unit: what the value counts, "" where it counts nothing.
        meaning: one line.
        note: what to know of this number, "" for nothing.
    """

    key: str
    value: str
    source: str
    unit: str
    meaning: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Settings explained.

    Attributes:
        settings: one row per setting, in the order of the reference page.
        derived: what they amount to: shares in bytes on this machine, and with a model blocks and bytes.
        notes: what was impossible, ignored, contradictory, different elsewhere, unlikely or unknown.
    """

    settings: Sequence[ConfigRow]
    derived: Sequence[ConfigRow]
    notes: Sequence[Note]


def explain(loaded: LoadedConfig, model: ModelConfig | None = None, room: Room | None = None) -> Explanation:
    """Explain settings, also such as no cache could be opened with.

    Args:
        loaded: the settings.
        model: the model to size for; by default the one that the settings' file describes, if any.
        room: what shares such as "80%" are taken of; by default this machine is asked, if there are any.
    """
    settings = [
        ConfigRow(
            key=key,
            value=_text(getattr(loaded.config, key)),
            source=loaded.sources[key],
            unit=described.unit,
            meaning=described.meaning,
        )
        for key, described in SETTINGS.items()
    ]
    sized_for = model or loaded.model
    derived: list[ConfigRow] = []
    notes = list(loaded.notes)
    try:
        if loaded.config.shares:
            room = room or probe_room(loaded.config)
            derived += _shares(loaded, room)
        if sized_for is not None:
            derived += _sizes(loaded, sized_for, room)
    except ConfigError as error:
        notes.insert(0, Note(kind=NoteKind.IMPOSSIBLE, key="sizes", text=str(error), loud=True))
    return Explanation(settings=settings, derived=derived, notes=notes)


def _shares(loaded: LoadedConfig, room: Room) -> list[ConfigRow]:
    rows = []
    for key in loaded.config.shares:
        host = key == "num_cpu_blocks"
        given: str = getattr(loaded.config, key)
        whole = room.memory_bytes if host else sum(device.num_bytes for device in room.devices)
        place = room.memory_text if host else "free space and our own files"
        rows.append(
            _row(
                f"{'host' if host else 'disk'} share",
                share_bytes(key, given, room),
                "bytes",
                f"What {given} amounts to on this machine now.",
                note=f"{given} of {format_bytes(whole)} ({place})",
            )
        )
    return rows


def _sizes(loaded: LoadedConfig, model: ModelConfig, room: Room | None) -> list[ConfigRow]:
    resolved = resolve_sizes(loaded.config, model, room)
    hybrid = ""
    if model.is_hybrid:
        kinds = ", ".join(group.name for group in model.layer_groups)
        hybrid = f"upper bound: the layers are of several kinds ({kinds}), which this version refuses to store"
    padding = resolved.slot_bytes - resolved.block_bytes
    slot_note = f"{padding} bytes of padding for direct I/O" if padding else ""
    token_bytes = model.token_size_in_bytes
    rows = [
        _row("token bytes", token_bytes, "bytes", "KV of one token over all layers and ranks.", note=hybrid),
        _row("block bytes", resolved.block_bytes, "bytes", "KV of one block.", note=_chunk_note(resolved)),
        _row("slot bytes", resolved.slot_bytes, "bytes", "What one block takes in a tier.", note=slot_note),
    ]
    for place, num_blocks, num_bytes in (
        ("host", resolved.num_cpu_blocks, resolved.host_bytes),
        ("disk", resolved.num_ssd_blocks, resolved.disk_bytes),
    ):
        if num_blocks:
            tokens = num_blocks * loaded.config.tokens_per_block
            takes = f"What the {place} tier takes."
            rows += [
                _row(f"{place} blocks", num_blocks, "blocks", f"Slots of the {place} tier."),
                _row(f"{place} bytes", num_bytes, "bytes", takes, note=format_bytes(num_bytes)),
                _row(f"{place} tokens", tokens, "tokens", f"Tokens that the {place} tier holds."),
            ]
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
    return ";".join(str(entry) for entry in value) if isinstance(value, tuple) else str(value)
