"""Write a changed ISO as a whole file, copying as little as the file system lets it."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from builder.errors import HostError
from builder.events import Progress, silent
from builder.media.part import part_of, remove_remains

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from typing_extensions import Self

    from builder.events import Reporter
    from builder.media.patch import Patch

CHUNK = 16 << 20
FLUSHED = 128 << 20
"""After how many bytes more a file is brought to the disk."""
FICLONE = 0x40049409
"""The request that makes a file share another's blocks (Linux, ioctl_ficlone(2))."""
WHAT = "Writing the ISO"
NO_FAST_COPY = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.ETXTBSY})
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_iso(source: Path, patch: Patch | Callable[[], Patch], destination: Path, report: Reporter = silent) -> None:
    """Write the image that ``patch`` makes of ``source`` to ``destination``.

    ``patch`` may be a function that returns it: it is called in a thread of its own while the source is copied, and
    what it raises ends the copying and is raised. The image is written aside in the same folder and renamed when it
    is whole and on the disk; what was at ``destination`` before stays until then, and what a killed run has left
    aside goes first. Reports Progress in bytes. Raises HostError if the disk is full or cannot be written to, and
    leaves nothing behind.
    """
    size = 0
    try:
        remove_remains(destination)
        with part_of(destination) as aside:
            with source.open("rb") as old, aside.open("r+b") as new, ThreadPoolExecutor(1) as pool:
                size = os.fstat(old.fileno()).st_size if callable(patch) else patch.size
                made = pool.submit(patch if callable(patch) else lambda: patch)
                _copy(old, new, size, report, made)
                size = made.result().size
                for offset, data in made.result().extents:
                    new.seek(offset)
                    new.write(data)
                new.truncate(size)
                new.flush()
                os.fsync(new.fileno())
            aside.replace(destination)
        _sync_folder(destination.parent)
    except OSError as error:
        raise _explained(error, destination, size) from error
    report(Progress(WHAT, size, size))


def _copy(old: BinaryIO, new: BinaryIO, size: int, report: Reporter, awaited: Future[Patch]) -> None:
    """Copy ``size`` bytes, fewer if the source has fewer; raise what ``awaited`` raises as soon as it does."""
    length = min(os.fstat(old.fileno()).st_size, size)
    if _cloned(old, new):
        return
    free = shutil.disk_usage(Path(new.name).parent).free
    if free < size:
        raise OSError(errno.ENOSPC, f"{free} bytes are free")
    done = 0
    fast = hasattr(os, "copy_file_range")
    with _Flusher(new.fileno()) as flusher:
        while done < length:
            if awaited.done():
                awaited.result()
            step = min(CHUNK, length - done)
            copied = _kernel_copy(old, new, step, done) if fast else 0
            if not copied:
                fast = False
                copied = _plain_copy(old, new, step, done)
            if not copied:
                raise OSError(errno.EIO, "the source ended early")
            done += copied
            flusher.add(copied)
            report(Progress(WHAT, done, size))


class _Flusher:
    """Brings a file to the disk while more of it is being written, so that less is left for the end.

    A failure is raised at the latest when it ends: the kernel tells a file's writer of it only once.
    """

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._waiting = 0
        self._wanted = threading.Event()
        self._over = False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="flush", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def add(self, length: int) -> None:
        """Say that ``length`` bytes more were written."""
        self._waiting += length
        if self._error:
            raise self._error
        if self._waiting >= FLUSHED:
            self._waiting = 0
            self._wanted.set()

    def _run(self) -> None:
        while self._wanted.wait() and not self._over:
            self._wanted.clear()
            try:
                os.fsync(self._handle)
            except OSError as error:
                self._error = error
                return

    def __exit__(self, kind: object, *_: object) -> None:
        self._over = True
        self._wanted.set()
        self._thread.join()
        if self._error and kind is None:
            raise self._error


def _cloned(old: BinaryIO, new: BinaryIO) -> bool:
    """Make ``new`` share the blocks of ``old`` if the file system can, and say whether it did."""
    if sys.platform != "linux":
        return False
    import fcntl  # noqa: PLC0415 - not on every platform

    try:
        fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
    except OSError:
        return False
    return True


def _kernel_copy(old: BinaryIO, new: BinaryIO, length: int, at: int) -> int:
    if sys.platform != "linux":
        return 0
    try:
        return os.copy_file_range(old.fileno(), new.fileno(), length, at, at)
    except OSError as error:
        if error.errno in NO_FAST_COPY:
            return 0
        raise


def _plain_copy(old: BinaryIO, new: BinaryIO, length: int, at: int) -> int:
    old.seek(at)
    new.seek(at)
    return new.write(old.read(length))


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explained(error: OSError, destination: Path, size: int) -> HostError:
    if error.errno in FULL:
        return HostError(
            f"There is not enough room for the ISO in `{destination.parent}`: it takes {size / 1e9:.1f} GB.",
            hint="Free some space or choose another output folder.",
        )
    return HostError(f"The ISO `{destination}` could not be written: {error}.")
