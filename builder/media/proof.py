"""Open a changed image before anybody keeps it, and compare it with what it should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import PrebakeError, RemasterError
from builder.media.anatomy import examine
from builder.media.reader import Entry, open_volume
from builder.media.window import BLOCK, SECTOR, Window

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import BinaryIO

    from builder.media.anatomy import Anatomy
    from builder.media.patch import Patch

HINT = "This is a fault in prebake: please report it with the name of the ISO. Nothing was written."


@dataclass(frozen=True)
class Survey:
    """What pycdlib sees of one volume: its name, and what each of its trees lists, by the tree's name."""

    base: int
    volume_id: str
    listings: Mapping[str, Mapping[str, Entry]]


def survey(file: BinaryIO, anatomy: Anatomy) -> tuple[Survey, ...]:
    """Return what pycdlib sees of a source: from the medium's start, and from partition 1's.

    Raises RemasterError if pycdlib finds it damaged.
    """
    try:
        return tuple(_surveyed(file, base) for base in anatomy.bases)
    except PrebakeError as error:
        raise RemasterError(f"The ISO cannot be changed: {error.message}", hint=error.hint) from error


def _surveyed(file: BinaryIO, base: int) -> Survey:
    with open_volume(file, base=base) as volume:
        return Survey(base, volume.volume_id, {view: volume.listing(view) for view in volume.views})


def prove(
    file: BinaryIO, before: Anatomy, surveys: Sequence[Survey], patch: Patch, changes: Mapping[str, bytes]
) -> None:
    """Check the image that ``patch`` makes of ``file``, without making it.

    ``before`` and ``surveys`` tell what the source is; ``changes`` are contents by absolute path. Checked are
    the anatomy (checksums, path tables, agreement of the trees), the ESP's bytes, and in every tree that
    pycdlib sees which files there are, where they lie and what the changed ones hold. Raises RemasterError at
    the first difference.
    """
    window = Window(file, size=patch.size, extents=patch.extents)
    try:
        after = examine(window.at, patch.size)
        _prove_esp(Window(file), window, before, after)
        for old in surveys:
            _prove_volume(file, old, patch, changes)
    except RemasterError as error:
        raise RemasterError(f"The changed ISO would be wrong: {error.message}", hint=HINT) from error
    except PrebakeError as error:
        raise RemasterError(f"The changed ISO cannot be read back: {error.message}", hint=HINT) from error


def _prove_esp(old: Window, new: Window, before: Anatomy, after: Anatomy) -> None:
    one, two = before.table.esp, after.table.esp
    if one is None or two is None or one.blocks != two.blocks or before.bases != after.bases:
        raise RemasterError("its partitions are not those of the source.")
    length = one.blocks * BLOCK
    if old.at(before.border * SECTOR, length) != new.at(after.border * SECTOR, length):
        raise RemasterError("its EFI system partition is not that of the source.")


def _prove_volume(file: BinaryIO, old: Survey, patch: Patch, changes: Mapping[str, bytes]) -> None:
    with open_volume(file, base=old.base, size=patch.size, extents=patch.extents) as result:
        if result.views != tuple(old.listings) or result.volume_id != old.volume_id:
            raise RemasterError("it has another volume id or other directory trees.")
        for view, listing in old.listings.items():
            where = f"{view} from sector {old.base}"
            _compare(_with(listing, changes), result.listing(view), where, changes)
            for path, data in changes.items():
                if result.read(path, view) != data:
                    raise RemasterError(f"`{path}` does not hold what it should ({where}).")


def _with(listing: Mapping[str, Entry], changes: Mapping[str, bytes]) -> dict[str, Entry]:
    expected = dict(listing)
    for path, data in changes.items():
        parts = path.split("/")[1:]
        for depth in range(1, len(parts)):
            expected["/" + "/".join(parts[:depth])] = Entry("directory")
        expected[path] = Entry("file", 0, len(data))
    return expected


def _compare(
    expected: Mapping[str, Entry], found: Mapping[str, Entry], where: str, changes: Mapping[str, bytes]
) -> None:
    for path in sorted(expected.keys() | found.keys()):
        one, two = expected.get(path), found.get(path)
        if one is None or two is None:
            raise RemasterError(f"`{path}` is {'missing' if two is None else 'there by mistake'} ({where}).")
        same = (one.kind, one.length) == (two.kind, two.length) if path in changes else one == two
        if not same:
            raise RemasterError(f"`{path}` has changed its place or its length ({where}).")
