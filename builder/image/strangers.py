"""The machines a finished image is proved on: none is like the one it was made in. Pure.

Few boots cover much: each has another disk, another card at another address in another slot, and, if the image claims
to start under both, another firmware.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from builder.vm.qemu import Nic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.vm.qemu import Bus

GROWN = 4 << 30
"""Bytes by which a disk is enlarged."""
LEVELS = ("quick", "full")
FIRMWARES = {"bios": "BIOS", "uefi": "UEFI"}
CARDS = {"virtio-net-pci": "virtio", "e1000": "e1000", "vmxnet3": "vmxnet3"}
MEMORY = 2048
"""MiB a stranger's machine has at most: two of them run at the same time."""


@dataclass(frozen=True)
class Stranger:
    """A machine of somebody else's, and how it differs: ``grown`` is by how many bytes its disk is larger."""

    name: str
    bus: Bus
    card: Nic | None
    firmware: str = "bios"
    grown: int = 0

    @property
    def title(self) -> str:
        """The machine in words."""
        card = "no network card" if self.card is None else f"network card {CARDS[self.card.model]}"
        disk = f"{self.bus} disk" if self.bus == "virtio" else f"{self.bus.upper()} disk"
        more = f" enlarged by {self.grown >> 30} GiB" if self.grown else ""
        return f"{disk}{more}, {card}, {FIRMWARES[self.firmware]}"


FIRST = Stranger("virtio", "virtio", Nic(mac="52:54:00:c0:ff:ee", slot=0x10))
SECOND = Stranger("sata", "sata", Nic("e1000", mac="00:1b:21:5a:7a:03", slot=0x13))
GROUPS: tuple[tuple[Stranger, ...], ...] = (
    (FIRST, Stranger("enlarged", "virtio", Nic(mac="52:54:00:0b:ad:02", slot=0x0A), grown=GROWN)),
    (SECOND,),
    (Stranger("nvme", "nvme", Nic("vmxnet3", mac="00:50:56:1e:55:04", slot=0x16)),),
    (Stranger("scsi", "scsi", None),),
)
"""All of them; those of a group run at the same time."""


def chosen(level: str, firmwares: Sequence[str]) -> tuple[tuple[Stranger, ...], ...]:
    """Return the machines of a level, "quick" or "full", group by group; ``firmwares`` is what the image starts under.

    With two of them they take turns, so that each has disks and cards of its own. There must be one at least. "quick"
    is one boot under each.
    """
    if level == "quick":
        return tuple((replace(one, firmware=each),) for one, each in zip((FIRST, SECOND), firmwares, strict=False))
    return tuple(
        tuple(replace(one, firmware=firmwares[number % len(firmwares)]) for one in group)
        for number, group in enumerate(GROUPS)
    )
