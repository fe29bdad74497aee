"""What the cache holds, and what of it may go."""

from __future__ import annotations

import os
import shutil
import stat
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from builder import bases, leftovers
from builder.media.source.releases import series_of, version_key
from builder.media.source.shelf import RECORD, Shelf
from builder.store import unused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from builder.leftovers import Leftover

DAY = 86400.0
KEPT = frozenset({"key"})
"""Kinds that no pruning takes: small, and what later runs are proven by."""


@dataclass(frozen=True)
class Item:
    """Something in the cache.

    ``kind`` is "iso", "part" (of a download), "rehearsal" (a medium), "base" (what one is made from), "settled" (an
    installed system that images are made of), "key" or
    "leftover" (of a run that was killed, wherever that worked); ``size`` is in bytes on the disk, ``used`` in seconds
    since 1970. ``locks`` are held by who fetches or uses it. ``superseded`` says that something newer of its kind is
    there, or that nobody can want it. ``left`` is what is known of a leftover.
    """

    kind: str
    name: str
    path: Path
    size: int
    used: float
    locks: tuple[Path, ...] = ()
    superseded: bool = False
    detail: str = ""
    left: Leftover | None = None


def contents(cache: Path) -> list[Item]:
    """Return what is in the cache, by kind and name."""
    return [*_isos(cache), *_rehearsals(cache), *_settled(cache), *_keys(cache), *_leftovers(cache)]


def _isos(cache: Path) -> list[Item]:
    shelf = Shelf(cache)
    kept = {one.sha256: one for one in shelf.all()}
    newest: dict[tuple[str, str], tuple[int, ...]] = {}
    for one in kept.values():
        series = (series_of(one.version), one.arch)
        newest[series] = max(newest.get(series, ()), version_key(one.version))
    items = []
    for folder in sorted(path for path in shelf.folder.glob("*") if path.is_dir() and path.name != "locks"):
        locks = tuple(shelf.folder / "locks" / f"{folder.name}.{kind}" for kind in ("fetch", "use"))
        whole = kept.get(folder.name)
        if whole is None:
            parts = [path.name.split(".iso")[0] + ".iso" for path in folder.glob("*.iso*")]
            items.append(
                Item("part", min(parts, default=folder.name), folder, disk_size(folder), _used(folder), locks, True)  # noqa: FBT003
            )
            continue
        old = version_key(whole.version) < newest[series_of(whole.version), whole.arch]
        used = max(_used(folder / RECORD), _used(locks[1]))
        name, detail = whole.path.name, whole.origin.signature
        items.append(Item("iso", name, folder, disk_size(folder), used, locks, old, detail))
    return items


def _rehearsals(cache: Path) -> list[Item]:
    folder = cache / "rehearsal"
    items = []
    for kind, pattern in (("rehearsal", "rehearsal-*.iso"), ("base", "base-*"), ("part", "medium-*")):
        found = sorted(folder.glob(pattern))
        locks = {path: (folder / "lock", folder / "locks" / f"{path.name}.use") for path in found}
        used = {path: max(_used(path), _used(locks[path][1])) for path in found}
        last = max(used.values(), default=0.0)
        items += [
            Item(kind, path.name, path, disk_size(path), used[path], locks[path], kind == "part" or used[path] < last)
            for path in found
        ]
    return items


def _settled(cache: Path) -> list[Item]:
    """Return the settled systems; one that has a newer one of its name is superseded."""
    found = bases.folders(cache)
    newest = {folder.name.split("-")[0]: folder for folder in found}  # in the order of their time
    items = []
    for folder in found:
        old = newest[folder.name.split("-")[0]] != folder
        locks, used = (bases.lock_of(folder),), bases.last_use(folder)
        items.append(Item("settled", folder.name, folder, disk_size(folder), used, locks, old, bases.made_on(folder)))
    return items


def _keys(cache: Path) -> list[Item]:
    return [
        Item("key", path.name, path, disk_size(path), _used(path)) for path in sorted((cache / "keys").glob("*.asc"))
    ]


def _leftovers(cache: Path) -> list[Item]:
    items = []
    for one in leftovers.found(cache):
        detail = f"{one.what}, killed (process {one.pid})"
        used = _used(one.record)
        item = Item("leftover", one.path.name, one.path, disk_size(one.path), used, superseded=True, detail=detail)
        items.append(replace(item, left=one))
    return items


def chosen(
    items: Sequence[Item], *, everything: bool, days: float | None, most: int | None, now: float | None = None
) -> list[Item]:
    """Return what to prune of ``items``.

    ``everything`` takes all; ``days`` what has not been used for so long; ``most`` what was used longest ago,
    until no more than so many bytes are left. With none of them what is superseded goes. Keys stay.
    """
    mine = [item for item in items if item.kind not in KEPT]
    if everything:
        return mine
    if days is None and most is None:
        return [item for item in mine if item.superseded]
    limit = -1.0 if days is None else (time.time() if now is None else now) - days * DAY
    gone = [item for item in mine if item.used < limit]
    if most is not None:
        left = sum(item.size for item in mine if item not in gone)
        for item in sorted((one for one in mine if one not in gone), key=lambda one: one.used):
            if left > most:
                gone.append(item)
                left -= item.size
    return gone


def prune(items: Iterable[Item], tell: Callable[[Item, bool], None]) -> None:
    """Remove ``items`` that nobody uses; ``tell`` is told of each, and whether it is gone."""
    for item in items:
        if item.left is not None:
            tell(item, leftovers.remove(item.left))
            continue
        with unused(*item.locks) as free:
            if free:
                # The record goes first: what is half removed no longer counts as kept.
                for record in (RECORD, bases.RECORD) if item.path.is_dir() else ():
                    (item.path / record).unlink(missing_ok=True)
                shutil.rmtree(item.path) if item.path.is_dir() else item.path.unlink(missing_ok=True)
            tell(item, free)


def disk_size(path: Path) -> int:
    """Return how many bytes a file or a folder takes on the disk."""
    total = _blocks(path)
    for folder, _, names in os.walk(path):
        total += sum(_blocks(Path(folder, name)) for name in names)
    return total


def _blocks(path: Path) -> int:
    """Return how many bytes a file takes; none for a folder, and for what was renamed or removed meanwhile."""
    try:
        found = path.lstat()
    except OSError:
        return 0
    return 0 if stat.S_ISDIR(found.st_mode) else found.st_blocks * 512


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
