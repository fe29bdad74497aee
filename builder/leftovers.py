"""Folders that a build works in, and what remains of them when prebake is killed.

Each has a record in the cache, work/ID.json, which is written before the folder is made and removed after it is. The
record is locked as long as prebake lives, and a lock ends with its process, however that ends. So a record that is
not locked tells of a leftover. A record is believed only where it names what prebake itself could have made.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import stat
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from builder.events import Note
from builder.interrupts import held
from builder.store import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.events import Reporter

OURS = re.compile(r"(?:prebake-(?:[a-z]+-)?|\.[^/\0\n]+\.building-)(?P<id>[0-9a-f]{8})")
"""What a folder made here is called; its end is what its record is called."""
DIGITS = 8
LARGEST = 16384
"""Bytes a record may have."""


@dataclass(frozen=True)
class Leftover:
    """A folder whose owner, the process ``pid``, was killed, and what it was for."""

    record: Path
    path: Path
    what: str
    pid: int


@contextmanager
def scratch(parent: Path, prefix: str, what: str) -> Iterator[Path]:
    """Make a folder of its own in ``parent`` that only this user may enter; remove it at the end, and all in it.

    Its name is ``prefix``, of the pattern `OURS`, and eight digits. Should prebake be killed, `found` knows it by
    ``what`` it was for, provided that the cache can be written and has locks. Raises OSError if it cannot be made.
    """
    folder, record = _made(parent, prefix, what)
    try:
        yield folder
    finally:
        with held():
            shutil.rmtree(folder, ignore_errors=True)
            _close(record, gone=not folder.exists())


def _made(parent: Path, prefix: str, what: str) -> tuple[Path, _Record | None]:
    while True:
        name = f"{prefix}{secrets.token_hex(4)}"
        if not OURS.fullmatch(name):
            raise ValueError(f"{name} is no name for a folder that is thrown away")
        folder = parent / name
        record = _written(parent.resolve() / name, what)
        try:
            folder.mkdir(0o700)
        except FileExistsError:
            _close(record, gone=True)
        except BaseException:
            _close(record, gone=True)
            raise
        else:
            return folder, record


@dataclass(frozen=True)
class _Record:
    """The record of a folder that is in use: it is locked as long as ``stream`` is open."""

    path: Path
    stream: IO[bytes]


def _close(record: _Record | None, *, gone: bool) -> None:
    if record is not None:
        with contextlib.suppress(OSError):
            if gone:
                record.path.unlink(missing_ok=True)
        record.stream.close()


def _written(folder: Path, what: str) -> _Record | None:
    """Write the record of ``folder``, which appears whole and locked; None where that cannot be."""
    place = cache_folder() / "work"
    ident = folder.name[-DIGITS:]
    aside, path = place / f".{ident}.new", place / f"{ident}.json"
    told = {"path": str(folder), "what": what, "pid": os.getpid()}
    # A cache that cannot be written, or has no locks, is no reason not to build.
    with contextlib.suppress(OSError, ImportError):
        place.mkdir(parents=True, exist_ok=True)
        stream = aside.open("xb")
        try:
            if _locked(stream.fileno()):
                stream.write(json.dumps(told).encode())
                stream.flush()
                aside.rename(path)
                return _Record(path, stream)
        except BaseException:
            stream.close()
            raise
        finally:
            aside.unlink(missing_ok=True)
        stream.close()
    return None


def _locked(handle: int) -> bool:
    """Lock an open file unless somebody else has; say whether it is locked. Raises OSError where there are no locks."""
    import fcntl  # noqa: PLC0415 - not on Windows, where nothing is built

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def found(cache: Path) -> list[Leftover]:
    """Return the leftovers that the ``cache`` knows of."""
    everything = []
    for record in sorted((cache / "work").glob("*.json")):
        with _unowned(record) as one:
            if one is not None:
                everything.append(one)
    return everything


def remove(one: Leftover) -> bool:
    """Remove a leftover and its record; say whether both are gone. What is in use again, or not ours, stays."""
    with _unowned(one.record) as still:
        if still != one or _mounted_below(one.path):
            return False
        try:
            shutil.rmtree(one.path)
            one.record.unlink()
        except OSError:
            return False
    return True


def tell(report: Reporter) -> None:
    """Say in one note that killed runs have left something, if they have."""
    number = len(found(cache_folder()))
    if number:
        folders = "a folder" if number == 1 else f"{number} folders"
        report(Note(f"Runs that were killed have left {folders}: `prebake cache prune` removes what is left."))


@contextmanager
def _unowned(record: Path) -> Iterator[Leftover | None]:
    """Hold the lock of a record whose owner no longer lives and read it; None for any other, and any not of ours.

    A record whose folder is gone is removed.
    """
    with ExitStack() as stack:
        one = None
        with contextlib.suppress(OSError, ImportError, ValueError, RecursionError):
            flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            stream = stack.enter_context(os.fdopen(os.open(record, flags), "r+b"))
            status = os.fstat(stream.fileno())
            if stat.S_ISREG(status.st_mode) and _mine(status) and _locked(stream.fileno()):
                one = _read(record, stream.read(LARGEST))
            if one is not None and one.path.parent.is_dir() and not os.path.lexists(one.path):
                record.unlink()
                one = None
        yield one if one is not None and _is_ours(one.path) else None


def _read(record: Path, data: bytes) -> Leftover | None:
    """Return what a record tells; None if it names anything but a folder that prebake could have made for it."""
    told: Any = json.loads(data)
    if not isinstance(told, dict):
        return None
    path, what, pid = (told.get(key) for key in ("path", "what", "pid"))
    if not (isinstance(path, str) and isinstance(what, str) and isinstance(pid, int) and what.isprintable()):
        return None
    name = OURS.fullmatch(os.path.basename(path))  # noqa: PTH119 - Path would put in order what is out of order
    if name is None or name["id"] != record.stem or not os.path.isabs(path) or os.path.realpath(path) != path:  # noqa: PTH117
        return None
    return Leftover(record, Path(path), what, pid)


def _is_ours(path: Path) -> bool:
    """Tell whether ``path`` is a folder of this user's, and not a link to one."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and _mine(status)


def _mine(status: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or status.st_uid == os.geteuid()


def _mounted_below(path: Path) -> bool:
    """Tell whether another file system is mounted in a folder: what is in that is nobody's to throw away."""
    try:
        rows = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        rows = []
    quoted = str(path).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    points = [row.split(" ", 5)[4] for row in rows]
    return any(point == quoted or point.startswith(f"{quoted}/") for point in points)
