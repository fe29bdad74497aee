"""The partition table of a hybrid ISO: a GPT with its backup and protective MBR, or an MBR alone.

Source: UEFI specification 2.10, chapter 5 (GPT, MBR); the layouts are those xorriso writes.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import RemasterError
from builder.media.window import BLOCK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.media.window import Read

GPT_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
MBR_ENTRY = struct.Struct("<B3sB3sII")
MBR_TABLE = 446
PROTECTIVE = 0xEE
ESP_TYPES = ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "0xef")
DATA_TYPES = ("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "0xcd", "0x17", "0x83", "0x00")
"""Basic data, what xorriso calls an ISO 9660 partition and its gaps in a GPT, and its MBR types for it."""
FIRST_VOLUME = 64
"""The block of the first volume descriptor; what is before is free for partition tables (ECMA-119, 6.2.1)."""
LAST_CYLINDER = 1023
SECTORS_32 = 0xFFFFFFFF


@dataclass(frozen=True)
class Partition:
    """A partition: its number from 1, first 512-byte block, length in blocks, and type (GUID, or MBR type in hex)."""

    number: int
    start: int
    blocks: int
    type: str

    @property
    def end(self) -> int:
        """The first block behind it."""
        return self.start + self.blocks


@dataclass(frozen=True)
class Gpt:
    """One copy of a GPT: the header's block as bytes, its fields and the array of entries."""

    raw: bytes
    fields: tuple[int | bytes, ...]
    entries: bytes

    @property
    def shared(self) -> tuple[int | bytes, ...]:
        """What both copies have in common: revision, blocks for partitions, disk GUID, count and size of entries."""
        return (*self.fields[1:3], *self.fields[7:10], *self.fields[11:])

    def number(self, index: int) -> int:
        """Return a numeric field of the header."""
        value = self.fields[index]
        return value if isinstance(value, int) else 0

    @property
    def alternate(self) -> int:
        """The block of the other copy's header."""
        return self.number(6)

    @property
    def entries_start(self) -> int:
        """The first block of the array of entries."""
        return self.number(10)

    @property
    def entry_size(self) -> int:
        """The length of one entry in bytes."""
        return self.number(12)


@dataclass(frozen=True)
class Table:
    """What a medium's partition table says."""

    kind: str
    """"gpt", "mbr" or "none"."""
    mbr: bytes
    partitions: tuple[Partition, ...]
    primary: Gpt | None = None
    backup: Gpt | None = None

    @property
    def esp(self) -> Partition | None:
        """The EFI system partition, None without one or with several."""
        found = [partition for partition in self.partitions if partition.type in ESP_TYPES]
        return found[0] if len(found) == 1 else None


def mbr_entries(mbr: bytes) -> list[tuple[int, bytes, int, bytes, int, int]]:
    """Return the four entries: status, first CHS, type, last CHS, first block, length in blocks."""
    entries = [MBR_ENTRY.unpack_from(mbr, MBR_TABLE + 16 * index) for index in range(4)]
    return [(int(a), bytes(b), int(c), bytes(d), int(e), int(f)) for a, b, c, d, e, f in entries]


def read_table(read: Read, size: int) -> Table:
    """Read the partition table of an image of ``size`` bytes.

    Raises RemasterError if there is a GPT whose checksums are wrong or whose two copies do not agree.
    """
    mbr = read(0, BLOCK)
    blocks = size // BLOCK
    if len(mbr) < BLOCK or mbr[510:512] != b"\x55\xaa":
        return Table("none", mbr, ())
    used = [entry for entry in mbr_entries(mbr) if entry[5]]
    if not any(entry[2] == PROTECTIVE for entry in used):
        partitions = tuple(
            Partition(number, entry[4], entry[5], f"0x{entry[2]:02x}")
            for number, entry in enumerate(mbr_entries(mbr), 1)
            if entry[5]
        )
        return Table("mbr" if partitions else "none", mbr, partitions)
    primary = _read_gpt(read, 1, blocks)
    if size % BLOCK or primary.alternate != blocks - 1:
        raise RemasterError(
            f"The ISO's two partition tables do not agree: the second should be in block {blocks - 1}, the end of the "
            f"file, and the first names block {primary.alternate}.",
            hint="Something was cut off or added at the end of the ISO. Download it again.",
        )
    backup = _read_gpt(read, primary.alternate, blocks)
    if backup.alternate != 1 or primary.shared != backup.shared or primary.entries != backup.entries:
        raise RemasterError(
            "The ISO's two partition tables do not agree: the second should be a copy of the first, and names block "
            f"{backup.alternate} as the other's.",
            hint="The ISO is damaged. Download it again.",
        )
    protective = [entry[4] for entry in used if entry[2] == PROTECTIVE]
    if protective != [1]:
        raise RemasterError(
            f"The ISO's MBR protects its GPT from blocks {protective} on; expected was one entry, from block 1 on."
        )
    return Table("gpt", mbr, _gpt_partitions(primary, blocks), primary, backup)


def _read_gpt(read: Read, block: int, blocks: int) -> Gpt:
    raw = read(block * BLOCK, BLOCK)
    damaged = f"The ISO's partition table in block {block} is damaged"
    if len(raw) < BLOCK or raw[:8] != b"EFI PART":
        raise RemasterError(f"{damaged}: it has no GPT header, and begins with {raw[:8].hex() or 'nothing'}.")
    fields = GPT_HEADER.unpack_from(raw)
    length, checksum, here = fields[2], fields[3], fields[5]
    if not GPT_HEADER.size <= length <= BLOCK or here != block:
        raise RemasterError(f"{damaged}: its header says that it has {length} bytes and is in block {here}.")
    if zlib.crc32(raw[:16] + bytes(4) + raw[20:length]) != checksum:
        raise RemasterError(f"{damaged}: its checksum is wrong; it says {checksum:#010x}.")
    start, count, entry_size, entries_checksum = fields[10:14]
    if not (128 <= entry_size <= BLOCK and count * entry_size <= 1 << 20):  # noqa: PLR2004 - the least UEFI allows
        raise RemasterError(f"{damaged}: it has {count} entries of {entry_size} bytes.")
    taken = -(-count * entry_size // BLOCK)
    lowest, highest = (block + 1, FIRST_VOLUME) if block == 1 else (fields[8] + 1, block)
    if not lowest <= start <= highest - taken:
        raise RemasterError(
            f"{damaged}: its {count} entries are in block {start}; they should be right behind the first header, or "
            "right before the second."
        )
    if not fields[7] <= fields[8] < blocks:
        raise RemasterError(
            f"{damaged}: blocks {fields[7]} to {fields[8]} are for partitions, and the ISO has {blocks} blocks."
        )
    entries = read(start * BLOCK, count * entry_size)
    if zlib.crc32(entries) != entries_checksum:
        raise RemasterError(f"{damaged}: the checksum of its entries is wrong.")
    return Gpt(raw, fields, entries)


def _gpt_partitions(gpt: Gpt, blocks: int) -> tuple[Partition, ...]:
    partitions = []
    for index in range(len(gpt.entries) // gpt.entry_size):
        entry = gpt.entries[index * gpt.entry_size :][: gpt.entry_size]
        if any(entry[:16]):
            first, last = struct.unpack_from("<QQ", entry, 32)
            kind = str(uuid.UUID(bytes_le=entry[:16]))
            if not 0 < first <= last < blocks:
                raise RemasterError(
                    f"The ISO's partition {index + 1} ({kind}) goes from block {first} to {last}, and the ISO has "
                    f"{blocks} blocks.",
                    hint="The ISO is damaged. Download it again.",
                )
            partitions.append(Partition(index + 1, int(first), int(last - first + 1), kind))
    return tuple(partitions)


def grown(table: Table, border: int, blocks: int) -> list[tuple[int, bytes]]:
    """Return the pieces (offset in bytes, bytes) that the table becomes when room is made.

    ``blocks`` blocks are added before the block ``border``: what ends there grows, what starts there or later
    moves. Partition types, names and GUIDs, the boot code and the disk's signature stay.
    """
    if table.primary is None or table.backup is None:
        return [(0, _grown_mbr(table, border, blocks))]
    entries = bytearray(table.primary.entries)
    size = table.primary.entry_size
    for partition in table.partitions:
        first = partition.start + (blocks if partition.start >= border else 0)
        last = partition.end + (blocks if partition.end >= border else 0) - 1
        struct.pack_into("<QQ", entries, (partition.number - 1) * size + 32, first, last)
    end = table.primary.alternate + blocks
    return [
        (0, _grown_mbr(table, border, blocks)),
        (BLOCK, _sealed(table.primary, bytes(entries), blocks, here=1, other=end, start=table.primary.entries_start)),
        (table.primary.entries_start * BLOCK, bytes(entries)),
        ((table.backup.entries_start + blocks) * BLOCK, bytes(entries)),
        (
            end * BLOCK,
            _sealed(table.backup, bytes(entries), blocks, here=end, other=1, start=table.backup.entries_start + blocks),
        ),
    ]


def _sealed(gpt: Gpt, entries: bytes, blocks: int, *, here: int, other: int, start: int) -> bytes:
    fields: list[int | bytes] = list(gpt.fields)
    fields[3] = 0
    fields[5], fields[6], fields[8], fields[10] = here, other, gpt.number(8) + blocks, start
    fields[13] = zlib.crc32(entries)
    length = gpt.number(2)
    fields[3] = zlib.crc32(GPT_HEADER.pack(*fields) + gpt.raw[GPT_HEADER.size : length])
    return GPT_HEADER.pack(*fields) + gpt.raw[GPT_HEADER.size :]


def _grown_mbr(table: Table, border: int, blocks: int) -> bytes:
    mbr = bytearray(table.mbr)
    geometry = find_geometry(mbr_entries(table.mbr))
    for index, (status, first_chs, kind, last_chs, start, length) in enumerate(mbr_entries(table.mbr)):
        whole_disk = kind == PROTECTIVE
        if not length or (start + length < border and not whole_disk) or (table.kind == "gpt" and not whole_disk):
            continue
        moved = start + (blocks if start >= border else 0)
        end = min(start + length + blocks, SECTORS_32)
        first = first_chs if moved == start else _chs(moved, geometry)
        last = last_chs if _saturated(last_chs) else _chs(end - 1, geometry)
        entry = MBR_ENTRY.pack(status, first, kind, last, moved, end - moved)
        mbr[MBR_TABLE + 16 * index : MBR_TABLE + 16 * (index + 1)] = entry
    return bytes(mbr)


def find_geometry(entries: Sequence[tuple[int, bytes, int, bytes, int, int]]) -> tuple[int, int] | None:
    """Return the heads per cylinder and sectors per head that the CHS addresses of MBR entries were made with.

    None if no usual geometry fits all of them.
    """
    known = [(first, start) for _, first, _, _, start, length in entries if length]
    known += [(last, start + length - 1) for _, _, _, last, start, length in entries if length]
    candidates = [(64, 32), (255, 63), *((heads, sectors) for sectors in (32, 63) for heads in range(1, 256))]
    for geometry in candidates:
        if all(_saturated(chs) or _chs(block, geometry) == chs for chs, block in known):
            return geometry
    return None


def _saturated(chs: bytes) -> bool:
    return chs[2] | (chs[1] & 0xC0) << 2 == LAST_CYLINDER


def _chs(block: int, geometry: tuple[int, int] | None) -> bytes:
    heads, sectors = geometry or (255, 63)
    cylinder, rest = divmod(block, heads * sectors)
    head, sector = divmod(rest, sectors)
    if geometry is None or cylinder > LAST_CYLINDER:
        cylinder, head, sector = LAST_CYLINDER, heads - 1, sectors - 1
    return bytes([head, (sector + 1) | cylinder >> 8 << 6, cylinder & 0xFF])
