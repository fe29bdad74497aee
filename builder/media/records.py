"""Directory records and what Rock Ridge adds to them, as bytes that change only where they must.

Sources: ECMA-119 (ISO 9660), 9.1; SUSP 1.12, 5; RRIP 1.12, 4.1.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass

from builder.errors import RemasterError
from builder.media.window import SECTOR, plain

DIRECTORY = 0x02
MULTI_EXTENT = 0x80
DOT, DOT_DOT = b"\0", b"\1"
HEADER = 33
"""Bytes of a directory record before its identifier."""
LONGEST = 254
"""A record's length is one byte and even."""
KEPT = frozenset({b"PX", b"TF", b"RR"})
"""The Rock Ridge entries a new record takes from its sibling: owner and mode, times, and the 1991 index."""


def both32(value: int) -> bytes:
    """Return a 32-bit number in both byte orders (ECMA-119, 7.3.3)."""
    return struct.pack("<I", value) + struct.pack(">I", value)


def read_both32(data: bytes, offset: int, what: str) -> int:
    """Return a 32-bit number stored in both byte orders; raise RemasterError if the two differ."""
    (little,) = struct.unpack_from("<I", data, offset)
    (big,) = struct.unpack_from(">I", data, offset + 4)
    if little != big:
        raise RemasterError(f"The ISO contradicts itself: {what} is {little} in one byte order and {big} in the other.")
    return int(little)


@dataclass(frozen=True)
class Record:
    """One directory record; ``raw`` is all of it."""

    raw: bytes

    @property
    def extent(self) -> int:
        """The first sector of the contents, counted from the start of the volume."""
        return int.from_bytes(self.raw[2:6], "little")

    @property
    def length(self) -> int:
        """The length of the contents in bytes."""
        return int.from_bytes(self.raw[10:14], "little")

    @property
    def flags(self) -> int:
        """The file flags (ECMA-119, 9.1.6)."""
        return self.raw[25]

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory, ``.`` and ``..`` included."""
        return bool(self.raw[25] & DIRECTORY)

    @property
    def identifier(self) -> bytes:
        """The name as ISO 9660 or Joliet has it, version and all."""
        return self.raw[HEADER : HEADER + self.raw[32]]

    @property
    def is_dot(self) -> bool:
        """Whether it is ``.`` or ``..``."""
        return self.is_directory and self.identifier in {DOT, DOT_DOT}

    @functools.cached_property
    def system_use(self) -> tuple[bytes, ...]:
        """The Rock Ridge entries within the record, each with its four-byte head."""
        data = self.raw[HEADER + self.raw[32] + (self.raw[32] + 1) % 2 :]
        entries = []
        while len(data) >= 4 and 4 <= data[2] <= len(data):  # noqa: PLR2004 - a head has four bytes
            entries.append(data[: data[2]])
            data = data[data[2] :]
        return tuple(entries)

    def has(self, signature: bytes) -> bool:
        """Whether there is a Rock Ridge entry of this kind within the record."""
        return any(entry[:2] == signature for entry in self.system_use)

    def rock_ridge_name(self) -> str | None:
        """Return the POSIX name, None without one (``.`` and ``..``, or no Rock Ridge).

        A very long name goes on in another sector; what is returned for it ends in NUL and so equals no name.
        """
        names = [entry for entry in self.system_use if entry[:2] == b"NM"]
        if not names:
            return None
        text = b"".join(entry[5:] for entry in names).decode("utf-8", "surrogateescape")
        return text + "\0" * (names[-1][4] & 1)

    def joliet_name(self) -> str:
        """Return the Joliet name without a version."""
        return self.identifier.decode("utf-16-be", "replace").split(";")[0]

    def moved(self, extent: int, length: int) -> Record:
        """Return the same record for contents at another place: 16 bytes change."""
        return Record(self.raw[:2] + both32(extent) + both32(length) + self.raw[18:])

    def renamed(self, identifier: bytes, name: str | None) -> Record:
        """Return a record with this one's date, mode, owner and times, and another name.

        ``identifier`` is the ISO 9660 or Joliet name; ``name`` is the Rock Ridge name, None for none.
        Raises RemasterError if the record would be too long.
        """
        head = self.raw[:32] + bytes([len(identifier)]) + identifier
        head += b"\0" * (len(head) % 2)
        tail = b"".join(entry for entry in self.system_use if entry[:2] in KEPT)
        if name is not None:
            text = name.encode()
            tail += b"NM" + bytes([5 + len(text), 1, 0]) + text
        raw = head + tail + b"\0" * (len(tail) % 2)
        if len(raw) > LONGEST:
            raise RemasterError(f"The name `{name}` is too long to be added to an ISO.", hint="Use a shorter name.")
        return Record(bytes([len(raw), 0]) + raw[2:])


def split_records(data: bytes, where: str) -> tuple[Record, ...]:
    """Return the records in a directory's contents; raise RemasterError if they make no sense."""
    where = plain(where)
    records = []
    offset = 0
    while offset < len(data):
        length = data[offset]
        if length == 0:
            offset = (offset // SECTOR + 1) * SECTOR
            continue
        raw = data[offset : offset + length]
        if length <= HEADER or len(raw) < length or HEADER + raw[32] > length or offset % SECTOR + length > SECTOR:
            raise RemasterError(
                f"The ISO's directory `{where}` is damaged: the record at byte {offset} has an impossible "
                f"length ({length})."
            )
        read_both32(raw, 2, f"the place of an entry of `{where}`")
        read_both32(raw, 10, f"the length of an entry of `{where}`")
        if raw[25] & ~(DIRECTORY | MULTI_EXTENT) or raw[1] or raw[26] or raw[27]:
            raise RemasterError(
                f"The ISO's directory `{where}` has an entry of an unexpected kind: flags {raw[25]:#04x}, {raw[1]} "
                f"sectors of attributes, interleaved {raw[26]}:{raw[27]}; plain files and directories were expected."
            )
        records.append(Record(raw))
        offset += length
    if len(records) < 2 or records[0].identifier != DOT or records[1].identifier != DOT_DOT:  # noqa: PLR2004 - . and ..
        raise RemasterError(
            f"The ISO's directory `{where}` is damaged: it does not begin with `.` and `..`, "
            f"but with {', '.join(repr(record.identifier) for record in records[:2]) or 'nothing'}."
        )
    return tuple(records)


def join_records(records: tuple[Record, ...]) -> bytes:
    """Return a directory's contents in whole sectors; no record crosses a sector's end (ECMA-119, 6.8.1.1)."""
    data = bytearray()
    for record in records:
        room = SECTOR - len(data) % SECTOR
        if len(record.raw) > room:
            data.extend(bytes(room))
        data.extend(record.raw)
    return bytes(data) + bytes(-len(data) % SECTOR)
