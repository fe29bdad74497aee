"""Where a build works, and how its result takes its place: whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from builder.errors import HostError, UsageError
from builder.leftovers import scratch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20


def check_free(folder: Path, needed: int, what: str) -> None:
    """Refuse to begin where the disk cannot hold it; ``needed`` is in bytes.

    Raises HostError that says how much there is.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise HostError(
            f"{what} needs about {needed // MIB} MiB in {folder}, and only {free // MIB} MiB are free.",
            hint="Make room, or choose another place with -o DIR.",
        )


def existing_parent(path: Path) -> Path:
    """Return ``path`` or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def check_place(target: Path, *, force: bool) -> None:
    """Refuse to write where something is already, unless it is prebake's own and may be replaced.

    Raises UsageError for what exists, HostError for a place that cannot be written.
    """
    if target.exists():
        if not force:
            raise UsageError(
                f"{target} exists already.",
                hint="Nothing was touched. --force replaces it once the new one is whole.",
            )
        if target.is_dir() and not is_ours(target):
            raise UsageError(
                f"{target} exists already and is no image folder of prebake's, so --force does not replace it.",
                hint="Choose another --name or -o DIR.",
            )
    parent = existing_parent(target.parent)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise HostError(f"{parent} cannot be written.", hint="Choose another place with -o DIR.")


def is_ours(folder: Path) -> bool:
    """Tell whether ``folder`` is one that `deliver` has put there."""
    try:
        told = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(told, dict) and "prebake" in told


@contextmanager
def workspace(output: Path, name: str) -> Iterator[Path]:
    """Make a folder of its own in ``output``, on the same file system as the result; remove it at the end.

    A folder made for ``output`` itself is removed too if nothing came of it.
    """
    made = [path for path in (output, *output.parents) if not path.exists()]
    output.mkdir(parents=True, exist_ok=True)
    try:
        with scratch(output, f".{name}.building-", f"the build of {name}") as work:
            yield work
    finally:
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()


def sync_tree(folder: Path) -> None:
    """Bring every file below ``folder`` to the disk."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def deliver(made: Path, target: Path, *, force: bool) -> None:
    """Put the folder ``made`` in the place of ``target``, on the same file system.

    What was there is kept beside it as NAME.old, until the next time; a failure or an interruption half-way
    puts it back. Raises UsageError as `check_place`, for much can happen during a build.
    """
    sync_tree(made)
    check_place(target, force=force)
    old = target.with_name(f"{target.name}.old")
    had = target.exists()
    if had:
        if old.exists() and not is_ours(old):
            raise UsageError(f"{old} is in the way and not prebake's.", hint="Move it away and build again.")
        shutil.rmtree(old, ignore_errors=True)
    try:
        if had:
            target.rename(old)
        made.rename(target)
    except BaseException:
        if had and old.exists() and not target.exists():
            old.rename(target)
        raise
    handle = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def put_aside(made: Path, target: Path) -> None:
    """Put the folder ``made`` of evidence in the place of ``target``, replacing only evidence.

    Raises OSError if that cannot be.
    """
    if (target / "error.txt").is_file():
        shutil.rmtree(target)
    made.rename(target)
