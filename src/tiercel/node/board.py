"""The board: one page that a node writes and its clients read, with what a choice between loading and computing goes by.

    0   uint64  sequence number: odd while the page is being written, another one after each write
    8   uint32  CRC-32 of what follows, so that nothing is read that was half written, however the processor orders memory
    12  uint32  version of this layout
    16  uint64  prefills observed; float64 x 3  fixed_s, token_s, token_pair_s
    48  for each of 4 tiers, by TierName:  float64 latency_s, float64 bytes_per_s (0: there is no such tier), uint64 bytes queued

Little endian. Clients map the page read-only, and cannot otherwise: the file is sealed.
"""

import fcntl
import mmap
import os
import struct
import zlib
from typing import Final, NamedTuple

from tiercel.costs import PrefillCurve, TransferCost
from tiercel.tiers.base import TierName

BOARD_BYTES: Final = 4096
_VERSION = 1
_TIERS = tuple(TierName)
_HEAD = struct.Struct("<QII")
_BODY = struct.Struct("<Qddd" + "ddQ" * len(_TIERS))
_SEQUENCE = struct.Struct("<Q")
_SEAL_FUTURE_WRITE = 0x10  # Linux 5.1; `fcntl` has no name for it before Python 3.13
_TRIES = 64


class BoardFacts(NamedTuple):
    """What the board says.

    Attributes:
        tiers: of each tier that there is, its cost for an empty queue, and the bytes that wait.
    """

    num_prefills: int
    prefill: PrefillCurve
    tiers: dict[TierName, tuple[TransferCost, int]]


_NOTHING = BoardFacts(0, PrefillCurve(), {})


class BoardWriter:
    """The node's side. Not thread-safe."""

    def __init__(self) -> None:
        """Make the page. Raises OSError."""
        self.fd = os.memfd_create("tiercel-board", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, BOARD_BYTES)
            self._page = mmap.mmap(self.fd, BOARD_BYTES)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)
        except BaseException:
            os.close(self.fd)
            raise
        self._sequence = 0
        self._body = b""
        self.write(_NOTHING)

    def write(self, facts: BoardFacts) -> None:
        """Let the board say this. Microseconds; nothing is written that stands there already."""
        row: list[float] = []
        for tier in _TIERS:
            cost, queued = facts.tiers.get(tier, (TransferCost(0.0, 0.0), 0))
            row += (cost.latency_s, cost.bytes_per_s, queued)
        curve = facts.prefill
        body = _BODY.pack(facts.num_prefills, curve.fixed_s, curve.token_s, curve.token_pair_s, *row)
        if body == self._body:
            return
        self._body = body
        _SEQUENCE.pack_into(self._page, 0, self._sequence + 1)
        self._page[_HEAD.size : _HEAD.size + len(body)] = body
        self._sequence += 2
        _HEAD.pack_into(self._page, 0, self._sequence, zlib.crc32(body), _VERSION)

    def close(self) -> None:
        """Let go of the page; clients keep theirs. Idempotent."""
        if not self._page.closed:
            self._page.close()
            os.close(self.fd)


class BoardReader:
    """A client's side. Thread-safe: what is kept is replaced as a whole."""

    def __init__(self, fd: int) -> None:
        """Map the page of a node's file, which the caller may close. Raises OSError, ValueError if it is too short."""
        self._page = mmap.mmap(fd, BOARD_BYTES, prot=mmap.PROT_READ)
        self._read = (0, _NOTHING)

    def facts(self) -> BoardFacts:
        """What the board says now; what it said last, if it cannot be read just now. Costs nothing while it stands still."""
        known, facts = self._read
        for _ in range(_TRIES):
            sequence, checksum, version = _HEAD.unpack_from(self._page, 0)
            if sequence == known or version != _VERSION:
                return facts
            body = self._page[_HEAD.size : _HEAD.size + _BODY.size]
            if sequence % 2 == 0 and zlib.crc32(body) == checksum:
                facts = _parsed(body)
                self._read = (sequence, facts)
                return facts
        return facts

    def close(self) -> None:
        """Unmap. Idempotent. Nobody may be reading."""
        self._page.close()


def _parsed(body: bytes) -> BoardFacts:
    num_prefills, fixed_s, token_s, token_pair_s, *rows = _BODY.unpack(body)
    tiers: dict[TierName, tuple[TransferCost, int]] = {}
    for number, tier in enumerate(_TIERS):
        latency_s, bytes_per_s, queued = rows[3 * number : 3 * number + 3]
        if bytes_per_s > 0:
            tiers[tier] = (TransferCost(latency_s, bytes_per_s), queued)
    return BoardFacts(num_prefills, PrefillCurve(fixed_s, token_s, token_pair_s), tiers)
