"""The boot catalog of a bootable ISO (El Torito specification 1.0, chapter 2)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import RemasterError
from builder.media.window import SECTOR

if TYPE_CHECKING:
    from builder.media.window import Read

ENTRY = 32
BIOS, EFI = 0x00, 0xEF
BOOTABLE = 0x88
HEADERS = (0x90, 0x91)
LAST_HEADER = 0x91


@dataclass(frozen=True)
class BootImage:
    """A boot image: the platform it is for, its first sector, its length in 512-byte blocks as the catalog says.

    ``pointer`` is where the catalog keeps the first sector, as an offset in bytes in the image.
    """

    platform: int
    sector: int
    blocks: int
    pointer: int


@dataclass(frozen=True)
class Catalog:
    """A boot catalog and the sector it is in."""

    sector: int
    images: tuple[BootImage, ...]

    @property
    def efi(self) -> BootImage | None:
        """The image UEFI firmware boots, if there is exactly one."""
        found = [image for image in self.images if image.platform == EFI]
        return found[0] if len(found) == 1 else None


def read_catalog(read: Read, sector: int) -> Catalog:
    """Return the boot catalog in a sector; raise RemasterError if it is damaged."""
    data, damaged = _checked(read, sector)
    images: list[BootImage] = []
    platform, left, more = data[1], 1, True
    for offset in range(ENTRY, SECTOR, ENTRY):
        entry = data[offset : offset + ENTRY]
        if left:
            blocks, first = struct.unpack_from("<HI", entry, 6)
            if entry[0] == BOOTABLE:
                images.append(BootImage(platform, first, blocks, sector * SECTOR + offset + 8))
            elif entry[0]:
                raise RemasterError(
                    f"{damaged}: entry {offset // ENTRY} is of kind {entry[0]:#04x}; a boot image's is 0x88, or 0x00."
                )
            left -= 1
        elif entry[0] not in (0, *HEADERS):
            raise RemasterError(
                f"{damaged}: entry {offset // ENTRY} is of kind {entry[0]:#04x}; a header or the end was expected."
            )
        elif more and entry[0] in HEADERS:
            platform, left, more = entry[1], int(struct.unpack_from("<H", entry, 2)[0]), entry[0] != LAST_HEADER
        else:
            break
    if left:
        raise RemasterError(f"{damaged}: {left} more boot images are announced than one sector has room for.")
    return Catalog(sector, tuple(images))


def _checked(read: Read, sector: int) -> tuple[bytes, str]:
    """Return a catalog whose first entry is right, and how a refusal of the rest begins."""
    data = read(sector * SECTOR, SECTOR)
    damaged = f"The ISO's boot catalog in sector {sector} is damaged"
    if len(data) < SECTOR:
        raise RemasterError(f"{damaged}: it lies beyond the end of the ISO.")
    if data[:1] != b"\1" or data[30:32] != b"\x55\xaa":
        raise RemasterError(f"{damaged}: it begins with {data[:ENTRY].hex()}, and a catalog with 01 … 55aa.")
    total = sum(struct.unpack("<16H", data[:ENTRY])) & 0xFFFF
    if total:
        raise RemasterError(f"{damaged}: its checksum is wrong, the words add up to {total:#06x} and not to 0.")
    return data, damaged
