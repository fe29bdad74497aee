"""Open a changed image before anybody keeps it, and compare it with what it should be."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from builder.errors import PrebakeError, RemasterError
from builder.media.anatomy import examine
from builder.media.reader import Entry, Survey, open_volume
from builder.media.window import BLOCK, SECTOR, Window

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import BinaryIO

    from builder.media.anatomy import Anatomy
    from builder.media.patch import Patch

HINT = "This is a fault in prebake: please report it with the name of the ISO. Nothing was written."


def survey(file: BinaryIO, base: int = 0) -> Survey:
    """Return what pycdlib sees of a source's volume that starts at sector ``base``.

    Raises RemasterError if pycdlib finds it damaged.
    """
    try:
        with open_volume(file, base=base) as volume:
            return volume.survey()
    except PrebakeError as error:
        raise RemasterError(f"The ISO cannot be changed: {error.message}", hint=error.hint) from error


def prove(file: BinaryIO, before: Anatomy, seen: Survey, patch: Patch, changes: Mapping[str, bytes]) -> None:
    """Check the image that ``patch`` makes of ``file``, without making it.

    ``before`` and ``seen``, the survey of its first volume, tell what the source is; ``changes`` are contents by
    absolute path. Checked are the anatomy (checksums, path tables, agreement of the trees), the ESP's bytes, and in
    every tree that pycdlib sees which files there are, where they lie and what the changed ones hold. Raises
    RemasterError at the first difference.
    """
    window = Window(file, size=patch.size, extents=patch.extents)
    with _blamed():
        after = examine(window.at, patch.size, bounded=True)
        _prove_esp(Window(file), window, before, after)
        _prove_volume(file, seen, patch, changes)
    for base in before.bases[1:]:
        _prove_other(file, replace(seen, base=base), patch, changes)


def _prove_other(file: BinaryIO, expected: Survey, patch: Patch, changes: Mapping[str, bytes]) -> None:
    """Check the volume from partition 1, which usually shows what the first does and need not be surveyed."""
    try:
        _prove_volume(file, expected, patch, changes)
    except PrebakeError:
        other = survey(file, expected.base)
        with _blamed():
            _prove_volume(file, other, patch, changes)


@contextlib.contextmanager
def _blamed() -> Iterator[None]:
    try:
        yield
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
    with open_volume(file, base=old.base, size=patch.size, extents=patch.extents, bounded=True) as result:
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
