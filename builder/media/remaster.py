"""Put files on an Ubuntu live-server ISO with every way of booting it alive.

Nothing is moved that need not move: files that fit are changed where they lie, new sectors go between the file
system and the EFI system partition, and that partition, its backup GPT and nothing else move up behind them.
Boot code, boot images, kernels and EFI programs keep every byte and every place the boot code knows.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

from builder.errors import MediumError, RemasterError
from builder.events import Note, silent
from builder.media import md5sum
from builder.media.anatomy import SECTOR_BLOCKS, Anatomy, examine
from builder.media.collector import still
from builder.media.graft import Placed, Space, existing, graft
from builder.media.partitions import find_geometry, grown, mbr_entries
from builder.media.patch import Canvas, Patch, changed_sectors
from builder.media.proof import prove, survey
from builder.media.records import both32
from builder.media.window import SECTOR, Window, sectors_for
from builder.media.write import write_iso

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path as FilePath
    from typing import BinaryIO

    from builder.events import Reporter
    from builder.media.reader import Survey
    from builder.media.records import Record
    from builder.media.volume import Path
    from builder.media.window import Read

__all__ = ["Patch", "changed_sectors", "plan", "write_iso"]

SUMS = tuple(md5sum.PATH.split("/")[1:])
WRITTEN_AT_ONCE = 64 << 10
"""xorriso writes a disk file in pieces of this many bytes, the last filled up with zeros (libburn, 32 sectors)."""
LARGEST_PADDING = 1 << 20
LARGEST_FILE = 0xFFFFFFFF - SECTOR
"""One extent's length has 32 bits; files of several extents are not made here."""
LARGEST_READ = 64 << 20
"""What is read of a file that is there already, in bytes: menus and lists are small."""


@still()
def plan(
    source: FilePath, files: Mapping[str, bytes], *, report: Reporter = silent, seen: Survey | None = None
) -> Patch:
    """Return how ``source`` has to change to hold ``files``.

    ``files`` are contents by absolute path on the medium ("/nocloud/user-data"); missing directories are made,
    existing files are replaced, md5sum.txt follows. New entries take owner, mode and times of their
    neighbours, so the same source and files give the same bytes. What is returned has been proven: pycdlib
    has opened the changed image and found in every directory tree what should be there. ``seen`` is what an
    inspection of the source has found on it, so that it need not be surveyed again.

    Raises RemasterError if the ISO's layout is not one that can be changed safely, or a path cannot be, and
    MediumError if it cannot be read at all.
    """
    wanted = {path: _parts(path) for path in files}
    contents = {wanted[path]: data for path, data in files.items()}
    try:
        with source.open("rb") as file:
            window = Window(file)
            anatomy = examine(window.at, ending(window.at, window.size))
            seen = seen or survey(file)
            changes = _changes(window.at, anatomy, contents)
            patch = _settle(file, anatomy, changes)
            prove(file, anatomy, seen, patch, {"/" + "/".join(path): data for path, data in changes.items()})
    except OSError as error:
        raise MediumError(f"`{source}` cannot be read: {error.strerror or error}.") from error
    sectors = sum(len(numbers) for numbers in changed_sectors(patch))
    report(Note(f"{len(changes)} files change; {sectors} sectors of the ISO are written", "debug"))
    return patch


def ending(read: Read, size: int) -> int:
    """Return where an image of ``size`` bytes ends: there, or with its volume if only xorriso's padding follows.

    A medium that xorriso has loaded and written anew (`-indev`, `-outdev`) has such padding behind its last
    partition and the backup GPT; it is no part of what prebake makes of the medium.
    """
    end = int.from_bytes(read(16 * SECTOR + 80, 4), "little") * SECTOR
    if size % WRITTEN_AT_ONCE or not 0 < size - end <= LARGEST_PADDING or any(read(end, size - end)):
        return size
    return end


def _parts(path: str) -> Path:
    parts = tuple(path.split("/")[1:])
    try:
        path.encode()
    except UnicodeEncodeError:
        parts = ()
    wrong = any(part in {"", ".", ".."} or not part.isprintable() for part in parts)
    if not path.startswith("/") or not parts or wrong:
        raise RemasterError(
            f"{path!r} is no path for a file on an ISO.", hint="Use an absolute path such as /nocloud/user-data."
        )
    return parts


def _changes(read: Read, anatomy: Anatomy, files: Mapping[Path, bytes]) -> dict[Path, bytes]:
    """Return what differs from the medium, md5sum.txt included."""
    for path, data in files.items():
        shown = "/" + "/".join(path)
        if len(data) > LARGEST_FILE:
            raise RemasterError(f"`{shown}` is too large for an ISO: {len(data)} bytes.")
        if any(other[: len(path)] == path for other in files if other != path):
            raise RemasterError(f"`{shown}` cannot be both a file and a directory.")
    old = {path: existing(anatomy.main, path) for path in files}
    changes = {path: data for path, data in files.items() if _contents(read, old[path]) != data}
    there = _contents(read, existing(anatomy.main, SUMS))
    sums = files.get(SUMS, there)
    if sums is not None:
        named = {"/" + "/".join(path): data for path, data in files.items()}
        new = [path for path in named if old[_parts(path)] is None]
        text = md5sum.updated(sums, named, new)
        if text != there:
            changes[SUMS] = text
    return changes


def _settle(file: BinaryIO, anatomy: Anatomy, changes: dict[Path, bytes]) -> Patch:
    """Return the patch for ``changes``, in which md5sum.txt follows the boot catalog that the patch makes.

    Where the ESP goes depends on whether md5sum.txt changes, but not on the sums in it, which are all of one
    length: the third layout at the latest is like the one before.
    """
    read = Window(file).at
    patch = _lay_out(read, anatomy, changes)
    sums = changes.get(SUMS, _contents(read, existing(anatomy.main, SUMS)))
    while sums is not None:
        text = _following(read, Window(file, size=patch.size, extents=patch.extents).at, anatomy, sums)
        if text == changes.get(SUMS, sums):
            break
        changes[SUMS] = text
        patch = _lay_out(read, anatomy, changes)
    return patch


def _following(old: Read, new: Read, anatomy: Anatomy, sums: bytes) -> bytes:
    start = anatomy.catalog.sector * SECTOR
    for path, record in anatomy.main.files():
        if record.extent == anatomy.catalog.sector and 0 < record.length <= SECTOR:
            contents = old(start, record.length), new(start, record.length)
            sums = md5sum.followed(sums, "/" + "/".join(path), *contents)
    return sums


def _contents(read: Read, record: Record | None) -> bytes | None:
    if record is not None and record.length > LARGEST_READ:
        raise RemasterError(f"A file to be changed has {record.length} bytes; at most {LARGEST_READ} were expected.")
    return None if record is None else read(record.extent * SECTOR, record.length)


def _lay_out(read: Read, anatomy: Anatomy, changes: Mapping[Path, bytes]) -> Patch:
    canvas = Canvas(read)
    space = Space(anatomy.border)
    pieces: list[tuple[int, bytes]] = []
    placed: dict[Path, Placed] = {}
    for path, data in sorted(changes.items()):
        sector, room = _place(anatomy, path, data, space)
        placed[path] = Placed(sector, len(data))
        pieces.append((sector * SECTOR, data.ljust(room * SECTOR, b"\0")))
    for tree in anatomy.trees:
        pieces += graft(tree, placed, space)
    growth = _rounded(anatomy, space.next - anatomy.border)
    if growth:
        border = anatomy.border * SECTOR
        canvas.write(border, bytes(growth * SECTOR))
        canvas.write(border + growth * SECTOR, read(border, anatomy.size - border))
        pieces += _told(anatomy, growth)
    for offset, data in pieces:
        canvas.write(offset, data)
    for tree in anatomy.trees if growth else ():
        canvas.write(tree.descriptor.offset + 80, both32(tree.descriptor.space + growth))
    return canvas.patch(anatomy.size + growth * SECTOR)


def _place(anatomy: Anatomy, path: Path, data: bytes, space: Space) -> tuple[int, int]:
    """Return the sector for a file's contents and how many it has there: the old ones if they will do."""
    old = existing(anatomy.main, path)
    if old is not None:
        boot = {anatomy.catalog.sector, *(image.sector for image in anatomy.catalog.images)}
        if old.extent in boot:
            raise RemasterError(f"`/{'/'.join(path)}` cannot be replaced: the firmware knows it by its place.")
        room = sectors_for(old.length)
        users = [record for _, record in anatomy.main.files() if record.length and record.extent == old.extent]
        if len(data) <= room * SECTOR and len(users) == 1:
            return old.extent, room
    room = max(sectors_for(len(data)), 1)
    return space.take(room), room


def _rounded(anatomy: Anatomy, growth: int) -> int:
    """Return ``growth`` in sectors, rounded up to whole cylinders where an MBR keeps partitions on cylinders."""
    geometry = find_geometry(mbr_entries(anatomy.table.mbr))
    if anatomy.table.kind != "mbr" or geometry is None:
        return growth
    unit = math.lcm(geometry[0] * geometry[1], SECTOR_BLOCKS) // SECTOR_BLOCKS
    aligned = all(partition.end % (geometry[0] * geometry[1]) == 0 for partition in anatomy.table.partitions)
    return -(-growth // unit) * unit if aligned else growth


def _told(anatomy: Anatomy, growth: int) -> list[tuple[int, bytes]]:
    """Return the pieces of partition table and boot catalog that say where the ESP has gone."""
    pieces = grown(anatomy.table, anatomy.border * SECTOR_BLOCKS, growth * SECTOR_BLOCKS)
    for image in anatomy.catalog.images:
        if image.sector >= anatomy.border:
            pieces.append((image.pointer, struct.pack("<I", image.sector + growth)))
    return pieces
