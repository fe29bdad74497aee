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
from builder.media.bounds import check_bounds
from builder.media.eltorito import Catalog, read_catalog
from builder.media.found import catalog_text, partition_text, table_text, tree_text
from builder.media.partitions import DATA_TYPES, Table, read_table
from builder.media.volume import FIRST_DESCRIPTOR, Descriptors, Tree, read_descriptors, read_tree
from builder.media.window import BLOCK, SECTOR, plain, sectors_for

if TYPE_CHECKING:
    from builder.media.partitions import Partition
    from builder.media.window import Read

SECTOR_BLOCKS = SECTOR // BLOCK
LARGEST_TAIL = 64 << 20
"""What may lie behind the file system: the ESP, padding and a GPT, some megabytes in all."""
LONGEST_JOLIET = 64
"""Characters in a Joliet name (Joliet specification, 3.2.1)."""
NOT_IN_JOLIET = frozenset('*/:;?\\"')
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


def examine(read: Read, size: int, *, bounded: bool = False) -> Anatomy:
    """Take the measure of an image of ``size`` bytes.

    ``bounded`` says that its structures are known to stay within `check_bounds`. Raises RemasterError if it cannot be
    changed safely, MediumError if its structures are larger than any medium's.
    """
    if not bounded:
        check_bounds(read, size)
    first = read_descriptors(read, 0)
    main = read_tree(read, 0, first.primary, joliet=False)
    _refuse_isolinux(main)
    table = read_table(read, size)
    esp, catalog = _boot_paths(read, table, first)
    border = esp.start // SECTOR_BLOCKS
    base = second_base(read, table)
    sets = [first]
    if base is not None:
        start = base * SECTOR
        if not bounded:
            check_bounds(lambda offset, length: read(start + offset, length), size - start)
        sets.append(read_descriptors(read, base))
    trees = [tree for descriptors in sets for tree in _trees(read, descriptors, main)]
    anatomy = Anatomy(size, table, catalog, tuple(trees), border)
    _check_borders(anatomy, sets)
    _check_agreement(anatomy, sets)
    return anatomy


def _trees(read: Read, descriptors: Descriptors, main: Tree) -> list[Tree]:
    first = descriptors.primary is main.descriptor
    trees = [main if first else read_tree(read, descriptors.base, descriptors.primary, joliet=False)]
    volume = plain(descriptors.primary.volume_id)
    if not trees[0].directories[0].records[0].has(b"SP"):
        raise RemasterError(
            f"The ISO has no Rock Ridge names, so its files would not keep theirs: the volume `{volume}` has "
            f"{'only Joliet and ' if descriptors.joliet else 'only '}plain ISO 9660 names.",
            hint=NEEDS,
        )
    if descriptors.joliet is not None:
        trees.append(read_tree(read, descriptors.base, descriptors.joliet, joliet=True))
    return trees


def _refuse_isolinux(tree: Tree) -> None:
    if any(path and path[0].lower() == "isolinux" for path in tree.by_path):
        raise RemasterError(
            "This ISO boots with ISOLINUX, as Ubuntu's did until 20.04; prebake cannot change such an ISO yet.",
            hint="Use 22.04 or newer.",
        )


def _boot_paths(read: Read, table: Table, descriptors: Descriptors) -> tuple[Partition, Catalog]:
    if table.kind == "none" or table.esp is None:
        raise RemasterError(
            f"The ISO should have one EFI system partition in a partition table, but has {table_text(table)}.",
            hint=NEEDS,
        )
    if descriptors.boot_catalog is None:
        raise RemasterError(
            f"The ISO has no boot catalog, so no optical drive can boot from it. It has {table_text(table)}.",
            hint=NEEDS,
        )
    catalog = read_catalog(read, descriptors.boot_catalog)
    if catalog.efi is None or catalog.efi.sector * SECTOR_BLOCKS != table.esp.start:
        raise RemasterError(
            "The ISO's boot catalog and its partition table do not name the same EFI system partition: it has "
            f"{catalog_text(catalog)} and {table_text(table)}; a block is a quarter of a sector.",
            hint=NEEDS,
        )
    behind = [image for image in catalog.images if image is not catalog.efi and image.sector >= catalog.efi.sector]
    if behind or catalog.sector >= catalog.efi.sector:
        raise RemasterError(
            "The ISO's boot catalog and boot images should lie before the EFI system partition, but it has "
            f"{catalog_text(catalog)}.",
            hint=NEEDS,
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
        odd = ", ".join(partition_text(partition) for partition in unknown or crossing or before) or "nothing"
        raise RemasterError(
            "The ISO's partitions are not the file system and, right behind it, the EFI system partition "
            f"({'none' if esp is None else partition_text(esp)}): there is {odd}.",
            hint=NEEDS,
        )
    end = max(partition.end for partition in anatomy.table.partitions) * BLOCK
    if anatomy.size % SECTOR or anatomy.size - border * BLOCK > LARGEST_TAIL or anatomy.size < end:
        raise RemasterError(
            f"The ISO's length of {anatomy.size} bytes does not agree with its partitions, the last of which ends at "
            f"byte {end}: expected were whole sectors and at most {LARGEST_TAIL >> 20} MiB behind the file system.",
            hint="Download the ISO again.",
        )
    for tree in anatomy.trees:
        for path, start, length in tree.contents:
            if start + sectors_for(length) > anatomy.border:
                raise RemasterError(
                    f"The ISO's file `{plain('/' + '/'.join(path))}` lies behind the file system, which ends before "
                    f"sector {anatomy.border}: {length} bytes in sector {start}.",
                    hint=NEEDS,
                )
    spaces = {anatomy.border - descriptors.base for descriptors in sets} | {sectors_for(anatomy.size)}
    for tree in anatomy.trees:
        if tree.descriptor.space not in spaces:
            raise RemasterError(
                f"A volume on the ISO ends neither where the ESP starts nor with the ISO: {tree_text(tree)} has "
                f"{tree.descriptor.space} sectors, and {' or '.join(map(str, sorted(spaces)))} were expected.",
                hint=NEEDS,
            )


def _check_agreement(anatomy: Anatomy, sets: list[Descriptors]) -> None:
    """Check that all trees show the same contents in the same places."""

    def places(tree: Tree) -> list[tuple[int, int]]:
        return sorted((start, length) for _, start, length in tree.contents)

    main = places(anatomy.main)
    named = _named(anatomy.main)
    for tree in anatomy.trees[1:]:
        other = _named(tree)
        same = {path for path, place in other.items() if named.get(path) == place}
        missing = sorted(path for path in named.keys() - same if not tree.joliet or _fits_joliet(path))
        if places(tree) != main or missing or (not tree.joliet and len(same) != len(other)):
            found = f"{len(other)} files, {len(same)} of them as {tree_text(anatomy.main)} has its {len(named)}"
            if missing:
                found = f"`{plain('/' + '/'.join(missing[0]))}` in another place, of another length or not at all"
            raise RemasterError(
                f"The ISO's directory trees do not show the same files, as they should: {tree_text(tree)} has {found}.",
                hint=NEEDS,
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
    files = {(start, sectors_for(length)) for start, length in main} | {(anatomy.catalog.sector, 1)}
    extents += [range(start, start + length) for start, length in files]
    extents += [range(one.base + FIRST_DESCRIPTOR, one.end) for one in sets]
    extents.append(range(FIRST_DESCRIPTOR))
    extents.sort(key=lambda extent: (extent.start, extent.stop))
    if extents[-1].stop > anatomy.border:
        raise RemasterError(
            f"Something on the ISO lies up to sector {extents[-1].stop}, and the file system ends before sector "
            f"{anatomy.border}.",
            hint=NEEDS,
        )
    for one, two in itertools.pairwise(extents):
        if two.start < one.stop:
            raise RemasterError(
                f"Two things on the ISO lie in the same place: sectors {one.start} to {one.stop - 1} and {two.start} "
                f"to {two.stop - 1}.",
                hint=NEEDS,
            )


def _named(tree: Tree) -> dict[tuple[str, ...], tuple[int, int]]:
    return {path: (start, length) for path, start, length in tree.contents}


def _fits_joliet(path: tuple[str, ...]) -> bool:
    """Whether a path can be the same in Joliet; xorriso shortens and replaces what cannot."""
    return not any(
        len(part) > LONGEST_JOLIET or NOT_IN_JOLIET & set(part) or not part.isprintable() or max(part) > "\uffff"
        for part in path
    )
