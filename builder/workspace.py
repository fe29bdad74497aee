"""Where a build works, and how its result takes its place: whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import HostError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    """Refuse to write where something is already, unless it may be replaced.

    Raises UsageError for a result that exists, HostError for a place that cannot be written.
    """
    if target.exists() and not force:
        raise UsageError(
            f"{target} exists already.", hint="Nothing was touched. --force replaces it once the new one is whole."
        )
    parent = existing_parent(target.parent)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise HostError(f"{parent} cannot be written.", hint="Choose another place with -o DIR.")


@contextmanager
def workspace(output: Path, name: str) -> Iterator[Path]:
    """Make a folder of its own in ``output``, on the same file system as the result; remove it at the end.

    A folder made for ``output`` itself is removed too if nothing came of it.
    """
    made = [path for path in (output, *output.parents) if not path.exists()]
    output.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{name}.building-", dir=output))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
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


def deliver(made: Path, target: Path) -> None:
    """Put the folder ``made`` in the place of ``target``; what was there is removed only once it is.

    Both are on one file system.
    """
    sync_tree(made)
    old = None
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old-", dir=target.parent)) / target.name
        target.rename(old)
    try:
        made.rename(target)
    except OSError:
        if old is not None:
            old.rename(target)
        raise
    finally:
        if old is not None and target.exists():
            shutil.rmtree(old.parent, ignore_errors=True)
    handle = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
