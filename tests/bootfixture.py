"""Machines that boot small media until GRUB has said what it sees and halts, and media for them.

A GRUB that has no `linux` of its own takes a function of that name in its menu; so every entry says what the
kernel would get, and no kernel is needed.
"""

from __future__ import annotations

import functools
import re
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from builder.autoinstall.render import KERNEL_ARGUMENTS, SEED
from builder.command import run
from builder.errors import HostError
from builder.media.grub import edit_menu
from builder.media.image import inspect
from builder.media.menus import PORTS, edited_menus
from builder.media.remaster import plan, write_iso
from builder.media.rivals import silenced
from builder.vm import firmware
from tests.isofixture import (
    AMD64,
    AMD64_2604,
    ARM64_GPT,
    ARM64_MBR,
    GRUB_2204,
    GRUB_2604,
    GRUB_ARM64,
    NO_JOLIET,
    NO_SECOND_TREE,
    SIGHT,
    TALKING,
    Variant,
    medium,
    workshop,
)

if TYPE_CHECKING:
    from pathlib import Path

ANSWERS = b"#cloud-config, seen by GRUB\n"
ARGUMENTS = (*KERNEL_ARGUMENTS, "console=tty0")
MACHINES = {
    "amd64": ("qemu-system-x86_64", "-machine", "q35"),
    "arm64": ("qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a57"),
}
ESCAPES = re.compile(r"\x1b\[[0-9;=]*[A-Za-z]|\r")


def talking(variant: Variant, menu: str, last: str) -> Variant:
    """Return a variant that boots: a GRUB that answers on the serial port, then goes through the menu's entries."""
    console = edit_menu("", kernel_arguments=(), serial=PORTS.get(variant.arch), timeout=0)
    text = console + SIGHT + TALKING.replace("@LAST@", last) + menu.replace("timeout=30", "timeout=0")
    return replace(variant, name=f"{variant.name}-boots", grub_cfg=text, loopback=None, programs="grub")


HWE = "/casper/hwe-initrd"
BOOTING = (
    talking(AMD64, GRUB_2204, HWE),
    talking(AMD64_2604, GRUB_2604, HWE),
    talking(NO_JOLIET, GRUB_2204, HWE),
    talking(NO_SECOND_TREE, GRUB_2204, HWE),
    talking(ARM64_GPT, GRUB_ARM64, "/casper/initrd"),
    talking(ARM64_MBR, GRUB_2204, HWE),
)


SIGNED = replace(
    AMD64,
    name="signed",
    programs="signed",
    loopback=None,
    grub_cfg=SIGHT + 'echo "LOCKDOWN $lockdown SHIM $shim_lock"\nhalt\n' + GRUB_2204,
)
"""Debian's own shim and GRUB, which say whether they are under Secure Boot."""


@dataclass(frozen=True)
class Way:
    """A way to boot: the firmware ("bios", "uefi", or "secure" for UEFI that enforces Secure Boot) and the drive.

    Without ``catalog`` the medium's boot catalog is made unreadable: OVMF would boot a stick through it, and so
    hide a partition table that no other firmware can use.
    """

    firmware: str
    bus: str
    catalog: bool = True

    def __str__(self) -> str:
        return f"{self.firmware}-{self.bus}{'' if self.catalog else '-table'}"


UEFI_WAYS = (Way("uefi", "cd"), Way("uefi", "usb"), Way("uefi", "usb", catalog=False))
WAYS = {"amd64": (Way("bios", "cd"), Way("bios", "usb"), *UEFI_WAYS), "arm64": UEFI_WAYS}


def remastered(variant: Variant) -> Path:
    """Return the variant's medium with answers and kernel arguments on it, made as prebake makes it."""
    return remade(medium(variant))


@functools.cache
def remade(source: Path) -> Path:
    """Return any medium with answers and kernel arguments on it, made as prebake makes it."""
    path = workshop() / f"{source.stem}-remade.iso"
    found = inspect(source)
    files = {**silenced(found, SEED), **edited_menus(found, kernel_arguments=ARGUMENTS, timeout=0)}
    write_iso(source, plan(source, {**files, f"{SEED}/user-data": ANSWERS, f"{SEED}/meta-data": b""}), path)
    return path


def without_catalog(image: Path) -> Path:
    """Return a copy of an image whose boot catalog no firmware finds."""
    path = workshop() / f"{image.stem}-no-catalog.iso"
    if not path.exists():
        path.write_bytes(image.read_bytes().replace(b"EL TORITO SPECIFICATION", b"no el torito at all !!!", 1))
    return path


def boot(image: Path, arch: str, way: Way, folder: Path, *, otherwise: Path | None = None) -> list[str]:
    """Boot an image until GRUB halts the machine, and return the lines that came over the serial port.

    ``otherwise`` is on a CD that is tried if nothing on the image boots. Skips the test if the host has no
    emulator or firmware for it.
    """
    program, *machine = MACHINES[arch]
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    argv = [program, *machine, "-accel", "tcg", "-m", "256", "-display", "none", "-no-reboot", "-snapshot"]
    argv += ["-serial", f"file:{folder / 'serial'}", "-monitor", "none", "-nic", "none"]
    if way.firmware != "bios":
        try:
            flash = firmware.find(arch, secure_boot=way.firmware == "secure").fresh(folder / "variables")
        except HostError as error:
            pytest.skip(error.message)
        if flash.smm:
            argv += ["-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"]
        argv += ["-drive", f"if=pflash,format={flash.code_format},readonly=on,file={flash.code}"]
        argv += ["-drive", f"if=pflash,format={flash.variables_format},file={flash.variables}"]
    device = {"cd": "ide-cd" if arch == "amd64" else "scsi-cd", "usb": "usb-storage"}[way.bus]
    image = image if way.catalog else without_catalog(image)
    argv += ["-device", "qemu-xhci", "-device", "virtio-scsi-pci"]
    argv += ["-drive", f"if=none,id=first,format=raw,file={image}", "-device", f"{device},drive=first,bootindex=1"]
    if otherwise:
        argv += ["-drive", f"if=none,id=second,format=raw,media=cdrom,file={otherwise}"]
        argv += ["-device", "scsi-cd,drive=second,bootindex=2"]
    run(argv, timeout=240)
    return ESCAPES.sub("", (folder / "serial").read_bytes().decode("utf-8", "replace")).split("\n")
