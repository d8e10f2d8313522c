"""What a node and its clients say to each other: the messages, their bounds, and their bytes.

One datagram is one message: a header of four bytes, then a body. Most bodies are MessagePack of one struct (`Kind.MESSAGE`,
structs in `joining`, `events` and `calls`, bytes in `codec`); those of the hot path are plain integers and keys, read and written
by native code on both sides (`native/core/node`). Bytes of blocks never travel here. Whatever does not fit a bound, a type or
the version raises `MessageError`, and changes nothing.

    client, event connection                       node
     │ ── Hello: who I am ───────────────────────► │
     │ ◄───────────────── Welcome: the memory + fds│    or Refused
     │ ── Ready: mapped ─────────────────────────► │    or Refused
     │ ◄─────────────── Copy: blocks <-> memory ───│
     │ ◄─────────────── CancelCopy ────────────────│
     │ ── Done: that copy, and what failed ──────► │    one for each Copy, cancelled or not
     │ ◄─────────────── SourceFree, Ended: a ticket│
     │ ── Cancel: a ticket ──────────────────────► │
     │ ── Observe, Recompute, NoteText ──────────► │
     │ ── Left: nor of an earlier connection ────► │
     │ ── Bye: nothing of mine is under way ─────► │

    client, each call connection
     │ ── Join ──────────────────────────────────► │
     │ ◄──────────────────────────────── Joined ───│    or Refused
     │ ── one call ──────────────────────────────► │
     │ ◄───────────────────────── its one answer ──│    or Failed
"""

from enum import IntEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

PROTOCOL_VERSION: Final = 2
BLOCKS_MAX: Final = 2048
"""Blocks of one `Copy`."""
SEQUENCE_BLOCKS_MAX: Final = 1 << 16
"""Blocks of one sequence, and so of one ticket."""
MESSAGE_BYTES_MAX: Final = 128 << 10
REGIONS_MAX: Final = 8
LOADS_MAX: Final = 256
"""Loads of one `Launch`."""
TOKEN_BYTES: Final = 16

TEXT_MAX: Final = 2000
NAME_MAX: Final = 256


class Kind(IntEnum):
    """The last byte of a header."""

    MESSAGE = 0x01
    KEYS = 0x10
    LOOKUP = 0x11
    RELEASE = 0x12
    OPEN = 0x13
    FORGET = 0x14
    READ = 0x15
    FOUND = 0x91
    HELD = 0x92


MAGIC: Final = b"TN"
HEADER: Final = MAGIC + bytes([PROTOCOL_VERSION, Kind.MESSAGE])
HEADER_BYTES: Final = len(HEADER)

Count = Annotated[int, Meta(ge=0, lt=2**32)]
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Seconds = Annotated[float, Meta(ge=0.0, le=86400.0)]
Name = Annotated[str, Meta(max_length=NAME_MAX)]
Text = Annotated[str, Meta(max_length=TEXT_MAX)]
Key = Annotated[bytes, Meta(min_length=16, max_length=16)]
Token = Annotated[bytes, Meta(min_length=TOKEN_BYTES, max_length=TOKEN_BYTES)]
Pages = Annotated[bytes, Meta(max_length=4 * BLOCKS_MAX)]
"""uint32 each, little endian."""
Blocks = Annotated[int, Meta(ge=0, le=SEQUENCE_BLOCKS_MAX)]
Statuses = Annotated[bytes, Meta(max_length=SEQUENCE_BLOCKS_MAX)]
"""A `BlockStatus` each."""
Priorities = Annotated[int, Meta(ge=0, le=100)] | Annotated[bytes, Meta(max_length=SEQUENCE_BLOCKS_MAX)]
"""0 to 100: of all blocks, or a byte each."""


class MessageError(Exception):
    """Bytes are no message of this version. Never leaves `node`."""


class Message(msgspec.Struct, frozen=True, tag=True, array_like=True, forbid_unknown_fields=True):
    """Base of all messages."""


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of what messages are made of."""
