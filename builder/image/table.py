"""What a disk's first sectors say: under which firmware it claims to start, and how large it has to be. Pure.

Sources: UEFI specification 2.10, chapter 5 (GPT, the protective MBR); for the types of partitions GRUB's manual on
BIOS installation, and the Discoverable Partitions Specification.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from uuid import UUID

from builder.size import SECTOR

HEAD = 1 << 20
"""How many bytes from a disk's start are looked at: both tables lie in far less."""
CODE = 440
"""Bytes of boot code in a master boot record; the disk's signature and the table follow."""
PROTECTIVE = 0xEE
MBR_ESP = 0xEF
ESP = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
BIOS_BOOT = UUID("21686148-6449-6e6f-744e-656564454649")
LEGACY = 1 << 2
"""The attribute of a partition that a BIOS's boot code starts (syslinux)."""
LARGEST_TABLE = 1024
SMALLEST_ENTRY = 128
FLAGS = (0x00, 0x80)


@dataclass(frozen=True)
class Table:
    """``kind`` is "gpt", "mbr" or "none"; ``firmwares`` are what the disk claims to start under, "bios", "uefi".

    ``end`` is how many bytes the disk has to have for all of its partitions; 0 if it has none.
    """

    kind: str
    firmwares: tuple[str, ...]
    end: int = 0


def parse(head: bytes) -> Table:
    """Return what the first bytes of a disk, at best `HEAD` of them, say."""
    record = head[:SECTOR].ljust(SECTOR, b"\0")
    signed = record[510:] == b"\x55\xaa"
    code = signed and any(record[:CODE])
    rows = [struct.unpack_from("<B3xB3xII", record, 446 + 16 * number) for number in range(4)]
    if not signed or any(row[0] not in FLAGS for row in rows):
        rows = []  # a disk without partitions: what stands there is code
    if any(row[1] == PROTECTIVE for row in rows) or not rows:
        found = _gpt(head, code=code)
        if found is not None:
            return found
    used = [row for row in rows if row[1] not in {0, PROTECTIVE}]
    esp = any(row[1] == MBR_ESP for row in used)
    end = max((first + count for _, _, first, count in used), default=0) * SECTOR
    return Table("mbr" if used else "none", _names(bios=code, uefi=esp), end)


def _gpt(head: bytes, *, code: bool) -> Table | None:
    header = head[SECTOR : 2 * SECTOR]
    if len(header) < SECTOR or header[:8] != b"EFI PART":
        return None
    other, first, count, size = struct.unpack_from("<32xQ32xQII", header)
    if count > LARGEST_TABLE or size < SMALLEST_ENTRY:
        return None
    kinds: dict[UUID, int] = {}
    for number in range(count):
        entry = head[first * SECTOR + number * size :][:size]
        if len(entry) == size and any(entry[:16]):
            kind = UUID(bytes_le=entry[:16])
            kinds[kind] = kinds.get(kind, 0) | int(struct.unpack_from("<Q", entry, 48)[0])
    started = BIOS_BOOT in kinds or any(attributes & LEGACY for attributes in kinds.values())
    return Table("gpt", _names(bios=code and started, uefi=ESP in kinds), (other + 1) * SECTOR)


def _names(*, bios: bool, uefi: bool) -> tuple[str, ...]:
    return (*(["bios"] if bios else []), *(["uefi"] if uefi else []))
