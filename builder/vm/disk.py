"""Disk images, by qemu-img and qemu-io.

QEMU reads a colon in a relative file name as the end of a protocol's name, and a leading dash is an option to
its programs. An absolute path has neither in its first place, so every path here is made absolute first; after
that a name may hold anything but a zero byte.

Sizes and offsets are in bytes throughout.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from builder import command
from builder.events import Progress, silent
from builder.leftovers import scratch
from builder.size import SECTOR

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from builder.events import Reporter

WRITES_AT_ONCE = 200
"""How many extents one start of qemu-io writes: far below any limit on arguments."""

Compression = Literal["zstd", "zlib"]
"""How a qcow2's clusters are packed: zstd is faster and smaller, zlib is what QEMU before 5.1 and others read too."""
COMPRESSIONS: tuple[Compression, ...] = get_args(Compression)

PERCENT = re.compile(rb"\(\s*(\d+(?:\.\d+)?)/100%\)")
"""How ``qemu-img -p`` says how far it is."""


@dataclass(frozen=True)
class Info:
    """What an image is: ``size`` the guest sees, ``allocated`` is what it takes on the host.

    ``encrypted`` is an image that gives its content only to who has a key.
    """

    format: str
    size: int
    allocated: int
    backing: str | None = None
    backing_format: str | None = None
    compression: str | None = None
    encrypted: bool = False


@dataclass(frozen=True)
class Check:
    """What is wrong inside an image: ``corruptions`` lose data, ``leaks`` only waste room."""

    corruptions: int
    leaks: int
    errors: int

    @property
    def clean(self) -> bool:
        """Whether nothing at all is wrong."""
        return not (self.corruptions or self.leaks or self.errors)


def create(path: Path, size: int | None, backing: Path | None = None, backing_format: str | None = None) -> None:
    """Make a qcow2 image of ``size`` at ``path``, replacing what is there.

    With ``backing`` it starts with that image's content; ``backing_format`` is then needed, and a ``size`` of
    None takes that image's. The backing image is named by its absolute path.

    Raises ValueError if the arguments do not fit together and CommandError if qemu-img fails.
    """
    if (backing is None) != (backing_format is None) or (backing is None and size is None):
        raise ValueError("an image needs a size, or a backing image and its format")
    argv = ["qemu-img", "create", "-q", "-f", "qcow2"]
    if backing is not None and backing_format is not None:
        argv += ["-b", _absolute(backing), "-F", backing_format]
    argv.append(_absolute(path))
    if size is not None:
        argv.append(str(size))
    command.run(argv)


def write_overlay(source: Path, size: int, extents: Sequence[tuple[int, bytes]], destination: Path) -> None:
    """Make at ``destination`` a thin qcow2 that reads as ``source`` with ``extents`` written over it.

    ``source`` is raw (an ISO) and stays the backing image, by its absolute path; ``size`` is what the guest
    sees, a multiple of 512, smaller or larger than the source; each extent is an offset and its bytes, a later
    one wins where two overlap. What neither the source nor an extent covers reads as zero.

    Raises ValueError if ``size`` or an extent does not fit and CommandError if QEMU's tools fail.
    """
    if size <= 0 or size % SECTOR:
        raise ValueError(f"{size} bytes are no whole number of sectors")
    merged = coalesce(extents)
    if merged and (merged[0][0] < 0 or merged[-1][0] + len(merged[-1][1]) > size):
        raise ValueError(f"an extent lies outside the {size} bytes of the overlay")
    create(destination, size, source, "raw")
    for start in range(0, len(merged), WRITES_AT_ONCE):
        with ExitStack() as lent:
            # qemu-io splits its commands at spaces and knows no quotes, so the data lie in files called by numbers
            # in its working folder.
            folder = lent.enter_context(scratch(Path(tempfile.gettempdir()), "prebake-", "what an overlay holds"))
            argv = ["qemu-io", "-f", "qcow2", "-t", "unsafe"]
            for number, (offset, data) in enumerate(merged[start : start + WRITES_AT_ONCE]):
                _lend(data, folder / str(number), lent)
                argv += ["-c", f"write -q -s {number} {offset} {len(data)}"]
            argv.append(_absolute(destination))
            done = command.run(argv, cwd=folder)
            if b"failed" in done.stdout + done.stderr:  # older versions of qemu-io end with 0 all the same
                raise command.CommandError(done)


def _lend(data: bytes, path: Path, lent: ExitStack) -> None:
    """Let programs read ``data`` at ``path`` until ``lent`` ends: on Linux from memory, not written to a disk twice."""
    descriptors = Path(f"/proc/{os.getpid()}/fd")
    if sys.platform == "linux" and descriptors.is_dir():
        file = lent.enter_context(os.fdopen(os.memfd_create(path.name), "wb"))
        file.write(data)
        file.flush()
        path.symlink_to(descriptors / str(file.fileno()))
    else:
        path.write_bytes(data)


def coalesce(extents: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Return the same bytes as extents in order that neither touch nor overlap; later ones win. Pure."""
    pieces: list[tuple[int, bytes]] = []
    for offset, data in extents:
        if data:
            pieces = [*_without(pieces, offset, offset + len(data)), (offset, bytes(data))]
    merged: list[tuple[int, bytearray]] = []
    for offset, data in sorted(pieces):
        if merged and merged[-1][0] + len(merged[-1][1]) == offset:
            merged[-1][1].extend(data)
        else:
            merged.append((offset, bytearray(data)))
    return [(offset, bytes(data)) for offset, data in merged]


def _without(pieces: Sequence[tuple[int, bytes]], start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield what of ``pieces`` lies outside ``start`` to ``end``."""
    for offset, data in pieces:
        if offset < start:
            yield offset, data[: start - offset]
        if offset + len(data) > end:
            yield max(offset, end), data[max(end - offset, 0) :]


def info(path: Path, *, share: bool = False) -> Info:
    """Return what the image at ``path`` is; ``share`` reads it even while a machine uses it.

    Raises CommandError if it is no image.
    """
    argv = ["qemu-img", "info", "--output=json", *(["-U"] if share else []), _absolute(path)]
    return _told(json.loads(command.run(argv).stdout))


def chain(path: Path) -> list[Info]:
    """Return what the image at ``path`` is, and after it each image behind it, which all have to be there.

    Raises CommandError if one of them is no image, is missing, or is being written by another program.
    """
    argv = ["qemu-img", "info", "--backing-chain", "--output=json", _absolute(path)]
    return [_told(one) for one in json.loads(command.run(argv).stdout)]


def _told(told: dict[str, Any]) -> Info:
    special = told.get("format-specific", {}).get("data", {})
    return Info(
        format=told["format"],
        size=told["virtual-size"],
        allocated=told["actual-size"],
        backing=told.get("full-backing-filename", told.get("backing-filename")),
        backing_format=told.get("backing-filename-format"),
        compression=special.get("compression-type"),
        encrypted=bool(told.get("encrypted")) or told["format"] == "luks",
    )


def check(path: Path, form: str = "qcow2") -> Check:
    """Look for damage inside the image at ``path``. Raises CommandError if it cannot be checked at all."""
    # qemu-img's exit codes: 2 for corruption, 3 for leaks, both of which the output counts.
    done = command.run(["qemu-img", "check", "--output=json", "-f", form, _absolute(path)], ok=(0, 2, 3))
    told = json.loads(done.stdout)
    return Check(told.get("corruptions", 0), told.get("leaks", 0), told.get("check-errors", 0))


def head(path: Path, form: str, size: int) -> bytes:
    """Return the first ``size`` bytes of the guest's disk, or all of a smaller one.

    Raises CommandError if they cannot be read.
    """
    with scratch(Path(tempfile.gettempdir()), "prebake-", "the start of a disk") as folder:
        out = folder / "head"
        argv = ["qemu-img", "dd", "-f", form, "-O", "raw", "bs=512", f"count={-(-size // SECTOR)}"]
        command.run([*argv, f"if={_absolute(path)}", f"of={out}"])
        return out.read_bytes()


def convert(
    source: Path,
    destination: Path,
    *,
    source_format: str = "qcow2",
    form: str = "qcow2",
    compression: Compression | None = None,
    options: Sequence[str] = (),
    report: Reporter = silent,
) -> None:
    """Copy the content of one image, backing images and all, into a new one without a backing image.

    ``options`` are creation options of the format, such as "subformat=dynamic". Reports progress in bytes of
    the guest's disk. A copy that fails leaves nothing at ``destination``.

    Raises CommandError if qemu-img fails.
    """
    chosen = [*options]
    argv = ["qemu-img", "convert", "-p", "-f", source_format, "-O", form]
    if compression is not None:
        argv.append("-c")
        if form == "qcow2":
            chosen.append(f"compression_type={compression}")
    for option in chosen:
        argv += ["-o", option]
    argv += [_absolute(source), _absolute(destination)]
    total = info(source).size
    try:
        _with_progress(argv, f"Writing {destination.name}", total, report)
    except BaseException:
        destination.unlink(missing_ok=True)
        raise


def _with_progress(argv: Sequence[str], what: str, total: int, report: Reporter) -> None:
    with tempfile.TemporaryFile() as errors:
        with command.spawn(argv, stdout=subprocess.PIPE, stderr=errors) as process:
            try:
                for percent in _percents(process):
                    report(Progress(what, int(total * percent / 100), total))
            except BaseException:
                process.kill()
                raise
        errors.seek(0)
        words = errors.read()
    if process.returncode != 0:
        raise command.failure(command.Finished(tuple(argv), process.returncode, b"", words))


def _percents(process: subprocess.Popen[bytes]) -> Iterator[float]:
    if process.stdout is None:
        return
    pending = b""
    while data := os.read(process.stdout.fileno(), 4096):
        pending += data
        for match in PERCENT.finditer(pending):
            yield float(match[1])
        pending = pending.rpartition(b")")[2]


def _absolute(path: Path) -> str:
    return str(path.absolute())
