"""Keys that exist but that this version cannot honour, and what is said about each.

A key that only tunes a path which this version does not have is taken and reported. One that would change what is
stored or where is refused, because silence would be a promise.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tiercel.config.messages import problem
from tiercel.config.settings import FLAG_WORDS


@dataclass(frozen=True, kw_only=True)
class LaterKey:
    """One key of a later version.

    Attributes:
        key: the name.
        types: types that its value may have; null is always taken.
        note: what is said when the value is taken.
        accepted: the only values taken, None for any of `types`.
        remedy: what to do when the value is refused.
    """

    key: str
    types: tuple[type, ...]
    note: str
    accepted: tuple[object, ...] | None = None
    remedy: str = "remove the key"

    def check(self, value: object, origin: str) -> str:
        """Return the note for a value that is taken.

        Raises:
            ConfigError: the value has the wrong type, or is one that this version cannot honour.
        """
        if value is None:
            return self.note
        if type(value) not in self.types:
            names = " or ".join(kind.__name__ for kind in self.types)
            raise problem(self.key, value, f"must be {names} or null", "correct or remove it", origin)
        if self.accepted is not None and value not in self.accepted:
            allowed = " or ".join(str(entry) for entry in self.accepted)
            raise problem(self.key, value, f"this version can only do {allowed}", self.remedy, origin)
        return self.note

    def parse(self, text: str) -> object:
        """Return what an environment variable's text stands for."""
        word = text.strip().lower()
        if bool in self.types and word in FLAG_WORDS:
            return FLAG_WORDS[word]
        if int in self.types and word.isdecimal():
            return int(word)
        return None if word in ("", "none", "null") else text.strip()


_GPU = "no effect in this version: it tunes transfers to a GPU"
_REMOTE = "no effect in this version: there is no remote tier"
_BLOCKS = "the only layout: a slot holds one block whole"

LATER_KEYS: Mapping[str, LaterKey] = {
    later.key: later
    for later in (
        LaterKey(
            key="enable_remote",
            types=(bool,),
            note=_REMOTE,
            accepted=(False,),
            remedy="set it to false; enable_ssd keeps more than memory holds",
        ),
        LaterKey(key="num_remote_blocks", types=(int, str), note=_REMOTE),
        LaterKey(key="remote_cache_path", types=(str, list), note=_REMOTE),
        LaterKey(key="remote_config_custom", types=(dict,), note=_REMOTE),
        LaterKey(key="enable_gds", types=(bool,), note=_GPU),
        LaterKey(key="transfer_sms_h2d", types=(int,), note=_GPU),
        LaterKey(key="transfer_sms_d2h", types=(int,), note=_GPU),
        LaterKey(key="use_ce_transfer_h2d", types=(bool,), note=_GPU),
        LaterKey(key="use_ce_transfer_d2h", types=(bool,), note=_GPU),
        LaterKey(key="cpu_kv_layout_type", types=(str,), note=_BLOCKS, accepted=("BLOCKWISE",)),
        LaterKey(key="ssd_kv_layout_type", types=(str,), note=_BLOCKS, accepted=("BLOCKWISE",)),
        LaterKey(key="remote_kv_layout_type", types=(str,), note=_REMOTE, accepted=("BLOCKWISE",)),
        LaterKey(
            key="gpu_kv_layout_type",
            types=(str,),
            note="no effect: the strides of the engine's memory say how it lies",
            accepted=("LAYERWISE",),
            remedy="remove the key and describe the engine's memory by its axes",
        ),
        LaterKey(
            key="server_recv_port",
            types=(str,),
            note="no effect in this version: the cache runs in the engine's process",
        ),
    )
}
"""Every such key, by name."""
