"""Write a changed ISO as a whole file, copying as little as the file system lets it."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
from typing import TYPE_CHECKING, BinaryIO

from builder.errors import HostError
from builder.events import Progress, silent

if TYPE_CHECKING:
    from pathlib import Path

    from builder.events import Reporter
    from builder.media.patch import Patch

CHUNK = 16 << 20
FICLONE = 0x40049409
"""The request that makes a file share another's blocks (Linux, ioctl_ficlone(2))."""
WHAT = "Writing the ISO"
NO_FAST_COPY = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.ETXTBSY})
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_iso(source: Path, patch: Patch, destination: Path, report: Reporter = silent) -> None:
    """Write the image that ``patch`` makes of ``source`` to ``destination``.

    It is written aside in the same folder and renamed when it is whole and on the disk; what was at
    ``destination`` before stays until then. Reports Progress in bytes. Raises HostError if the disk is full
    or cannot be written to, and leaves nothing behind.
    """
    aside = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}.part")
    try:
        with source.open("rb") as old, aside.open("xb") as new:
            _copy(old, new, destination, patch.size, report)
            for offset, data in patch.extents:
                new.seek(offset)
                new.write(data)
            new.truncate(patch.size)
            new.flush()
            os.fsync(new.fileno())
        aside.replace(destination)
        _sync_folder(destination.parent)
    except OSError as error:
        raise _explained(error, destination, patch.size) from error
    finally:
        aside.unlink(missing_ok=True)
    report(Progress(WHAT, patch.size, patch.size))


def _copy(old: BinaryIO, new: BinaryIO, destination: Path, size: int, report: Reporter) -> None:
    length = min(os.fstat(old.fileno()).st_size, size)
    if _cloned(old, new):
        return
    free = shutil.disk_usage(destination.parent).free
    if free < size:
        raise OSError(errno.ENOSPC, f"{free} bytes are free")
    done = 0
    fast = hasattr(os, "copy_file_range")
    while done < length:
        step = min(CHUNK, length - done)
        copied = _kernel_copy(old, new, step, done) if fast else 0
        if not copied:
            fast = False
            copied = _plain_copy(old, new, step, done)
        if not copied:
            raise OSError(errno.EIO, "the source ended early", str(destination))
        done += copied
        report(Progress(WHAT, done, size))


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
