"""A look at an image before anything boots it: whether it is one and whole, and what it claims."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder import command
from builder.errors import VerificationError
from builder.image import table
from builder.vm import disk

if TYPE_CHECKING:
    from pathlib import Path

UNCHECKABLE = 63
"""qemu-img's exit code for a format that has nothing to check."""
REASONS = (
    (
        r'Failed to get (?:shared )?"\w+" lock',
        "{name} is in use: another program writes to it.",
        "End that program, or copy what it has saved, then verify again.",
    ),
    (
        r"Could not open backing file|Could not open '(?P<other>[^']*)': (?:No such file|Permission denied)",
        "{name} is not whole: the image behind it cannot be opened. {words}",
        (
            "Put the backing image back, or have the image made whole where that is: "
            "qemu-img convert -O qcow2 IMAGE WHOLE.qcow2"
        ),
    ),
    (
        r"header too short|read header|Unable to read|Could not read",
        "{name} is truncated: not even its header is whole. {words}",
        "Copy it again, and compare its checksum.",
    ),
)
"""What qemu-img's words mean, and what helps."""
AGAIN = "Copy it again and compare its checksum; if the original is like this too, make it anew."


@dataclass(frozen=True)
class Found:
    """What an image is, what its partition table says, and how many of its clusters only waste room."""

    info: disk.Info
    table: table.Table
    leaks: int = 0


def look(image: Path) -> Found:
    """Look at the file ``image``, which is only read.

    Raises VerificationError that says why it cannot be booted at all: no image, encrypted, truncated, damaged, in use,
    without what is behind it, nothing on it to start.
    """
    try:
        chain = disk.chain(image)
    except command.CommandError as error:
        raise _refusal(image, error) from error
    if any(one.encrypted for one in chain):
        raise VerificationError(
            f"{image.name} is encrypted (LUKS): without its key nobody can boot it, and prebake takes none.",
            hint="Make an image without encryption of it: qemu-img convert, with --object secret and --image-opts.",
        )
    info = chain[0]
    leaks = _damage(image, info.format)
    try:
        found = table.parse(disk.head(image, info.format, min(table.HEAD, info.size)))
    except command.CommandError as error:
        raise VerificationError(f"{image.name} cannot be read. {_words(error)}", hint=AGAIN) from error
    if found.kind == "none" and not found.firmwares:
        raise VerificationError(
            f"{image} is no disk image that could start: it has neither a partition table nor a boot sector.",
            hint="Name a disk image, such as a qcow2; for an ISO or an archive this is the wrong command.",
        )
    if found.end > info.size:
        raise VerificationError(
            f"{image.name} is truncated: its partitions need {found.end} bytes, the disk has {info.size}.", hint=AGAIN
        )
    if not found.firmwares:
        raise VerificationError(
            f"{image.name} has nothing to start: neither boot code for a BIOS nor an EFI partition.",
            hint="Is it a data disk, or was its boot loader never installed? grub-install puts one on.",
        )
    return Found(info, found, leaks)


def _damage(image: Path, form: str) -> int:
    """Return how many clusters are leaked. Raises VerificationError for what is worse."""
    try:
        found = disk.check(image, form)
    except command.CommandError as error:
        if error.finished.returncode == UNCHECKABLE:
            return 0
        raise VerificationError(
            f"{image.name} is damaged: it cannot be checked. {_words(error)}", hint=AGAIN
        ) from error
    if found.corruptions or found.errors:
        raise VerificationError(
            f"{image.name} is damaged or truncated: `qemu-img check` counts {found.corruptions} corruptions "
            f"and {found.errors} places that cannot be read.",
            hint=AGAIN,
        )
    return found.leaks


def _refusal(image: Path, error: command.CommandError) -> VerificationError:
    words = _words(error)
    for pattern, message, hint in REASONS:
        if re.search(pattern, words):
            return VerificationError(message.format(name=image.name, words=words), hint=hint)
    return VerificationError(f"{image} is no disk image that QEMU can open. {words}", hint=AGAIN)


def _words(error: command.CommandError) -> str:
    return " ".join(error.finished.stderr.decode("utf-8", "replace").split()).removeprefix("qemu-img: ")


def manifest_beside(image: Path) -> dict[str, Any] | None:
    """Return what the manifest beside an image says of it, if prebake made both; None for any other image.

    It is the entry of the file ("name", "size", "sha256"), and under "prebake" what we add to Packer's shape.
    """
    try:
        told = json.loads((image.parent / "manifest.json").read_bytes())
        rows = [row for build in told["builds"] for row in build["files"] if row["name"] == image.name]
        return {**rows[0], "prebake": dict(told["prebake"])} if rows else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
