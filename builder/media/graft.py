"""Put files into a directory tree with as few bytes changed as can be.

A directory whose records still fit stays where it is; one that outgrows its sectors moves behind the file
system, and everything that names its place is told.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from builder.errors import RemasterError
from builder.media.records import DIRECTORY, DOT, DOT_DOT, MULTI_EXTENT, Record
from builder.media.volume import Directory, Tree, identifiers_of, path_tables
from builder.media.window import SECTOR, sectors_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from builder.media.volume import Path

LONGEST_JOLIET = 64
"""Characters in a Joliet name (Joliet specification, 3.2.1)."""
NOT_IN_JOLIET = frozenset('*/:;?\\"')
VERSION = b";1"


@dataclass
class Space:
    """The room for new sectors: behind the file system, in order. ``next`` is the first free sector."""

    next: int

    def take(self, sectors: int) -> int:
        """Return the first of ``sectors`` new sectors."""
        first = self.next
        self.next += sectors
        return first


@dataclass(frozen=True)
class Placed:
    """Where a file's contents lie: the sector, counted from the medium's start, and the length in bytes."""

    sector: int
    length: int


def graft(tree: Tree, files: Mapping[Path, Placed], space: Space) -> list[tuple[int, bytes]]:
    """Return the pieces (offset in bytes, bytes) that make ``tree`` show ``files``, new or replaced.

    ``space`` gives new sectors where something does not fit. The volume's size is left alone; see
    `resize`. Raises RemasterError if a path runs through a file, ends in a directory or cannot be named.
    """
    draft = _Draft(tree, space)
    for path, placed in sorted(files.items()):
        draft.put(path, placed)
    return draft.pieces()


def existing(tree: Tree, path: Path) -> Record | None:
    """Return the record of the file at ``path``, None if there is nothing.

    Raises RemasterError if what is there is not a plain file, or a file stands where a directory should be.
    """
    shown = "/" + "/".join(path)
    directories = tree.by_path
    for depth in range(1, len(path)):
        if path[:depth] not in directories:
            parent = directories.get(path[: depth - 1])
            if parent and any(tree.name_of(record) == path[depth - 1] for record in parent.records):
                raise RemasterError(f"`{shown}` cannot be put on the ISO: `{path[depth - 1]}` is no directory there.")
            return None
    found = [record for record in directories[path[:-1]].records if tree.name_of(record) == path[-1]]
    if not found:
        return None
    if len(found) > 1 or found[0].flags & (DIRECTORY | MULTI_EXTENT) or found[0].has(b"SL") or found[0].has(b"CL"):
        raise RemasterError(f"`{shown}` cannot be replaced: on the ISO it is not a plain file.")
    return found[0]


class _Draft:
    """A tree that is being changed."""

    def __init__(self, tree: Tree, space: Space) -> None:
        self.tree = tree
        self.space = space
        self.directories: dict[Path, Directory] = dict(tree.by_path)
        self.original = dict(self.directories)
        self.file_template = next(
            (record for _, record in tree.files() if not record.has(b"SL") and (tree.joliet or record.has(b"PX"))), None
        )

    def put(self, path: Path, placed: Placed) -> None:
        extent = placed.sector - self.tree.base
        old = existing(self.tree, path)
        if old is not None:
            self._exchange(path[:-1], old, old.moved(extent, placed.length))
            return
        for depth in range(1, len(path)):
            if path[:depth] not in self.directories:
                self._make_directory(path[:depth])
        if self.file_template is None:
            raise RemasterError("The ISO has no file whose owner and mode a new one could take.")
        self._insert(path, self.file_template, extent, placed.length)

    def _exchange(self, where: Path, old: Record, new: Record) -> None:
        directory = self.directories[where]
        records = tuple(new if record is old else record for record in directory.records)
        self.directories[where] = replace(directory, records=records)

    def _make_directory(self, path: Path) -> None:
        siblings = [record for record in self.tree.directories[0].records if record.is_directory and not record.is_dot]
        if not siblings:
            raise RemasterError("The ISO has no directory whose owner and mode a new one could take.")
        extent = self.space.take(1) - self.tree.base
        template = next(one for one in self.tree.directories if one.extent == siblings[0].extent).records[0]
        parent = self.directories[path[:-1]]
        dot = template.renamed(DOT, None).moved(extent, SECTOR)
        dot_dot = template.renamed(DOT_DOT, None).moved(parent.extent, parent.length)
        self.directories[path] = Directory(path, extent, SECTOR, (dot, dot_dot))
        self._insert(path, siblings[0], extent, SECTOR)

    def _insert(self, path: Path, template: Record, extent: int, length: int) -> None:
        parent = self.directories[path[:-1]]
        taken = {record.identifier for record in parent.records}
        record = template.renamed(self._identifier(path[-1], template, taken), None if self.tree.joliet else path[-1])
        record = record.moved(extent, length)
        at = next(
            (
                index
                for index, other in enumerate(parent.records)
                if not other.is_dot and other.identifier > record.identifier
            ),
            len(parent.records),
        )
        records = (*parent.records[:at], record, *parent.records[at:])
        self.directories[path[:-1]] = replace(parent, records=records)

    def _identifier(self, name: str, template: Record, taken: Iterable[bytes]) -> bytes:
        if not self.tree.joliet:
            return _iso_name(name, template, set(taken))
        identifier = name.encode("utf-16-be", "surrogatepass")
        if len(identifier) > 2 * LONGEST_JOLIET or NOT_IN_JOLIET & set(name) or len(identifier) != 2 * len(name):
            raise RemasterError(
                f"The name `{name}` cannot be written in the ISO's Joliet directories.",
                hint='Use at most 64 characters and none of * / : ; ? \\ ".',
            )
        versioned = template.identifier.endswith(VERSION.decode().encode("utf-16-be"))
        return identifier + (VERSION.decode().encode("utf-16-be") if versioned else b"")

    def pieces(self) -> list[tuple[int, bytes]]:
        """Lay everything out and return what is to be written."""
        places: dict[int, tuple[int, int]] = {}
        for path, directory in self.directories.items():
            length = len(directory.contents)
            old = self.original.get(path)
            if (old and length > old.length) or (not old and length > SECTOR):
                extent = self.space.take(sectors_for(length)) - self.tree.base
                places[directory.extent] = (extent, length)
        final = [self._settled(directory, places) for directory in self.directories.values()]
        ordered = _table_order(final)
        changed = [one for one in ordered if self.original.get(one.path) != one]
        pieces = [((self.tree.base + one.extent) * SECTOR, one.contents.ljust(one.length, b"\0")) for one in changed]
        return pieces + self._tables(ordered)

    def _settled(self, directory: Directory, places: Mapping[int, tuple[int, int]]) -> Directory:
        extent, length = places.get(directory.extent, (directory.extent, directory.length))
        records = tuple(
            record.moved(*places[record.extent]) if record.is_directory and record.extent in places else record
            for record in directory.records
        )
        return Directory(directory.path, extent, length, records)

    def _tables(self, ordered: Sequence[Directory]) -> list[tuple[int, bytes]]:
        descriptor, base = self.tree.descriptor, self.tree.base
        made = path_tables(ordered, identifiers_of(ordered))
        places = descriptor.path_tables
        size = len(made[0])
        if sectors_for(size) > sectors_for(descriptor.path_table_size):
            little, big = (self.space.take(sectors_for(size)) - base for _ in made)
            places = (little, big)
        root = descriptor.root.moved(ordered[0].extent, ordered[0].length)
        new = descriptor.changed(space=descriptor.space, path_table_size=size, path_tables=places, root=root)
        pieces = [((base + place) * SECTOR, table) for place, table in zip(places, made, strict=True)]
        return [*pieces, (descriptor.offset, new.raw)]


def _table_order(directories: Sequence[Directory]) -> list[Directory]:
    """Return directories by depth, then parent, then as the parent has them."""
    by_extent = {directory.extent: directory for directory in directories}
    ordered = [next(directory for directory in directories if not directory.path)]
    for directory in ordered:
        ordered += [by_extent[one.extent] for one in directory.records if one.is_directory and not one.is_dot]
    return ordered


def _iso_name(name: str, template: Record, taken: set[bytes]) -> bytes:
    """Return an 8.3 name (ECMA-119, 7.5 and 10.1) that no sibling has."""
    stem, dot, suffix = name.upper().rpartition(".")
    if not dot or not stem.strip("."):
        stem, suffix = name.upper().strip("."), ""
    clean = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in stem) or "_"
    ending = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in suffix)[:3]
    version = VERSION if template.identifier.endswith(VERSION) else b""
    for number in range(len(taken) + 1):
        mark = str(number) if number else ""
        short = clean[: 8 - len(mark)] + mark
        full = short if template.is_directory else f"{short}.{ending}"
        identifier = full.encode() + version
        if identifier not in taken:
            return identifier
    raise RemasterError(f"No free ISO 9660 name is left for `{name}`.")
