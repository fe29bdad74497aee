"""Which partitions and file systems the answers ask for: pure, sizes in bytes, a list of curtin's actions."""

from __future__ import annotations

import re
from typing import Any

Action = dict[str, Any]

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
UNITS = {"": 1, "B": 1, "K": KIB, "M": MIB, "G": GIB, "T": 1 << 40}
SMALLEST_PV = 512 * MIB


class StorageError(Exception):
    """The storage answers cannot be met; the text is the real installer's."""


def size_of(value: str | float, whole: int) -> int:
    """Return a size in bytes: a number, "512M", "10G", "50%" of ``whole``, or -1 for all that is left."""
    if isinstance(value, (int, float)):
        return int(value)
    if value.endswith("%"):
        return whole * int(value[:-1]) // 100
    match = re.fullmatch(r"(-?[\d.]+)\s*([BKMGT]?)(?:iB|B)?", value.strip())
    if match is None:
        raise StorageError(f"invalid size {value!r}")
    return int(float(match[1]) * UNITS[match[2]])


def guided(layout: Action, disk: str, disk_size: int, *, uefi: bool) -> list[Action]:
    """Turn `layout: {name: direct|lvm}` into actions; an unknown name means direct, as in the real one."""
    large = disk_size >= 25 * GIB
    esp = (1075 if large else 538 if disk_size < 12 * GIB else 952) * MIB
    boot = (2048 if large else 1792) * MIB
    actions: list[Action] = [{"id": "disk-0", "type": "disk", "path": disk, "ptable": "gpt", "grub_device": not uefi}]
    actions.append(
        {
            "id": "part-boot",
            "type": "partition",
            "device": "disk-0",
            "size": esp,
            "flag": "boot",
            "grub_device": True,
        }
        if uefi
        else {"id": "part-boot", "type": "partition", "device": "disk-0", "size": MIB, "flag": "bios_grub"}
    )
    if uefi:
        actions += _file_system("esp", "part-boot", "fat32", "/boot/efi")
    if layout.get("name", "lvm") != "lvm":
        actions.append({"id": "part-root", "type": "partition", "device": "disk-0", "size": -1})
        return actions + _file_system("root", "part-root", "ext4", "/")
    group = disk_size - 2 * MIB - (esp if uefi else MIB) - boot
    if group < SMALLEST_PV:
        raise StorageError("requested size larger than gap")
    return [
        *actions,
        {"id": "part-bootfs", "type": "partition", "device": "disk-0", "size": boot},
        *_file_system("boot", "part-bootfs", "ext4", "/boot"),
        {"id": "part-pv", "type": "partition", "device": "disk-0", "size": -1},
        {"id": "vg", "type": "lvm_volgroup", "name": "ubuntu-vg", "devices": ["part-pv"]},
        {
            "id": "lv",
            "type": "lvm_partition",
            "name": "ubuntu-lv",
            "volgroup": "vg",
            "size": _root_of(group, str(layout.get("sizing-policy", "scaled"))),
        },
        *_file_system("root", "lv", "ext4", "/"),
    ]


def _file_system(name: str, volume: str, kind: str, path: str) -> list[Action]:
    return [
        {"id": f"format-{name}", "type": "format", "volume": volume, "fstype": kind},
        {"id": f"mount-{name}", "type": "mount", "device": f"format-{name}", "path": path},
    ]


def _root_of(group: int, policy: str) -> int:
    """Return the root volume's size: all of the group, or the real installer's scaled rule (-1 means all)."""
    if policy == "all" or group < 10 * GIB:
        return -1
    if policy != "scaled":
        raise StorageError(f"{policy!r} is not a valid SizingPolicy")
    if group < 20 * GIB:
        return 10 * GIB
    return group // 2 if group < 200 * GIB else 100 * GIB


def check(actions: list[Action], *, uefi: bool) -> None:
    """Refuse what cannot boot under this firmware, as the real installer does before it touches a disk."""
    mounts = {action["path"]: action["device"] for action in actions if action["type"] == "mount"}
    volumes = {action["id"]: action["volume"] for action in actions if action["type"] == "format"}
    if "/" not in mounts:
        raise StorageError("autoinstall config did not match requirement MOUNT_ROOT: Mount a filesystem at /")
    boot = volumes.get(mounts.get("/boot/efi", ""))
    bootable = any(
        action.get("grub_device") and (action["type"] == "disk" if not uefi else action["id"] == boot)
        for action in actions
    )
    if not bootable:
        raise StorageError("autoinstall config did not match requirement SELECT_BOOT_DISK: Select a boot disk")


def partition_script(partitions: list[Action], disk_size: int) -> str:
    """Return sfdisk's input for these partition actions, in order, aligned to 1 MiB."""
    types = {"bios_grub": "21686148-6449-6E6F-744E-656564454649", "boot": "U"}
    lines = ["label: gpt"]
    for number, part in enumerate(partitions, 1):
        size = size_of(part.get("size", -1), disk_size)
        fields = [] if size < 0 else [f"size={size // 512}"]
        kind = types.get(str(part.get("flag", "")), "L")
        lines.append(f"{part.get('number', number)} : {', '.join([*fields, f'type={kind}'])}")
    return "\n".join(lines) + "\n"
