"""The cache: where it is, and how two builds do not step on each other's toes."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

if TYPE_CHECKING:
    from collections.abc import Iterator


def cache_folder() -> Path:
    """Return the folder for what can be made or fetched again: XDG_CACHE_HOME/prebake, or the system's own."""
    named = os.environ.get("XDG_CACHE_HOME")
    return Path(named) / "prebake" if named else platformdirs.user_cache_path("prebake")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (made if need be); wait for whoever holds it.

    The lock ends with the process, however it ends.
    """
    import fcntl  # noqa: PLC0415 - not on Windows, where nothing is built

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
