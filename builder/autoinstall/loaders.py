"""One disk that starts under BIOS and under UEFI, whichever of them the installer runs under. Pure.

The installer sets up the boot loader of the firmware that it runs under and no other. So the disk gets room for both:
a BIOS boot partition, and an EFI system partition whose removable path (EFI/BOOT) every UEFI firmware starts without
any variable, as on Ubuntu's own cloud images. The other loader's packages come from the medium's pool, which is
reachable only while the installer works, and a late-command puts the loader on the disk.

Sources: subiquity's models/storage.py (needs_bootloader_partition: under BIOS a *disk* with ``grub_device``, under UEFI
the *partition* at /boot/efi) and curtin's commands/curthooks.py (setup_grub: under BIOS, every action with
``grub_device`` gets grub-install, so the partition must have none there); tried with the real installer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builder.autoinstall.storage import DISK

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB = 1 << 20
ESP = 512 * MIB
BOOT = 1792 * MIB
"""The size of /boot beside LVM, which is the installer's own."""
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "bios": ("grub-pc-bin",),
    "uefi": ("grub-efi-amd64-bin", "grub-efi-amd64-signed", "shim-signed"),
}
"""What each loader takes. grub-pc and grub-efi-amd64 exclude each other, these do not."""
_UEFI = "curtin in-target -- grub-install --target=x86_64-efi --efi-directory=/boot/efi --no-nvram --recheck"
INSTALL: Mapping[str, tuple[str, ...]] = {
    "bios": (f"curtin in-target -- grub-install --target=i386-pc --recheck {DISK}",),
    "uefi": (_UEFI, f"{_UEFI} --removable"),
}
"""How each is put on. A signed GRUB looks for its menu in the distributor's own folder, some also beside itself."""
OTHER: Mapping[str, str] = {"bios": "uefi", "uefi": "bios"}

Action = dict[str, Any]


def layout(storage: str, firmware: str) -> list[Action]:
    """Return the storage actions of the layout "direct" or "lvm" for an installer that runs under ``firmware``."""
    esp: Action = {**_partition("esp", 2, ESP), "flag": "boot"}
    if firmware == "uefi":
        esp["grub_device"] = True
    actions: list[Action] = [
        {
            "id": "disk",
            "type": "disk",
            "path": DISK,
            "ptable": "gpt",
            "wipe": "superblock-recursive",
            "preserve": False,
            "grub_device": True,
        },
        {**_partition("bios", 1, MIB), "flag": "bios_grub"},
        esp,
        *_file_system("esp", "esp", "fat32", "/boot/efi"),
    ]
    if storage == "direct":
        actions.append(_partition("root", 3, -1))
        root = "root"
    else:
        actions += [
            _partition("boot", 3, BOOT),
            *_file_system("boot", "boot", "ext4", "/boot"),
            _partition("pv", 4, -1),
            {"id": "vg", "type": "lvm_volgroup", "name": "ubuntu-vg", "devices": ["pv"], "preserve": False},
            {
                "id": "lv",
                "type": "lvm_partition",
                "name": "ubuntu-lv",
                "volgroup": "vg",
                "size": -1,
                "preserve": False,
            },
        ]
        root = "lv"
    return [*actions, *_file_system("root", root, "ext4", "/")]


def _partition(name: str, number: int, size: int) -> Action:
    """Return a partition; of the last one ``size`` is -1, which is all that is left (bytes otherwise)."""
    return {"id": name, "type": "partition", "device": "disk", "number": number, "size": size, "preserve": False}


def _file_system(name: str, volume: str, kind: str, path: str) -> list[Action]:
    return [
        {"id": f"{name}-format", "type": "format", "volume": volume, "fstype": kind},
        {"id": f"{name}-mount", "type": "mount", "device": f"{name}-format", "path": path},
    ]


def with_other(inner: Mapping[str, Any], firmware: str) -> dict[str, Any]:
    """Return answers that also set up the loader of the firmware that the installer does not run under.

    It comes before the late-commands that are there.
    """
    other = OTHER[firmware]
    return {
        **inner,
        "packages": [*inner.get("packages", []), *PACKAGES[other]],
        "late-commands": [*INSTALL[other], *inner.get("late-commands", [])],
    }
