"""What the structures of a medium may amount to, measured before any parser is let loose on them.

A parser's work grows with what an ISO claims, and pycdlib's with its square for many entries in one directory or
many levels. An ISO is therefore walked here first, by a loop that reads every directory once and keeps next to
nothing. Ubuntu's live-server media have about 1100 entries, four levels and 2 MB of structures.
Sources: ECMA-119 (ISO 9660), 8 and 9; SUSP 1.12, 5; RRIP 1.12, 4.1.5; El Torito 1.0, 2.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from builder.errors import MediumError
from builder.media.window import SECTOR, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.media.window import Read

MOST_DESCRIPTORS = 32
MOST_ENTRIES = 20_000
"""Entries of one tree, continuation areas included."""
MOST_IN_ONE = 5_000
"""Entries of one directory."""
DEEPEST = 64
LARGEST_TREE = 8 << 20
"""Bytes of all directories of one tree."""
LARGEST_PATH_TABLE = 512 << 10
MOST_CATALOG_SECTORS = 8
MOST_AREAS = 16
"""Continuation areas of one entry."""
KINDS = (0, 1, 2, 255)
UDF = (b"BEA01", b"NSR02", b"NSR03", b"TEA01", b"BOOT2", b"CDW02")
XA = b"CD-XA001"
HINT = "Check the ISO against its SHA256SUMS, or download it again."


def check_bounds(read: Read, size: int) -> None:
    """Check that an ISO of ``size`` bytes, read by ``read``, can be parsed in bounded time and memory.

    Volume descriptors, path tables, directories, Rock Ridge's continuation areas and the boot catalog have to
    lie inside, come to an end and stay within the limits above. What a volume means is not looked at.
    Raises MediumError that says what was found and what was expected.
    """
    for sector, raw in list(_descriptors(read)):
        if raw[0] == 0 and raw[7:30] == b"EL TORITO SPECIFICATION":
            _check_catalog(read, int.from_bytes(raw[71:75], "little"))
        if raw[0] in {1, 2}:
            _check_volume(sector, raw)
            _Walk(read, size, f"volume descriptor in sector {sector}").run(raw[156:190])


def _damaged(message: str) -> MediumError:
    return MediumError(f"The ISO's structures are damaged: {message}", hint=HINT)


def _descriptors(read: Read) -> Iterator[tuple[int, bytes]]:
    for sector in range(16, 16 + MOST_DESCRIPTORS):
        raw = read(sector * SECTOR, SECTOR)
        if len(raw) < SECTOR or raw[0] not in KINDS or raw[1:6] not in (b"CD001", *UDF):
            return
        if raw[1:6] != b"CD001":
            raise MediumError(
                f"The ISO has a UDF file system too (`{plain(raw[1:6].decode('ascii'))}` in sector {sector}), as "
                "Windows' media have; Ubuntu's have ISO 9660 alone.",
                hint="Use a live-server ISO, such as ubuntu-24.04.3-live-server-amd64.iso.",
            )
        yield sector, raw
    raise _damaged(f"there are more than {MOST_DESCRIPTORS} volume descriptors; four were expected.")


def _check_volume(sector: int, raw: bytes) -> None:
    (block,) = struct.unpack_from("<H", raw, 128)
    (length,) = struct.unpack_from("<I", raw, 132)
    where = f"the volume descriptor in sector {sector}"
    if block != SECTOR:
        raise _damaged(f"{where} tells of blocks of {block} bytes; {SECTOR} were expected.")
    if length > LARGEST_PATH_TABLE:
        raise _damaged(f"{where} tells of a path table of {length} bytes; at most {LARGEST_PATH_TABLE} were expected.")
    if raw[883 + 141 : 883 + 149] == XA:
        raise _damaged(f"{where} tells of a CD-ROM XA; none was expected.")


def _check_catalog(read: Read, sector: int) -> None:
    data = read(sector * SECTOR, MOST_CATALOG_SECTORS * SECTOR)
    if not any(not any(data[at : at + 32]) for at in range(64, len(data) - 31, 32)):
        raise _damaged(
            f"the boot catalog in sector {sector} does not end: it should have an empty entry within "
            f"{MOST_CATALOG_SECTORS} sectors, and {len(data) // 32} entries were found."
        )


class _Walk:
    """One tree: how much of it has been seen."""

    def __init__(self, read: Read, size: int, tree: str) -> None:
        self.read = read
        self.size = size
        self.tree = tree
        self.entries = 0
        self.bytes = 0
        self.rock_ridge = False

    def run(self, root: bytes) -> None:
        seen = {_place(root)[0]}
        queue: list[tuple[str, int, int, int]] = [("/", *_place(root), 0)]
        for where, extent, length, depth in queue:
            for name, raw in self._records(where, extent, length):
                self._count(where, 1)
                self._check_areas(where, raw)
                if not raw[25] & 2 or name in {b"\0", b"\1"}:
                    continue
                below = f"{where.rstrip('/')}/{plain(name.decode('latin-1').replace(chr(0), ''))}"
                if _place(raw)[0] in seen:
                    raise _damaged(
                        f"the directories form a loop: `{below}` lies in sector {_place(raw)[0]}, which is another "
                        f"directory's ({self.tree})."
                    )
                if depth >= DEEPEST:
                    raise _damaged(f"`{below[:80]}…` is more than {DEEPEST} levels deep ({self.tree}).")
                seen.add(_place(raw)[0])
                queue.append((below, *_place(raw), depth + 1))

    def _count(self, where: str, number: int) -> None:
        self.entries += number
        if self.entries > MOST_ENTRIES:
            raise _damaged(
                f"there are more than {MOST_ENTRIES} entries up to `{where}` ({self.tree}); about 1100 are usual."
            )

    def _records(self, where: str, extent: int, length: int) -> Iterator[tuple[bytes, bytes]]:
        self.bytes += length
        if extent * SECTOR + length > self.size:
            raise _damaged(
                f"the directory `{where}` is said to have {length} bytes in sector {extent}, beyond the end of the ISO "
                f"({self.size} bytes; {self.tree})."
            )
        if self.bytes > LARGEST_TREE:
            raise _damaged(
                f"the directories up to `{where}` have {self.bytes} bytes, the last alone {length}; at most "
                f"{LARGEST_TREE} were expected ({self.tree})."
            )
        data = self.read(extent * SECTOR, length)
        at = found = 0
        while at < len(data):
            size = data[at]
            if size == 0:
                at = (at // SECTOR + 1) * SECTOR
                continue
            raw = data[at : at + size]
            if size < 34 or len(raw) < size or 33 + raw[32] > size:  # noqa: PLR2004 - ECMA-119, 9.1
                raise _damaged(f"a record of `{where}` has an impossible length ({size} bytes; {self.tree}).")
            found += 1
            if found > MOST_IN_ONE:
                raise _damaged(f"`{where}` has more than {MOST_IN_ONE} entries ({self.tree}).")
            yield raw[33 : 33 + raw[32]], raw
            at += size

    def _check_areas(self, where: str, raw: bytes) -> None:
        """Follow the continuation areas of a record to their end."""
        data = raw[33 + raw[32] + (raw[32] + 1) % 2 :]
        for _ in range(MOST_AREAS):
            following, rest = None, len(data)
            for entry in _entries(data):
                rest -= len(entry)
                self.rock_ridge |= entry[:2] == b"SP"
                if entry[:2] in {b"CL", b"PL", b"RE"}:
                    raise _damaged(
                        f"`{where}` has a directory that was moved elsewhere (Rock Ridge {entry[:2].decode()}, "
                        f"{self.tree}); none was expected."
                    )
                if entry[:2] == b"SP" and entry[6:7] not in {b"", b"\0"}:
                    raise _damaged(f"Rock Ridge's entries begin {entry[6]} bytes late; 0 were expected ({self.tree}).")
                if entry[:2] == b"CE" and len(entry) >= 28:  # noqa: PLR2004 - SUSP, 5.1
                    following = struct.unpack_from("<I4xI4xI", entry, 4)
            if self.rock_ridge and any(data[len(data) - rest :]):
                raise _damaged(
                    f"a Rock Ridge entry of `{where}` has an impossible length: it begins with "
                    f"{data[len(data) - rest :][:4].hex()} and has {rest} bytes left ({self.tree})."
                )
            if following is None:
                return
            sector, offset, length = following
            if offset >= SECTOR or not 0 < length <= SECTOR or sector * SECTOR + offset + length > self.size:
                raise _damaged(
                    f"an entry of `{where}` goes on in sector {sector} at {offset} for {length} bytes; expected are at "
                    f"most {SECTOR} bytes inside the ISO ({self.tree})."
                )
            self._count(where, 1)
            data = self.read(sector * SECTOR + offset, length)
        raise _damaged(f"an entry of `{where}` goes on in more than {MOST_AREAS} places ({self.tree}): a loop.")


def _place(raw: bytes) -> tuple[int, int]:
    """Return a directory record's first sector and length in bytes."""
    extent, length = struct.unpack_from("<I4xI", raw, 2)
    return int(extent), int(length)


def _entries(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + 4 <= len(data) and data[at + 2] >= 4:  # noqa: PLR2004 - an entry's head has four bytes
        yield data[at : at + data[at + 2]]
        at += data[at + 2]
