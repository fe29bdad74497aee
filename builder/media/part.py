"""The file an ISO is written to until it is whole, and what a killed run leaves of one.

A part is locked as long as somebody writes it, and a lock ends with its process, however that ends. So a part that
is not locked is nobody's. Where a file system has no locks, or the system none of this kind, parts stay.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def part_of(destination: Path) -> Iterator[Path]:
    """Make an empty file beside ``destination``, its own and locked, and remove it at the end if it is still there."""
    handle, path = _made(destination)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _made(destination: Path) -> tuple[int | None, Path]:
    while True:
        path = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}.part")
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        locked = _locked(handle)
        if locked and os.fstat(handle).st_nlink:
            return handle, path
        os.close(handle)
        if locked is None:
            return None, path
        path.unlink(missing_ok=True)  # somebody has taken it for a remainder before it was locked


def remove_remains(destination: Path) -> None:
    """Remove what killed runs have left of ``destination``, its parts that nobody writes, as far as that can be."""
    name = re.compile(re.escape(f".{destination.name}.") + r"[0-9a-f]{8}\.part")
    found: list[Path] = []
    with contextlib.suppress(OSError):
        found += [path for path in destination.parent.iterdir() if name.fullmatch(path.name)]
    for path in found:
        with contextlib.suppress(OSError):
            if stat.S_ISREG(path.lstat().st_mode):
                _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        if _locked(handle):
            path.unlink()
    finally:
        os.close(handle)


def _locked(handle: int) -> bool | None:
    """Lock an open file and say whether it is locked now: False if somebody else has it, None if that cannot be."""
    if os.name != "posix":
        return None
    import fcntl  # noqa: PLC0415 - not on Windows

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in {errno.EWOULDBLOCK, errno.EACCES} else None
    return True
