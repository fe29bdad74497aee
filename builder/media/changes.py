"""State every sector a patch changes, and what lies there.

What is stated is looked up in the anatomies of the two images, not taken from the planning of the patch: a
sector that changes for no reason anybody can name is an error.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import MediumError, RemasterError
from builder.media.anatomy import examine
from builder.media.patch import changed_sectors
from builder.media.remaster import ending
from builder.media.window import BLOCK, SECTOR, Window, sectors_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from builder.media.anatomy import Anatomy
    from builder.media.patch import Patch
    from builder.media.volume import Tree
    from builder.media.window import Read


@dataclass(frozen=True)
class Change:
    """A run of changed sectors: the numbers of the ``first`` and the ``last`` (of 2048 bytes), and ``what`` is there.

    A sector that holds several things names those that change in it, in the order they lie there.
    """

    first: int
    last: int
    what: str

    @property
    def sectors(self) -> int:
        """How many sectors these are."""
        return self.last - self.first + 1


@dataclass(frozen=True)
class _Region:
    start: int
    stop: int
    what: str


def stated(source: Path, patch: Patch) -> tuple[Change, ...]:
    """Return every sector of the image that ``patch`` makes of ``source`` that differs from the source's, in order.

    Beyond its end an image counts as zeros. Raises MediumError if the source cannot be read, RemasterError if it
    is not the one the patch was made for, or something changes that cannot be named.
    """
    try:
        with source.open("rb") as file:
            old, new = Window(file), Window(file, size=patch.size, extents=patch.extents)
            before, after = examine(old.at, ending(old.at, old.size)), examine(new.at, new.size)
            return label(old.at, new.at, before, after, patch)
    except OSError as error:
        raise MediumError(f"`{source}` cannot be read: {error.strerror or error}.") from error


def label(old: Read, new: Read, before: Anatomy, after: Anatomy, patch: Patch) -> tuple[Change, ...]:
    """Return the changes of a patch.

    ``old`` and ``new`` read the two images, whose anatomies are ``before`` and ``after``. Raises RemasterError
    for a change in a place that is nothing in either of them.
    """
    present = _Map([*_tables(after), *_volumes(after), *_partitions(before, after)])
    freed = _Map([_Region(one.start, one.stop, f"room freed by {one.what}") for one in _volumes(before)])
    changes: list[Change] = []
    for numbers in changed_sectors(patch):
        for number in numbers:
            one, two = (read(number * SECTOR, SECTOR).ljust(SECTOR, b"\0") for read in (old, new))
            if one == two:
                continue
            what = ", ".join(present.changed(number, one, two) or freed.changed(number, one, two))
            if not what:
                raise RemasterError(
                    f"Sector {number} of the ISO would change, and prebake cannot say what it is.",
                    hint="This is a fault in prebake: please report it with the name of the ISO.",
                )
            if changes and changes[-1].last == number - 1 and changes[-1].what == what:
                changes[-1] = Change(changes[-1].first, number, what)
            else:
                changes.append(Change(number, number, what))
    return tuple(changes)


def totals(source_size: int, patch: Patch, changes: Sequence[Change]) -> str:
    """Return the sum of the changes in a sentence; ``source_size`` is in bytes."""
    changed, beyond = sum(change.sectors for change in changes), (patch.size - source_size) // SECTOR
    grows = f"{abs(beyond)} sectors {'longer' if beyond > 0 else 'shorter'}" if beyond else "as long as it was"
    return (
        f"{changed} of {sectors_for(patch.size)} sectors of {SECTOR} bytes change, in {len(changes)} ranges; "
        f"the ISO is {grows} ({patch.size} bytes)."
    )


class _Map:
    """What lies where; empty things are left out."""

    def __init__(self, regions: Sequence[_Region]) -> None:
        self.regions = sorted((one for one in regions if one.stop > one.start), key=lambda one: (one.start, one.stop))
        self.starts = [one.start for one in self.regions]

    def changed(self, number: int, old: bytes, new: bytes) -> list[str]:
        """Return what in sector ``number`` has other bytes in ``new`` than in ``old``, each once."""
        offset = number * SECTOR
        last = bisect.bisect_left(self.starts, offset + SECTOR)
        names = []
        for region in self.regions[max(bisect.bisect_right(self.starts, offset) - 1, 0) : last]:
            part = slice(max(region.start - offset, 0), max(region.stop - offset, 0))
            if old[part] != new[part]:
                names.append(region.what)
        return list(dict.fromkeys(names))


def _tables(anatomy: Anatomy) -> Iterator[_Region]:
    table = anatomy.table
    yield _Region(0, BLOCK, "protective MBR" if table.primary else "MBR partition table")
    for gpt, name, here in ((table.primary, "GPT", 1), (table.backup, "backup GPT", anatomy.size // BLOCK - 1)):
        if gpt is not None:
            entries = gpt.entries_start * BLOCK
            yield _Region(here * BLOCK, (here + 1) * BLOCK, f"{name} header")
            yield _Region(entries, entries + len(gpt.entries), f"{name} entries")


def _volumes(anatomy: Anatomy) -> Iterator[_Region]:
    catalog = anatomy.catalog.sector * SECTOR
    yield _Region(catalog, catalog + SECTOR, "boot catalog")
    contents: dict[tuple[int, int], str] = {}
    for path, record in anatomy.main.files():
        if record.length:
            contents.setdefault((record.extent, record.length), "/" + "/".join(path))
    for (extent, length), name in contents.items():
        if extent != anatomy.catalog.sector:
            yield _sectors(extent, length, f"contents of {name}")
    for tree in anatomy.trees:
        yield from _tree(tree)


def _tree(tree: Tree) -> Iterator[_Region]:
    where = f"{'Joliet' if tree.joliet else 'Rock Ridge'} tree{' of partition 1' if tree.base else ''}"
    descriptor = tree.descriptor
    yield _sectors(descriptor.offset // SECTOR, SECTOR, f"volume descriptor of the {where}")
    for place, order in zip(descriptor.path_tables, ("little", "big"), strict=True):
        yield _sectors(tree.base + place, descriptor.path_table_size, f"path table ({order}-endian) of the {where}")
    for directory in tree.directories:
        name = "/" + "/".join(directory.path)
        yield _sectors(tree.base + directory.extent, directory.length, f"directory {name} of the {where}")


def _partitions(before: Anatomy, after: Anatomy) -> Iterator[_Region]:
    """Yield the ESP and what is behind it, and the new room in front of it that nothing fills."""
    esp, table = after.table.esp, after.table
    if esp is not None:
        moved = ", moved" if after.border != before.border else ""
        yield _Region(esp.start * BLOCK, esp.end * BLOCK, f"EFI system partition{moved}")
        end = table.backup.entries_start * BLOCK if table.backup else after.size
        yield _Region(esp.end * BLOCK, end, "padding behind the EFI system partition")
    taken = {
        sector
        for region in _volumes(after)
        if region.stop > before.border * SECTOR
        for sector in range(region.start // SECTOR, sectors_for(region.stop))
    }
    empty = {record.extent: "/" + "/".join(path) for path, record in after.main.files() if not record.length}
    for sector in range(before.border, after.border):
        if sector not in taken:
            what = f"empty sector of {empty[sector]}" if sector in empty else "padding behind the file system"
            yield _sectors(sector, SECTOR, what)


def _sectors(first: int, length: int, what: str) -> _Region:
    return _Region(first * SECTOR, (first + sectors_for(length)) * SECTOR, what)
