"""What was found on a medium, in a line, for refusals: what is not understood is told, never guessed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.media.eltorito import Catalog
    from builder.media.partitions import Partition, Table
    from builder.media.volume import Tree

TYPES = {
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b": "EFI system",
    "0xef": "EFI system",
    "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7": "basic data",
    "0xcd": "ISO 9660",
    "0x17": "hidden data",
    "0x83": "Linux",
    "0x00": "empty",
}
PLATFORMS = {0x00: "BIOS", 0x01: "PowerPC", 0x02: "Mac", 0xEF: "UEFI"}
MOST_SHOWN = 6


def partition_text(partition: Partition) -> str:
    """Return a partition as "2 EFI system (0xef) at block 8+8192": its number, type, first block and length."""
    kind = TYPES.get(partition.type, "unknown type")
    return f"{partition.number} {kind} ({partition.type}) at block {partition.start}+{partition.blocks}"


def table_text(table: Table) -> str:
    """Return a partition table with its partitions as text."""
    if not table.partitions:
        return "no partition table" if table.kind == "none" else f"an empty {table.kind.upper()} partition table"
    return f"a {table.kind.upper()} partition table with {_listed([partition_text(one) for one in table.partitions])}"


def catalog_text(catalog: Catalog | None) -> str:
    """Return a boot catalog with its images as text; their places are in sectors of 2048 bytes."""
    if catalog is None:
        return "no boot catalog"
    images = [
        f"{PLATFORMS.get(one.platform, f'0x{one.platform:02x}')} at sector {one.sector}" for one in catalog.images
    ]
    return f"a boot catalog in sector {catalog.sector} with {_listed(images)}"


def tree_text(tree: Tree) -> str:
    """Return what a tree is as text."""
    return f"the {'Joliet' if tree.joliet else 'Rock Ridge'} tree of the volume at sector {tree.base}"


def _listed(items: list[str]) -> str:
    shown = items[:MOST_SHOWN] + ([f"{len(items) - MOST_SHOWN} more"] if len(items) > MOST_SHOWN else [])
    return ", ".join(shown) or "nothing in it"
