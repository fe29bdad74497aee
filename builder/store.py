"""The cache: where it is, how two builds do not step on each other's toes, and how a file appears whole."""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from builder.events import Note, silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.events import Reporter


def cache_folder() -> Path:
    """Return the folder for what can be made or fetched again: XDG_CACHE_HOME/prebake, or the system's own."""
    named = os.environ.get("XDG_CACHE_HOME")
    return Path(named) / "prebake" if named else platformdirs.user_cache_path("prebake")


@contextmanager
def locked(path: Path, report: Reporter = silent, waiting: str = "") -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (made if need be); wait for whoever holds it, and say so once.

    The lock ends with the process, however it ends.
    """
    import fcntl  # noqa: PLC0415 - not on Windows, where nothing is built

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                report(Note(waiting))
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def shared(path: Path, *, touch: bool = True) -> Iterator[None]:
    """Hold a lock on ``path`` that many may hold, but not while one has it `locked`; with ``touch`` its time is now."""
    import fcntl  # noqa: PLC0415 - not on Windows, where nothing is built

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        if touch:
            os.utime(path)
        yield


@contextmanager
def unused(*paths: Path) -> Iterator[bool]:
    """Hold exclusive locks on all of ``paths`` if nobody has one, and say whether they are held."""
    import fcntl  # noqa: PLC0415 - not on Windows, where nothing is built

    with ExitStack() as stack:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = stack.enter_context(path.open("a"))
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
        yield True


def write_whole(path: Path, data: bytes) -> None:
    """Write a file aside, bring it to the disk, and put it in its place: whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        with aside.open("xb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
