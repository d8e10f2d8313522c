"""What the host tier's arena holds, slot by slot, in a file beside it: how its blocks are found again after the process ended.

    header (4096 bytes)     whose blocks these are and which arena they lie in
    one record a slot       key, parent, order, and a word that makes the record valid

A process may be killed between any two instructions, and what it wrote to memory until then stays. So a record's last word is
taken away before its slot may be written anew, and set behind everything else. The word is computed from the record, its slot and
a number drawn for the file: a record that was damaged, or is another slot's, is none. The order is not part of it, so that it can
be changed under way; what it is worth is only which block is evicted first.
"""

import struct
import threading
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from tiercel import _native
from tiercel.errors import FormatError
from tiercel.tiers.base import BlockLabels, BlockStatus, Slots, Statuses
from tiercel.tiers.labels import RecoveredBlocks, parents_of

FORMAT_VERSION = 1
HEADER_BYTES = 4096

_MAGIC = b"TCARENA\0"
_HEADER = struct.Struct("<8sIIQ")  # magic, version, length of what follows, its checksum
_KEY, _PARENT, _ORDER, _VALID = slice(0, 2), slice(2, 4), 4, 5
_WORD = np.dtype("<u8")
_RECORD_WORDS = 6
_RECORD_BYTES = _RECORD_WORDS * _WORD.itemsize

Words = NDArray[np.uint64]


class ArenaHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose blocks an arena holds, and where.

    Attributes:
        fingerprint: in hexadecimal; what must be equal for its blocks to be exchangeable.
        stride_bytes: from a slot to the next.
        arena_inode: number of the arena's file, so that the records of one arena are never taken for another's.
        seed: drawn for this file.
        model_id: for whoever looks at the directory.
    """

    fingerprint: str
    block_bytes: int
    stride_bytes: int
    num_slots: int
    arena_inode: int
    seed: int
    model_id: str = ""


class SlotRecords(Protocol):
    """What the host tier tells about its slots, so that they may be found again."""

    def void(self, slots: Slots) -> None:
        """These hold nothing any more. Returns before anybody writes to them."""

    def record(self, slots: Slots, labels: BlockLabels, statuses: Statuses) -> None:
        """Those that are `OK` hold whole blocks of these names."""

    def keep_order(self, slots: Slots) -> None:
        """These were used in this order, the last one last."""

    def close(self) -> None: ...


class NoRecords:
    """Records of an arena that ends with its process."""

    def void(self, slots: Slots) -> None:
        """Do nothing."""

    def record(self, slots: Slots, labels: BlockLabels, statuses: Statuses) -> None:
        """Do nothing."""

    def keep_order(self, slots: Slots) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class ArenaRecords:
    """Records in a file in memory. Calls that concern different slots may run at once."""

    def __init__(self, path: Path) -> None:
        """Map a file that `write_records` made, for writing."""
        mapped = np.asarray(np.memmap(path, dtype=np.uint8, mode="r+"))
        header = parse_header(mapped[:HEADER_BYTES].tobytes())
        self._table: Words = mapped[HEADER_BYTES:].view(_WORD).reshape(-1, _RECORD_WORDS)
        self._seed = header.seed
        self._lock = threading.Lock()
        self._next_order = int(self._table[:, _ORDER].max(initial=0)) + 1

    def void(self, slots: Slots) -> None:
        """As `SlotRecords.void`."""
        self._table[slots, _VALID] = 0

    def record(self, slots: Slots, labels: BlockLabels, statuses: Statuses) -> None:
        """As `SlotRecords.record`. The records of these slots are void until now."""
        keys, parents = labels.names, parents_of(labels)
        if statuses.any():  # OK is 0
            good = statuses == BlockStatus.OK
            slots, keys, parents = slots[good], keys[good], parents[good]
        with self._lock:
            first, self._next_order = self._next_order, self._next_order + len(slots)
        records = _records(keys, parents, first)
        valid = _valid_words(slots, records, self._seed)
        self._table[slots] = records
        self._table[slots, _VALID] = valid

    def keep_order(self, slots: Slots) -> None:
        """As `SlotRecords.keep_order`."""
        with self._lock:
            first, self._next_order = self._next_order, self._next_order + len(slots)
        self._table[slots, _ORDER] = np.arange(first, first + len(slots), dtype=np.uint64)

    def close(self) -> None:
        """Unmap. Idempotent."""
        self._table = np.empty((0, _RECORD_WORDS), _WORD)


def parse_header(data: bytes) -> ArenaHeader:
    """Read the header that a file of records begins with. Raises FormatError: it is none, or of another version."""
    if len(data) < HEADER_BYTES:
        raise FormatError(f"its records end after {len(data)} bytes")
    magic, version, length, checksum = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise FormatError("its records are of another kind")
    if version != FORMAT_VERSION:
        raise FormatError(
            f"its records are of format version {version}, this version of Tiercel reads {FORMAT_VERSION}"
        )
    content = data[_HEADER.size : _HEADER.size + length]
    if length > HEADER_BYTES - _HEADER.size or _native.checksum(content) != checksum:
        raise FormatError("the header of its records is damaged")
    try:
        return msgspec.json.decode(content, type=ArenaHeader)
    except msgspec.MsgspecError as error:
        raise FormatError(f"the header of its records cannot be understood ({error})") from error


def read_records(data: bytes, header: ArenaHeader, *, num_slots: int) -> tuple[RecoveredBlocks, int]:
    """Return the blocks that are recorded in the first slots, least recently written first, and how many records were damaged.

    Args:
        data: the whole file.
        header: its header.
        num_slots: slots that there are now; what lay in others is left out.
    """
    num_records = min(header.num_slots, (len(data) - HEADER_BYTES) // _RECORD_BYTES)
    table = np.frombuffer(data, _WORD, num_records * _RECORD_WORDS, HEADER_BYTES).reshape(-1, _RECORD_WORDS)
    slots = np.arange(num_records, dtype=np.uint32)
    is_valid = table[:, _VALID] == _valid_words(slots, table, header.seed)
    num_damaged = int(np.count_nonzero(table[:, _VALID])) - int(np.count_nonzero(is_valid))
    found = np.flatnonzero(is_valid[:num_slots])
    found = found[np.argsort(table[found, _ORDER], kind="stable")]
    keys, parents = _bytes_of(table[found, _KEY]), _bytes_of(table[found, _PARENT])
    return RecoveredBlocks(parents=parents, keys=keys, slots=slots[found]), num_damaged


def write_records(path: Path, header: ArenaHeader, blocks: RecoveredBlocks | None = None) -> None:
    """Write a file of records under its name, whole or not at all.

    Args:
        path: its name; what had it is replaced.
        header: what it begins with; the model's name is cut to what there is room for.
        blocks: what the slots hold, least recently used first; none by default.
    """
    table = np.zeros((header.num_slots, _RECORD_WORDS), _WORD)
    if blocks is not None:
        records = _records(blocks.keys, blocks.parents, 0)
        records[:, _VALID] = _valid_words(blocks.slots, records, header.seed)
        table[blocks.slots] = records
    content = msgspec.json.encode(header)
    head = _HEADER.pack(_MAGIC, FORMAT_VERSION, len(content), _native.checksum(content)) + content
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(head.ljust(HEADER_BYTES, b"\0"))
        file.write(table.tobytes())
    temporary.rename(path)


def _records(keys: NDArray[np.uint8], parents: NDArray[np.uint8], first_order: int) -> Words:
    """Return blocks' records, void."""
    records = np.zeros((len(keys), _RECORD_WORDS), _WORD)
    records[:, _KEY] = np.ascontiguousarray(keys).view(_WORD)
    records[:, _PARENT] = np.ascontiguousarray(parents).view(_WORD)
    records[:, _ORDER] = np.arange(first_order, first_order + len(keys), dtype=np.uint64)
    return records


def _bytes_of(words: Words) -> NDArray[np.uint8]:
    return np.ascontiguousarray(words).view(np.uint8)


def _valid_words(slots: Slots, records: Words, seed: int) -> Words:
    """Return what makes each slot's record valid; never 0."""
    multiplier, shift = np.uint64(0xD6E8FEB86659FD93), np.uint64(32)
    words: Words = (slots.astype(np.uint64) + np.uint64(1)) * multiplier ^ np.uint64(seed)
    for column in range(_ORDER):
        words = (words ^ records[:, column]) * multiplier
        words ^= words >> shift
    return words | np.uint64(1)
