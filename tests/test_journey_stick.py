"""The live system from a stick: the kernel, not only GRUB, finds the medium as partition 1, and the answers on it.

Under emulation about 50 seconds each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from builder.autoinstall.render import KERNEL_ARGUMENTS
from builder.boot import CONSOLES
from builder.command import run
from builder.events import silent
from builder.media.image import inspect
from builder.media.menus import edited_menus
from builder.media.remaster import plan, write_iso
from builder.rehearsal.build import rehearsal_iso
from builder.store import cache_folder
from builder.vm import firmware
from tests.journey import MISSING

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.boot,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
]
ANSWERS = b"""#cloud-config
autoinstall:
  version: 1
  early-commands:
    - echo "STICK $(findmnt -no SOURCE,FSTYPE /cdrom)" > /dev/ttyS0
    - cd /cdrom && md5sum --quiet -c md5sum.txt > /dev/ttyS0 2>&1 && echo "SUMS GOOD" > /dev/ttyS0
    - poweroff -f
"""


@pytest.mark.parametrize("kind", ["bios", pytest.param("uefi", marks=pytest.mark.rare)])
def test_the_live_system_starts_from_a_stick(kind: str, tmp_path: Path) -> None:
    source = rehearsal_iso(cache_folder(), silent)
    menus = edited_menus(inspect(source), kernel_arguments=[*KERNEL_ARGUMENTS, *CONSOLES["amd64"]], timeout=0)
    stick, serial = tmp_path / "stick.iso", tmp_path / "serial"
    write_iso(source, plan(source, {**menus, "/nocloud/user-data": ANSWERS, "/nocloud/meta-data": b""}), stick)
    argv = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "qemu64", "-m", "1024"]
    argv += ["-display", "none", "-no-reboot", "-monitor", "none", "-nic", "none", "-serial", f"file:{serial}"]
    if kind == "uefi":
        flash = firmware.find("amd64").fresh(tmp_path / "variables.fd")
        argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={flash.code}"]
        argv += ["-drive", f"if=pflash,format={flash.variables_format},file={flash.variables}"]
    argv += ["-device", "qemu-xhci", "-drive", f"if=none,id=stick,format=raw,snapshot=on,file={stick}"]
    run([*argv, "-device", "usb-storage,drive=stick"], timeout=500)
    console = serial.read_bytes().decode("utf-8", "replace")
    assert "STICK /dev/sda1 iso9660" in console, console[-2000:]
    assert "SUMS GOOD" in console
