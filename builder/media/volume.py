"""Volume descriptors and the directory trees below them, read as they lie on the medium.

An Ubuntu medium has up to four trees over the same file contents: Rock Ridge and Joliet, and both a second
time for the view from partition 1, whose sectors are counted from the partition's start. Source: ECMA-119
(ISO 9660), 8 and 9; Joliet specification, 3.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from builder.errors import RemasterError
from builder.media.records import Record, both32, join_records, read_both32, split_records
from builder.media.window import SECTOR, plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from builder.media.window import Read

FIRST_DESCRIPTOR = 16
"""The sector of the first volume descriptor (ECMA-119, 6.2.1)."""
MOST_DESCRIPTORS = 32
PRIMARY, BOOT_RECORD, SUPPLEMENTARY, TERMINATOR = 1, 0, 2, 255
JOLIET_ESCAPES = (b"%/@", b"%/C", b"%/E")
EL_TORITO = b"EL TORITO SPECIFICATION"
LARGEST_DIRECTORY = 8 << 20
MOST_DIRECTORIES = 65535
"""A path table's parent number has 16 bits (ECMA-119, 9.4.4)."""

Path = tuple[str, ...]


@dataclass(frozen=True)
class Descriptor:
    """A primary or Joliet volume descriptor: ``raw`` is its sector, ``offset`` where it lies, in bytes."""

    raw: bytes
    offset: int

    @property
    def volume_id(self) -> str:
        """The volume's name."""
        codec = "utf-16-be" if self.raw[0] == SUPPLEMENTARY else "ascii"
        return self.raw[40:72].decode(codec, "replace").rstrip(" \0")

    @property
    def space(self) -> int:
        """How many sectors the volume says it has."""
        return read_both32(self.raw, 80, "the volume's size")

    @property
    def path_table_size(self) -> int:
        """The length of each path table in bytes."""
        return read_both32(self.raw, 132, "the length of the path table")

    @property
    def path_tables(self) -> tuple[int, int]:
        """The sectors of the little-endian and of the big-endian path table."""
        little, big = struct.unpack_from("<I", self.raw, 140)[0], struct.unpack_from(">I", self.raw, 148)[0]
        return int(little), int(big)

    @property
    def spare_path_tables(self) -> bool:
        """Whether it names optional second copies of the path tables."""
        return any(self.raw[144:148]) or any(self.raw[152:156])

    @property
    def root(self) -> Record:
        """The record of the root directory."""
        return Record(self.raw[156:190])

    def changed(self, *, space: int, path_table_size: int, path_tables: tuple[int, int], root: Record) -> Descriptor:
        """Return it with other numbers; names and dates stay."""
        little, big = path_tables
        parts = (
            (80, both32(space)),
            (132, both32(path_table_size)),
            (140, struct.pack("<I", little)),
            (148, struct.pack(">I", big)),
            (156, root.raw),
        )
        raw = bytearray(self.raw)
        for offset, part in parts:
            raw[offset : offset + len(part)] = part
        return replace(self, raw=bytes(raw))


@dataclass(frozen=True)
class Descriptors:
    """One set of volume descriptors; ``base`` is the sector its numbers count from."""

    base: int
    primary: Descriptor
    joliet: Descriptor | None
    boot_catalog: int | None
    """The sector of the El Torito boot catalog, if there is one."""
    end: int
    """The first sector behind the set, counted from the medium's start."""


def read_descriptors(read: Read, base: int) -> Descriptors:
    """Return the set of volume descriptors of the volume that starts at sector ``base``.

    Raises RemasterError if there is none that makes sense.
    """
    primary = joliet = catalog = None
    for number in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + MOST_DESCRIPTORS):
        offset = (base + number) * SECTOR
        raw = read(offset, SECTOR)
        if len(raw) < SECTOR or raw[1:6] != b"CD001":
            break
        if raw[0] == TERMINATOR:
            if primary is None:
                break
            return Descriptors(base, primary, joliet, catalog, base + number + 1)
        if raw[0] == PRIMARY and primary is None:
            primary = Descriptor(raw, offset)
        elif raw[0] == SUPPLEMENTARY and raw[88:91] in JOLIET_ESCAPES and joliet is None:
            joliet = Descriptor(raw, offset)
        elif raw[0] == BOOT_RECORD and raw[7:30] == EL_TORITO and catalog is None:
            catalog = int(struct.unpack_from("<I", raw, 71)[0])
        else:
            raise RemasterError(
                f"The ISO has a volume descriptor of an unexpected kind ({raw[0]}) in sector {base + number}; expected "
                "are a primary one, one of Joliet and one of El Torito.",
            )
    raise RemasterError(
        f"The ISO has no complete set of volume descriptors from sector {base + FIRST_DESCRIPTOR} on: sector "
        f"{base + number} has `{plain(raw[:6].hex())}` where a descriptor or the set's end was expected."
    )


@dataclass(frozen=True)
class Directory:
    """A directory: where its records lie (``extent`` in sectors, ``length`` in bytes) and the records."""

    path: Path
    extent: int
    length: int
    records: tuple[Record, ...]

    @property
    def contents(self) -> bytes:
        """Its records in whole sectors."""
        return join_records(self.records)


@dataclass(frozen=True)
class Tree:
    """A directory tree as one volume descriptor shows it; sectors count from ``base``."""

    base: int
    joliet: bool
    descriptor: Descriptor
    directories: tuple[Directory, ...]
    """In the order of the path table: by depth, then by parent, then as the parent has them."""

    def name_of(self, record: Record) -> str:
        """Return the name this tree shows for a record."""
        return name_of(record, joliet=self.joliet)

    @functools.cached_property
    def by_path(self) -> Mapping[Path, Directory]:
        """The directories by their names from the root."""
        return {directory.path: directory for directory in self.directories}

    def files(self) -> Sequence[tuple[Path, Record]]:
        """Return every record that is no directory, with its path."""
        return self._files

    @functools.cached_property
    def _files(self) -> Sequence[tuple[Path, Record]]:
        return [
            ((*directory.path, self.name_of(record)), record)
            for directory in self.directories
            for record in directory.records
            if not record.is_directory
        ]

    @functools.cached_property
    def contents(self) -> Sequence[tuple[Path, int, int]]:
        """The files that hold something: path, first sector counted from the medium's start, and length in bytes."""
        return [
            (path, self.base + record.extent, record.length)
            for path, record in self._files
            if record.length and not record.has(b"SL")
        ]


def name_of(record: Record, *, joliet: bool) -> str:
    """Return a record's name: of Joliet, of Rock Ridge, or else of plain ISO 9660."""
    if joliet:
        return record.joliet_name()
    return record.rock_ridge_name() or record.identifier.decode("ascii", "replace").split(";")[0]


def read_tree(read: Read, base: int, descriptor: Descriptor, *, joliet: bool) -> Tree:
    """Read the tree below a volume descriptor.

    Raises RemasterError if it is damaged, or if it is not one of which prebake can say beforehand how its
    path tables look: the tables made from the tree must equal those on the medium byte for byte.
    """
    found: list[Directory] = []
    seen: set[int] = set()
    queue: list[tuple[Path, Record]] = [((), descriptor.root)]
    for path, record in queue:
        where = plain("/" + "/".join(path))
        if record.extent in seen or len(seen) >= MOST_DIRECTORIES:
            raise RemasterError(
                f"The ISO's directories form a loop at `{where}`: sector {record.extent} belongs to another one."
            )
        seen.add(record.extent)
        if record.length % SECTOR or not 0 < record.length <= LARGEST_DIRECTORY:
            raise RemasterError(
                f"The ISO's directory `{where}` has an impossible length ({record.length} bytes; "
                f"whole sectors, at most {LARGEST_DIRECTORY} bytes, were expected)."
            )
        data = read((base + record.extent) * SECTOR, record.length)
        if len(data) < record.length:
            raise RemasterError(
                f"The ISO's directory `{where}` lies beyond the end of the file: {record.length} bytes in sector "
                f"{base + record.extent}."
            )
        records = split_records(data, where)
        for one in records[2:]:
            name = name_of(one, joliet=joliet)
            if name in {"", ".", ".."} or "/" in name:
                raise RemasterError(f"The ISO's directory `{where}` has an entry of the impossible name {name!r}.")
        found.append(Directory(path, record.extent, record.length, records))
        queue += [
            ((*path, name_of(child, joliet=joliet)), child)
            for child in records
            if child.is_directory and not child.is_dot
        ]
    tree = Tree(base, joliet, descriptor, tuple(found))
    _check_path_tables(read, tree)
    return tree


def path_tables(directories: Sequence[Directory], identifiers: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return the little-endian and the big-endian path table (ECMA-119, 9.4) of directories in table order.

    ``identifiers`` holds each directory's name on the medium, a zero byte for the root.
    """
    numbers = {directory.path: number for number, directory in enumerate(directories, 1)}
    little, big = bytearray(), bytearray()
    for directory, identifier in zip(directories, identifiers, strict=True):
        parent = numbers[directory.path[:-1]]
        name = identifier + b"\0" * (len(identifier) % 2)
        little += bytes([len(identifier), 0]) + struct.pack("<IH", directory.extent, parent) + name
        big += bytes([len(identifier), 0]) + struct.pack(">IH", directory.extent, parent) + name
    return bytes(little), bytes(big)


def identifiers_of(directories: Sequence[Directory]) -> list[bytes]:
    """Return the name on the medium of every directory, found in its parent; a zero byte for the root."""
    names = {
        record.extent: record.identifier
        for directory in directories
        for record in directory.records
        if record.is_directory and not record.is_dot
    }
    return [names[directory.extent] if directory.path else b"\0" for directory in directories]


def _check_path_tables(read: Read, tree: Tree) -> None:
    descriptor = tree.descriptor
    size = descriptor.path_table_size
    if len(tree.by_path) != len(tree.directories):
        paths = [directory.path for directory in tree.directories]
        double = next(path for number, path in enumerate(paths) if path in paths[:number])
        raise RemasterError(
            f"The ISO's directories are not unambiguous: two have the path `{plain('/' + '/'.join(double))}`."
        )
    made = path_tables(tree.directories, identifiers_of(tree.directories))
    fits = size == len(made[0])
    kept = tuple(read((tree.base + extent) * SECTOR, size) for extent in descriptor.path_tables) if fits else ()
    if made != kept or descriptor.spare_path_tables:
        kind = "Joliet" if tree.joliet else "ISO 9660"
        found = f"{size} bytes were found" + (" that say something else" if fits and made != kept else "")
        found += ", and spare copies of it" if descriptor.spare_path_tables else ""
        raise RemasterError(
            f"The ISO's {kind} path table (volume at sector {tree.base}) does not agree with its directories: for "
            f"{len(tree.directories)} directories {len(made[0])} bytes were expected, and {found}.",
            hint="This ISO was made in a way prebake does not know. Use the ISO as Canonical publishes it.",
        )
