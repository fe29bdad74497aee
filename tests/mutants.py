"""Mutants of a small ISO: recipes of eight-byte steps, so that hypothesis and a coverage-guided fuzzer share them.

A step is a kind, a site, a place and a value. Most steps go to a field of a known structure and put there what
parsers trip over; few go anywhere. The last byte of a recipe says what is made consistent again (checksums of the
partition table and of the boot catalog), so that some mutants come deep.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import MediumError, RemasterError
from builder.media.anatomy import examine
from builder.media.image import inspect, read_file
from builder.media.proof import HINT as OWN_FAULT
from builder.media.remaster import plan
from builder.media.volume import read_descriptors
from builder.media.window import SECTOR, Window
from tests.isofixture import GRUB_2204, Variant

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from builder.media.anatomy import Anatomy
    from builder.media.patch import Patch

BLOCK = 512
STEP = 8
MOST_STEPS = 12
FILES = {"/nocloud/user-data": b"#cloud-config\n" * 9, "/boot/grub/grub.cfg": b"set timeout=1\n" * 200}
REPAIR_GPT, REPAIR_CATALOG, REPAIR_BACKUP = 1, 2, 4


@dataclass(frozen=True)
class Small(Variant):
    """A medium with little in its trees: the fewer the files, the more the mutants."""

    def tree(self) -> dict[str, bytes]:
        """Return what the ISO holds."""
        return {
            ".disk/info": self.disk_info.encode(),
            "boot/grub/grub.cfg": self.grub_cfg.encode(),
            "boot/grub/loopback.cfg": b"set timeout=9\n",
            "casper/vmlinuz": b"kernel" * 700,
            "casper/initrd": b"initrd" * 900,
            "pool/" + "long-name-" * 19 + "end": b"a name that goes on elsewhere",
            "pool/empty": b"",
        }


SMALL = Small("small")
SMALL_MBR = Small("small-mbr", arch="arm64", table="mbr", bootable_mbr=False, grub_cfg=GRUB_2204)
SMALL_PLAIN = Small("small-plain", joliet=False, second_tree=False, iso_level=3)


@dataclass(frozen=True)
class Field:
    """A number on the medium: where, how many bytes, and in which order ("little", "big" or "both")."""

    offset: int
    width: int
    order: str = "little"

    def put(self, data: bytearray, value: int) -> None:
        """Write it."""
        value &= (1 << 8 * self.width) - 1
        orders = ("little", "big") if self.order == "both" else (self.order,)
        raw = b"".join(value.to_bytes(self.width, "big" if order == "big" else "little") for order in orders)
        data[self.offset : self.offset + len(raw)] = raw


@dataclass(frozen=True)
class Template:
    """A sound ISO and what is known of it: fields by kind of structure, sectors of structures, telling numbers."""

    data: bytes
    fields: tuple[tuple[Field, ...], ...]
    sectors: tuple[int, ...]
    numbers: tuple[int, ...]
    catalog: int
    backup: int

    @classmethod
    def of(cls, path: Path, *, quick: bool = False) -> Template:
        """Take the measure of the ISO at ``path``.

        With ``quick`` its BIOS image has no boot information table; pycdlib takes longer over that table's checksum
        than over everything else on so small an ISO.
        """
        data: bytes = path.read_bytes()
        with path.open("rb") as file:
            window = Window(file)
            anatomy = examine(window.at, window.size)
            descriptors = [read_descriptors(window.at, base) for base in anatomy.bases]
        trees = [_tree_fields(anatomy, number, data) for number in range(len(anatomy.trees))]
        groups = [_volume_fields(anatomy), _table_fields(anatomy), _catalog_fields(anatomy), *trees]
        sectors = {0, 17, anatomy.catalog.sector, len(data) // SECTOR - 1}
        sectors |= {sector for one in descriptors for sector in range(one.base + 16, one.end)}
        for tree in anatomy.trees:
            sectors |= {tree.base + one.extent for one in tree.directories}
            sectors |= {tree.base + extent for extent in tree.descriptor.path_tables}
        bios = next((one.sector for one in anatomy.catalog.images if one.sector < anatomy.border), None)
        if quick and bios is not None:
            data = data[: bios * SECTOR + 8] + bytes(56) + data[bios * SECTOR + 64 :]
        total = len(data) // SECTOR
        numbers = {0, 1, 2, 16, 17, 18, 19, 32, 33, 34, total, total - 1, total + 1, anatomy.border, anatomy.border - 1}
        numbers |= {1 << power for power in (7, 8, 11, 12, 15, 16, 20, 24, 26, 31)} | {
            0x7FFFFFFF,
            0xFFFFFFFF,
            SECTOR - 1,
        }
        numbers |= {one.extent for tree in anatomy.trees for one in tree.directories}
        numbers |= {4 * anatomy.border, 4 * total, 4 * total - 1, (1 << 64) - 1, 1 << 63}
        return cls(
            data,
            tuple(tuple(group) for group in groups if group),
            tuple(sorted(sectors)),
            tuple(sorted(numbers)),
            anatomy.catalog.sector,
            len(data) // BLOCK - 1,
        )

    def mutant(self, recipe: bytes) -> bytes:
        """Return what a recipe makes of the ISO; any bytes are a recipe."""
        data, length = bytearray(self.data), len(self.data)
        for start in range(0, min(len(recipe) - STEP + 1, STEP * MOST_STEPS), STEP):
            length = self._step(data, length, struct.unpack_from("<BBHI", recipe, start))
        self._repair(data, recipe[-1] if recipe else 0)
        return bytes(data[:length])

    def _step(self, data: bytearray, length: int, step: tuple[int, ...]) -> int:
        kind, site, place, value = step
        sector = self.sectors[site % len(self.sectors)] * SECTOR
        at = sector + place % SECTOR
        if kind < 150:
            group = self.fields[site % len(self.fields)]
            number = self.numbers[value % len(self.numbers)] if kind < 110 else value
            group[place % len(group)].put(data, number + (kind % 3 - 1) * (kind % 5 == 0))
        elif kind < 180:
            data[at] ^= 1 << value % 8
        elif kind < 200:
            data[at] = value & 0xFF
        elif kind < 215:  # a piece of one structure over another
            other = self.sectors[(value >> 16) % len(self.sectors)] * SECTOR + value % SECTOR
            piece = self.data[other : other + 16 << site % 5]
            data[at : at + len(piece)] = piece
        elif kind < 230:  # bytes pushed in, or taken out
            whole = data[at : sector + SECTOR]
            shift = 1 + value % 40
            moved = bytes(shift) + whole if kind % 2 else whole[shift:]
            data[at : sector + SECTOR] = moved[: len(whole)].ljust(len(whole), b"\0")
        elif kind < 240:
            end = min(at + value % 5000, len(data))
            data[at:end] = (b"\0" if kind % 2 else b"\xff") * (end - at)
        elif kind < 250:
            data[(value ^ place << 8) % len(data)] ^= 1 << site % 8
        else:
            return (sector if kind % 2 else value % len(data)) + place % (2 * SECTOR)
        del data[len(self.data) :]
        return length

    def _repair(self, data: bytearray, what: int) -> None:
        if what & REPAIR_CATALOG:
            at = self.catalog * SECTOR
            data[at + 28 : at + 30] = b"\0\0"
            total = sum(struct.unpack_from("<16H", data, at))
            struct.pack_into("<H", data, at + 28, -total & 0xFFFF)
        if what & REPAIR_BACKUP and data[512:520] == b"EFI PART":
            (start,) = struct.unpack_from("<Q", self.data, self.backup * BLOCK + 72)
            data[start * BLOCK : self.backup * BLOCK] = data[1024 : 1024 + (self.backup - start) * BLOCK]
        for at in (BLOCK, self.backup * BLOCK) if what & REPAIR_GPT else ():
            start, count, size = struct.unpack_from("<QII", data, at + 72)
            if count * size <= 1 << 20 and start * BLOCK + count * size <= len(data):
                struct.pack_into("<I", data, at + 88, zlib.crc32(data[start * BLOCK : start * BLOCK + count * size]))
            data[at + 16 : at + 20] = bytes(4)
            struct.pack_into("<I", data, at + 16, zlib.crc32(data[at : at + 92]))


def _volume_fields(anatomy: Anatomy) -> list[Field]:
    both = ((80, 4), (120, 2), (124, 2), (128, 2), (132, 4), (158, 4), (166, 4))
    fields = [Field(17 * SECTOR + 71, 4), *(Field(number * SECTOR, 1) for number in (16, 17, 18, 19))]
    for tree in anatomy.trees:
        at = tree.descriptor.offset
        fields += [Field(at + offset, width, "both") for offset, width in both]
        fields += [Field(at + 140, 4), Field(at + 144, 4), Field(at + 148, 4, "big"), Field(at + 152, 4, "big")]
        fields += [Field(at + offset, 1) for offset in (0, 7, 88, 156, 181, 188, 881, 883 + 141)]
    return fields


def _table_fields(anatomy: Anatomy) -> list[Field]:
    fields = [Field(446 + 16 * number + offset, 4) for number in range(4) for offset in (0, 4, 8, 12)]
    fields.append(Field(510, 2))
    for at in (BLOCK, anatomy.size - BLOCK) if anatomy.table.kind == "gpt" else ():
        fields += [Field(at + offset, 4) for offset in (8, 12, 80, 84)]
        fields += [Field(at + offset, 8) for offset in (24, 32, 40, 48, 72)]
        start = anatomy.table.primary.entries_start if at == BLOCK and anatomy.table.primary else 0
        for number in range(4) if start else ():
            fields += [Field(start * BLOCK + 128 * number + offset, 8) for offset in (0, 32, 40)]
    return fields


def _catalog_fields(anatomy: Anatomy) -> list[Field]:
    at = anatomy.catalog.sector * SECTOR
    offsets = [(0, 1), (1, 1), (28, 2), (30, 2)]
    for entry in range(1, 6):
        offsets += [(32 * entry + offset, width) for offset, width in ((0, 1), (1, 1), (2, 2), (6, 2), (8, 4))]
    return [Field(at + offset, width) for offset, width in offsets]


def _tree_fields(anatomy: Anatomy, number: int, data: bytes) -> list[Field]:
    tree = anatomy.trees[number]
    fields = []
    for directory in tree.directories:
        at = (tree.base + directory.extent) * SECTOR
        end = at + directory.length
        while at < end:
            if not data[at]:
                at = (at // SECTOR + 1) * SECTOR
                continue
            fields += [Field(at + 2, 4, "both"), Field(at + 10, 4, "both"), Field(at + 28, 2, "both")]
            fields += [Field(at + offset, 1) for offset in (0, 1, 25, 26, 27, 32, 33)]
            use = at + 33 + data[at + 32] + (data[at + 32] + 1) % 2
            while use + 4 <= at + data[at] and data[use + 2] >= 4:
                fields += [Field(use, 2), Field(use + 2, 1), Field(use + 3, 1), Field(use + 4, 1)]
                if data[use : use + 2] in (b"CE", b"PX"):
                    fields += [Field(use + 4 + 8 * part, 4, "both") for part in range(3)]
                use += data[use + 2]
            at += data[at]
    little, big = ((tree.base + extent) * SECTOR for extent in tree.descriptor.path_tables)
    position = 0
    while position < tree.descriptor.path_table_size:
        for at, order in ((little, "little"), (big, "big")):
            fields += [Field(at + position, 1), Field(at + position + 2, 4, order), Field(at + position + 6, 2, order)]
        position += 8 + data[little + position] + data[little + position] % 2
    return fields


def judge(path: Path) -> tuple[str, Patch | None]:
    """Inspect, read and plan the ISO at ``path`` and return the outcome: "accepted" with a patch, or an exit code.

    Whatever is raised that is not meant for a person goes through. The messages have to be fit for a terminal, and
    none may be the proof's: what it finds should have been refused before.
    """
    _tried(lambda: inspect(path))
    _tried(lambda: read_file(path, "/boot/grub/grub.cfg"))
    try:
        return "accepted", plan(path, FILES)
    except (MediumError, RemasterError) as error:
        refused = error
    check_words(refused)
    if refused.hint == OWN_FAULT:
        raise AssertionError(refused.message)
    return str(refused.exit_code), None


def _tried(attempt: Callable[[], object]) -> None:
    try:
        attempt()
    except MediumError as error:
        check_words(error)


def check_words(error: MediumError | RemasterError) -> None:
    """Raise AssertionError if a refusal cannot be printed or says nothing."""
    if not error.message.isprintable() or not 20 < len(error.message) < 2000:
        raise AssertionError(ascii(error.message))


def applied(source: bytes, patch: Patch) -> bytes:
    """Return the image that a patch makes."""
    data = bytearray(source[: patch.size].ljust(patch.size, b"\0"))
    for offset, piece in patch.extents:
        data[offset : offset + len(piece)] = piece
    return bytes(data)
