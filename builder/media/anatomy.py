"""The anatomy of a hybrid ISO, proven before anything is cut.

What is accepted is the layout of Ubuntu's live-server media since 20.10: an ISO 9660 file system with Rock
Ridge, an EFI system partition directly behind it that is also the UEFI boot image of the boot catalog, and a
GPT or MBR that says so. Anything else is refused with a reason.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.errors import RemasterError
from builder.media.eltorito import Catalog, read_catalog
from builder.media.partitions import DATA_TYPES, Table, read_table
from builder.media.volume import Descriptors, Tree, read_descriptors, read_tree
from builder.media.window import BLOCK, SECTOR, sectors_for

if TYPE_CHECKING:
    from builder.media.partitions import Partition
    from builder.media.window import Read

SECTOR_BLOCKS = SECTOR // BLOCK
LARGEST_TAIL = 512 << 20
"""What may lie behind the file system: the ESP, padding and a GPT, some megabytes in all."""
NEEDS = "prebake changes Ubuntu live-server ISOs for amd64 and arm64, 22.04 and newer, as Canonical publishes them."


@dataclass(frozen=True)
class Anatomy:
    """Where everything is. ``border`` is the first sector behind the file system, where the ESP starts."""

    size: int
    table: Table
    catalog: Catalog
    trees: tuple[Tree, ...]
    border: int

    @property
    def main(self) -> Tree:
        """The Rock Ridge tree of the whole medium."""
        return self.trees[0]

    @property
    def bases(self) -> tuple[int, ...]:
        """The sectors the volumes start at: 0, and the first of partition 1 if it has trees of its own."""
        return tuple(dict.fromkeys(tree.base for tree in self.trees))


def second_base(read: Read, table: Table) -> int | None:
    """Return the first sector of the partition that is a volume by itself, None if there is none."""
    for partition in table.partitions:
        if partition.start and partition.start % SECTOR_BLOCKS == 0:
            base = partition.start // SECTOR_BLOCKS
            if read((base + 16) * SECTOR + 1, 5) == b"CD001":
                return base
    return None


def examine(read: Read, size: int) -> Anatomy:
    """Take the measure of an image of ``size`` bytes; raise RemasterError if it cannot be changed safely."""
    first = read_descriptors(read, 0)
    _refuse_isolinux(read, first)
    table = read_table(read, size)
    esp, catalog = _boot_paths(read, table, first)
    border = esp.start // SECTOR_BLOCKS
    base = second_base(read, table)
    sets = [first] + ([read_descriptors(read, base)] if base is not None else [])
    trees = tuple(tree for descriptors in sets for tree in _trees(read, descriptors))
    anatomy = Anatomy(size, table, catalog, trees, border)
    _check_borders(anatomy, sets)
    _check_agreement(anatomy)
    return anatomy


def _trees(read: Read, descriptors: Descriptors) -> list[Tree]:
    trees = [read_tree(read, descriptors.base, descriptors.primary, joliet=False)]
    if not trees[0].directories[0].records[0].has(b"SP"):
        raise RemasterError("The ISO has no Rock Ridge names, so its files would not keep theirs.", hint=NEEDS)
    if descriptors.joliet is not None:
        trees.append(read_tree(read, descriptors.base, descriptors.joliet, joliet=True))
    return trees


def _refuse_isolinux(read: Read, descriptors: Descriptors) -> None:
    tree = read_tree(read, 0, descriptors.primary, joliet=False)
    if any(path and path[0].lower() == "isolinux" for path in tree.by_path):
        raise RemasterError(
            "This ISO boots with ISOLINUX, as Ubuntu's did until 20.04; prebake cannot change such an ISO yet.",
            hint="Use 22.04 or newer.",
        )


def _boot_paths(read: Read, table: Table, descriptors: Descriptors) -> tuple[Partition, Catalog]:
    if table.kind == "none" or table.esp is None:
        raise RemasterError("The ISO has no EFI system partition in a partition table.", hint=NEEDS)
    if descriptors.boot_catalog is None:
        raise RemasterError("The ISO has no boot catalog, so no optical drive can boot from it.", hint=NEEDS)
    catalog = read_catalog(read, descriptors.boot_catalog)
    if catalog.efi is None or catalog.efi.sector * SECTOR_BLOCKS != table.esp.start:
        raise RemasterError(
            "The ISO's boot catalog and its partition table do not name the same EFI system partition.", hint=NEEDS
        )
    return table.esp, catalog


def _check_borders(anatomy: Anatomy, sets: list[Descriptors]) -> None:
    border, esp = anatomy.border * SECTOR_BLOCKS, anatomy.table.esp
    before = [partition for partition in anatomy.table.partitions if partition.start < border]
    behind = [partition for partition in anatomy.table.partitions if partition.start >= border]
    unknown = [partition for partition in (*before, *behind) if partition != esp and partition.type not in DATA_TYPES]
    file_system = [partition for partition in before if partition.end == border]
    crossing = [partition for partition in before if partition.end > border]
    if unknown or crossing or len(file_system) != 1:
        numbers = ", ".join(str(partition.number) for partition in unknown or crossing or before) or "none"
        raise RemasterError(
            f"The ISO's partitions are not the file system and the EFI system partition behind it (see: {numbers}).",
            hint=NEEDS,
        )
    if anatomy.size % SECTOR or anatomy.size - border * BLOCK > LARGEST_TAIL or anatomy.size < (esp or before[0]).end:
        raise RemasterError("The ISO's length does not agree with its partitions.", hint="Download the ISO again.")
    for tree in anatomy.trees:
        for path, record in tree.files():
            if record.length and tree.base + record.extent + sectors_for(record.length) > anatomy.border:
                raise RemasterError(f"The ISO's file `/{'/'.join(path)}` lies behind the file system.", hint=NEEDS)
    spaces = {anatomy.border - descriptors.base for descriptors in sets} | {sectors_for(anatomy.size)}
    for tree in anatomy.trees:
        if tree.descriptor.space not in spaces:
            raise RemasterError("A volume on the ISO ends neither where the ESP starts nor with the ISO.", hint=NEEDS)


def _check_agreement(anatomy: Anatomy) -> None:
    """Check that all trees show the same contents in the same places."""

    def places(tree: Tree) -> list[tuple[int, int]]:
        return sorted(
            (tree.base + record.extent, record.length)
            for _, record in tree.files()
            if record.length and not record.has(b"SL")
        )

    main = places(anatomy.main)
    for tree in anatomy.trees[1:]:
        if places(tree) != main:
            raise RemasterError(
                f"The ISO's directory trees do not show the same files (volume at sector {tree.base}).", hint=NEEDS
            )
    extents = [
        range(tree.base + directory.extent, tree.base + directory.extent + sectors_for(directory.length))
        for tree in anatomy.trees
        for directory in tree.directories
    ]
    extents += [
        range(tree.base + start, tree.base + start + sectors_for(tree.descriptor.path_table_size))
        for tree in anatomy.trees
        for start in tree.descriptor.path_tables
    ]
    extents += [range(start, start + sectors_for(length)) for start, length in set(main)]
    extents.sort(key=lambda extent: (extent.start, extent.stop))
    for one, two in itertools.pairwise(extents):
        if two.start < one.stop:
            raise RemasterError(f"Two things on the ISO lie in the same place (sector {two.start}).", hint=NEEDS)
