"""What an ISO is: read from its structures only, never from the gigabytes between them."""

from __future__ import annotations

import contextlib
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml

from builder.errors import MediumError, RemasterError
from builder.media.anatomy import second_base
from builder.media.collector import still
from builder.media.grub import boots_casper
from builder.media.grubscript import KERNELS
from builder.media.partitions import Partition, Table, read_table
from builder.media.reader import Survey, Volume, open_volume
from builder.media.records import read_both32
from builder.media.window import SECTOR, Window, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

DISK_INFO = "/.disk/info"
SOURCES = "/casper/install-sources.yaml"
MENU_FOLDERS = ("/boot/grub/", "/EFI/")
VERSION = re.compile(r"\b(?P<series>\d\d\.(?:04|10))(?:\.\d+)?\b")
ARCHITECTURES = ("amd64", "arm64", "i386", "ppc64el", "riscv64", "s390x")
EFI_PROGRAMS = {"bootx64.efi": "amd64", "bootaa64.efi": "arm64", "bootriscv64.efi": "riscv64", "bootia32.efi": "i386"}
LARGEST_MENU = 64 << 10
"""What a GRUB menu may have, in bytes; Ubuntu's have one or two thousand."""
LARGEST_MENUS = 16 << 20
"""What all files that may be menus may have together, in bytes."""
AGAIN = "Download the ISO again and check it against the SHA256SUMS beside it."
OTHER_KINDS = (
    (0, b"QFI\xfb", "a qcow2 disk image"),
    (0, b"KDMV", "a VMDK disk image"),
    (0, b"vhdxfile", "a VHDX disk image"),
    (0, b"conectix", "a VHD disk image"),
    (0, b"\x1f\x8b", "a gzip-compressed file"),
    (0, b"\xfd7zXZ\0", "an xz-compressed file"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd-compressed file"),
    (0, b"BZh", "a bzip2-compressed file"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"hsqs", "a squashfs file system"),
    (0, b"\x7fELF", "a program"),
    (0, b"<", "a web page or XML"),
    (0, b"d8:announce", "a torrent file"),
    (257, b"ustar", "a tar archive"),
    (512, b"EFI PART", "a disk image with a partition table"),
    (510, b"\x55\xaa", "a disk image with a boot sector"),
)
"""What people take for an ISO: offset, bytes, and what it is called."""


@dataclass(frozen=True)
class Layout:
    """How a medium is partitioned.

    ``table`` is "gpt", "mbr", "none" or "unreadable"; ``second_tree`` says whether partition 1 shows the files
    by itself; ``joliet`` whether there are Joliet trees.
    """

    table: str
    partitions: tuple[Partition, ...]
    second_tree: bool
    joliet: bool


@dataclass(frozen=True)
class Medium:
    """An Ubuntu medium: ``size`` in bytes, and what it says about itself.

    ``version`` is like "24.04.3" and ``series`` like "24.04", None where nothing says so; ``arch`` is Debian's
    name ("amd64", "arm64", …), None if unknown. ``menus`` are the GRUB menus that start the installer's kernel, by
    absolute path. ``sources`` are what its installer can install, by id, with their size in bytes (0 if it is not
    told). ``survey`` tells what all is on it.
    """

    path: Path
    size: int
    volume_id: str
    disk_info: str
    version: str | None
    series: str | None
    arch: str | None
    layout: Layout
    menus: Mapping[str, bytes] = field(repr=False)
    sources: Mapping[str, int]
    survey: Survey = field(repr=False)


@still()
def inspect(path: Path) -> Medium:
    """Return what the ISO at ``path`` is.

    Raises MediumError if it is missing, no ISO, cut off, damaged or not an Ubuntu live medium.
    """
    size = _checked_size(path)
    try:
        with path.open("rb") as file:
            window = Window(file)
            _check_kind(path, window)
            _check_length(path, window)
            with open_volume(file) as volume:
                return _describe(path, size, window, volume)
    except OSError as error:
        raise MediumError(f"`{path}` cannot be read: {error.strerror or error}.") from error


def read_file(path: Path, name: str) -> bytes:
    """Return the contents of the file ``name`` (absolute, "/casper/install-sources.yaml") on the ISO at ``path``.

    Raises MediumError if the ISO cannot be read or has no such file, or one of more than 64 MiB.
    """
    return read_files(path, (name,))[name]


def read_files(path: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Return the contents of several files of the ISO at ``path``, by name; see `read_file`."""
    _checked_size(path)
    try:
        with path.open("rb") as file:
            _check_kind(path, Window(file))
            with open_volume(file) as volume:
                return {name: volume.read(name) for name in names}
    except OSError as error:
        raise MediumError(f"`{path}` cannot be read: {error.strerror or error}.") from error


def _checked_size(path: Path) -> int:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise MediumError(f"There is no file `{path}`.", hint="Check the path of the ISO.") from None
    except (OSError, ValueError) as error:
        raise MediumError(f"`{path}` cannot be read: {error}.") from error
    if stat.S_ISDIR(status.st_mode):
        raise MediumError(f"`{path}` is a folder, not an ISO file.", hint="Name the ISO file itself.")
    if not stat.S_ISREG(status.st_mode):
        raise MediumError(f"`{path}` is not a regular file.", hint="Copy the medium to an ISO file first.")
    if not status.st_size:
        raise MediumError(f"`{path}` is empty.", hint=AGAIN)
    return status.st_size


def _check_kind(path: Path, window: Window) -> None:
    if window.at(16 * SECTOR + 1, 5) == b"CD001":
        return
    head = window.at(0, SECTOR)
    for offset, magic, kind in OTHER_KINDS:
        if head[offset : offset + len(magic)] == magic:
            raise MediumError(f"`{path}` is not an ISO image; it looks like {kind}.", hint=AGAIN)
    if window.size <= 17 * SECTOR:
        raise MediumError(f"`{path}` has only {window.size} bytes; that is too short for an ISO image.", hint=AGAIN)
    found = plain(window.at(16 * SECTOR + 1, 5).decode("latin-1"))
    raise MediumError(
        f"`{path}` is not an ISO 9660 image: it should have `CD001` in sector 16 and has `{found}` there.", hint=AGAIN
    )


def _check_length(path: Path, window: Window) -> None:
    try:
        space = read_both32(window.at(16 * SECTOR, SECTOR).ljust(SECTOR, b"\0"), 80, "the volume's size") * SECTOR
    except RemasterError as error:
        raise MediumError(f"`{path}` is damaged. {error.message}", hint=AGAIN) from error
    if window.size < space:
        raise MediumError(
            f"`{path}` is cut off: it has {window.size} bytes, but the volume on it has {space}.", hint=AGAIN
        )


def _describe(path: Path, size: int, window: Window, volume: Volume) -> Medium:
    if not volume.has_directory("/casper"):
        raise MediumError(
            f"`{path}` is no Ubuntu live medium: it has no folder /casper. Its volume id is "
            f"`{plain(volume.volume_id)}`.",
            hint="Use a live-server ISO, such as ubuntu-24.04.3-live-server-amd64.iso.",
        )
    survey = volume.survey()
    disk_info = ""
    with contextlib.suppress(MediumError):
        disk_info = volume.read(DISK_INFO).decode("utf-8", "replace").strip()
    says = f"{disk_info} {volume.volume_id}"
    match = VERSION.search(says)
    return Medium(
        path=path,
        size=size,
        volume_id=volume.volume_id,
        disk_info=disk_info,
        version=match.group() if match else None,
        series=match["series"] if match else None,
        arch=_arch(says, survey),
        layout=_layout(window, volume),
        menus=dict(_menus(volume, survey)),
        sources=_sources(volume),
        survey=survey,
    )


def _sources(volume: Volume) -> dict[str, int]:
    """Return what can be installed; nothing if the medium does not say it in the way that subiquity reads."""
    try:
        rows = yaml.safe_load(volume.read(SOURCES, most=LARGEST_MENU))
    except (MediumError, yaml.YAMLError, ValueError, RecursionError):
        return {}
    found = {}
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and isinstance(row.get("id"), str):
            size = row.get("size")
            found[row["id"]] = size if isinstance(size, int) and size > 0 else 0
    return found


def _arch(says: str, survey: Survey) -> str | None:
    for word in re.findall(r"\w+", says):
        if word in ARCHITECTURES:
            return str(word)
    for name in sorted(survey.files):
        arch = EFI_PROGRAMS.get(name.rpartition("/")[2].lower()) if name.startswith("/EFI/") else None
        if arch:
            return arch
    return None


def _menus(volume: Volume, survey: Survey) -> Iterator[tuple[str, bytes]]:
    left = LARGEST_MENUS
    entries = survey.listings[volume.views[0]]
    for folder in MENU_FOLDERS:
        for name in sorted(survey.files):
            if name.startswith(folder) and name.endswith(".cfg"):
                left -= entries[name].length
                if left < 0:
                    raise MediumError(
                        f"The ISO has more to be read for GRUB menus than {LARGEST_MENUS >> 20} MiB, up to "
                        f"`{plain(name)}` with {entries[name].length} bytes; Ubuntu's menus have some thousands.",
                        hint="Use the ISO as Canonical publishes it.",
                    )
                text = volume.read(name, most=LARGEST_MENUS)
                if len(text) > LARGEST_MENU:
                    _check_no_menu(name, text)
                elif boots_casper(text.decode("utf-8", "surrogateescape")):
                    yield name, text


def _check_no_menu(name: str, text: bytes) -> None:
    """Check that a file too large for a menu starts no kernel of the installer, for then it would have to be changed.

    That such a kernel is named in it at all, quoted or not, is enough to refuse it.
    """
    if KERNELS.encode() in text.translate(None, b"\"'\\"):
        raise MediumError(
            f"The ISO's GRUB menu `{plain(name)}` may start the installer, but it has {len(text)} bytes; at most "
            f"{LARGEST_MENU} were expected.",
            hint="Use the ISO as Canonical publishes it.",
        )


def _layout(window: Window, volume: Volume) -> Layout:
    joliet = len(volume.views) > 1
    try:
        table = read_table(window.at, window.size)
    except RemasterError:
        return Layout("unreadable", (), second_tree=False, joliet=joliet)
    return Layout(table.kind, table.partitions, _has_second_tree(window, table), joliet)


def _has_second_tree(window: Window, table: Table) -> bool:
    return second_base(window.at, table) is not None
