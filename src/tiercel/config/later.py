"""Keys that exist but that this version cannot honour, and what is said about each.

They are taken and reported, the remote tier loudly. A layout of blocks that this version cannot keep is refused:
silence would be a promise.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tiercel.config.messages import problem
from tiercel.config.notes import Note, NoteKind
from tiercel.config.settings import FLAG_WORDS


@dataclass(frozen=True, kw_only=True)
class LaterKey:
    """One key of a later version.

    Attributes:
        key: the name.
        types: types that its value may have; null is always taken.
        default_text: what its absence means.
        meaning: what it is for.
        why: why it has no effect.
        accepted: the only values taken, None for any of `types`.
        loud: the value that asks for something that is then not done; None if there is none.
        remedy: what to do when the value is refused.
    """

    key: str
    types: tuple[type, ...]
    default_text: str
    meaning: str
    why: str
    accepted: tuple[object, ...] | None = None
    loud: object = None
    remedy: str = "remove the key"

    def check(self, value: object, origin: str) -> Note:
        """Return the note for a value that is taken.

        Raises:
            ConfigError: the value has the wrong type, or is one that this version cannot honour.
        """
        if bool in self.types and type(value) is int and value in (0, 1):  # flags of other caches' files
            value = bool(value)
        if value is not None and type(value) not in self.types:
            names = " or ".join(kind.__name__ for kind in self.types)
            raise problem(self.key, value, f"must be {names} or null", "correct or remove it", origin)
        if value is not None and self.accepted is not None and value not in self.accepted:
            allowed = " or ".join(str(entry) for entry in self.accepted)
            raise problem(self.key, value, f"this version can only do {allowed}", self.remedy, origin)
        loud = self.loud is not None and value == self.loud
        return Note(kind=NoteKind.IGNORED, key=self.key, text=self.why, loud=loud)

    def parse(self, text: str) -> object:
        """Return what an environment variable's text stands for."""
        word = text.strip().lower()
        if bool in self.types and word in FLAG_WORDS:
            return FLAG_WORDS[word]
        if int in self.types and word.isdecimal() and word.isascii() and len(word) < 20:
            return int(word)
        return None if word in ("", "none", "null") else text.strip()


_REMOTE = "this version has no remote tier; blocks are kept in host memory and on disk only"
_BLOCKS = "a slot holds one block whole, which is the only layout"


def _remote(key: str, types: tuple[type, ...], meaning: str) -> LaterKey:
    return LaterKey(key=key, types=types, default_text="null", meaning=meaning, why=_REMOTE)


def _layout(key: str, why: str, meaning: str) -> LaterKey:
    return LaterKey(
        key=key, types=(str,), default_text="BLOCKWISE", meaning=meaning, why=why, accepted=("BLOCKWISE", "BLOCKFIRST")
    )


LATER_KEYS: Mapping[str, LaterKey] = {
    later.key: later
    for later in (
        LaterKey(
            key="enable_remote",
            types=(bool,),
            default_text="false",
            meaning="Keep blocks in remote storage as well.",
            why=_REMOTE,
            loud=True,
        ),
        _remote("num_remote_blocks", (int, str), "Capacity of the remote tier in blocks; null sets no limit."),
        _remote("remote_cache_path", (str, list), "Where the remote tier keeps its blocks."),
        _remote("remote_config_custom", (dict,), "What the remote tier's storage needs to know."),
        LaterKey(
            key="enable_gds",
            types=(bool,),
            default_text="false",
            meaning="Move blocks between disk and GPU with GPUDirect Storage.",
            why="this version does without GPUDirect Storage: blocks go between disk and GPU through pinned buffers",
            loud=True,
        ),
        _layout("cpu_kv_layout_type", _BLOCKS, "How blocks lie in host memory."),
        _layout("ssd_kv_layout_type", _BLOCKS, "How blocks lie on disk."),
        _layout("remote_kv_layout_type", _REMOTE, "How blocks lie in remote storage."),
        LaterKey(
            key="gpu_kv_layout_type",
            types=(str,),
            default_text="LAYERWISE",
            meaning="How the engine's memory lies.",
            why="the strides of the engine's memory say how it lies",
            accepted=("LAYERWISE", "LAYERFIRST"),
            remedy="remove the key and describe the engine's memory by its axes",
        ),
    )
}
"""Every such key, by name."""
