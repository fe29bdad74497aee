"""Boot small media on every path firmware knows, before and after.

GRUB itself answers on the serial port and halts, so no kernel is needed: about five seconds a boot on an idle
host under emulation, ten boots in all.
"""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import pytest

from builder.command import run
from builder.media.grub import SerialPort, edit_menu
from builder.media.remaster import plan, write_iso
from tests.isofixture import TOKEN_MENU, Variant, medium, missing_programs, workshop

CODE = (Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/edk2/ovmf/OVMF_CODE.fd"))
VARIABLES = (Path("/usr/share/OVMF/OVMF_VARS_4M.fd"), Path("/usr/share/edk2/ovmf/OVMF_VARS.fd"))
FIRMWARE = [(code, variables) for code, variables in zip(CODE, VARIABLES, strict=True) if code.exists()]
ANSWERS = b"#cloud-config, seen by GRUB\n"

pytestmark = [
    pytest.mark.boot,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {missing_programs()}"),
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="qemu-system-x86_64 is not installed"),
]


def menu(word: str) -> str:
    text = TOKEN_MENU.replace("@WORD@", word)
    return edit_menu(text, kernel_arguments=["ds=nocloud;s=/cdrom/nocloud/"], serial=SerialPort(), timeout=0)


BOOTING = Variant("booting", grub_cfg=menu("before"), boots=True)


@functools.cache
def image(kind: str) -> Path:
    """The medium as it was, or remastered; "-gpt" is one without a boot catalog, so that only its GPT can boot."""
    if kind == "before":
        return medium(BOOTING)
    if kind.endswith("-gpt"):
        whole = image(kind.removesuffix("-gpt")).read_bytes()
        path = workshop() / f"{kind}.iso"
        path.write_bytes(whole.replace(b"EL TORITO SPECIFICATION", b"no el torito at all !!!", 1))
        return path
    path = workshop() / f"{kind}.iso"
    files = {"/nocloud/user-data": ANSWERS, "/boot/grub/grub.cfg": menu("after").encode()}
    write_iso(medium(BOOTING), plan(medium(BOOTING), files), path)
    return path


def boot(path: Path, firmware: str, bus: str, folder: Path, *, otherwise: Path | None = None) -> str:
    """Boot an image until GRUB halts the machine, and return what came over the serial port.

    ``otherwise`` is on a CD that is tried if nothing on the image boots.
    """
    argv = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-m", "256", "-display", "none", "-no-reboot"]
    argv += ["-serial", f"file:{folder / 'serial'}", "-monitor", "none", "-nic", "none", "-snapshot"]
    if firmware == "uefi":
        if not FIRMWARE:
            pytest.skip("no OVMF firmware is installed")
        shutil.copy(FIRMWARE[0][1], folder / "variables")
        argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={FIRMWARE[0][0]}"]
        argv += ["-drive", f"if=pflash,format=raw,file={folder / 'variables'}"]
    device = "ide-cd" if bus == "cd" else "usb-storage"
    argv += ["-device", "qemu-xhci", "-drive", f"if=none,id=first,format=raw,file={path}"]
    argv += ["-device", f"{device},drive=first,bootindex=1"]
    if otherwise:
        argv += ["-drive", f"if=none,id=second,format=raw,media=cdrom,file={otherwise}"]
        argv += ["-device", "ide-cd,drive=second,bootindex=2"]
    run(argv, timeout=240)
    return (folder / "serial").read_bytes().decode("utf-8", "replace")


@pytest.mark.parametrize("kind", ["before", "after"])
@pytest.mark.parametrize(
    ("firmware", "bus", "suffix"),
    [("bios", "cd", ""), ("uefi", "cd", ""), ("bios", "usb", ""), ("uefi", "usb", ""), ("uefi", "usb", "-gpt")],
)
def test_it_boots(kind: str, firmware: str, bus: str, suffix: str, tmp_path: Path) -> None:
    console = boot(image(kind + suffix), firmware, bus, tmp_path)
    assert f"TOKEN-{kind} on {'efi' if firmware == 'uefi' else 'pc'}" in console
    assert (ANSWERS.decode().strip() in console) == (kind == "after")
    if suffix == "-gpt":
        assert f"TOKEN-{kind} on efi from (hd0,gpt2)/" in console
    if kind == "after" and bus == "usb":
        assert "SEEN from (hd0)" in console
        assert "SEEN from (hd0,gpt1)" in console


def test_without_gpt_and_catalog_a_stick_does_not_boot(tmp_path: Path) -> None:
    """The check of the GPT can fail: the firmware then goes on to the other medium."""
    path = workshop() / "neither.iso"
    whole = bytearray(image("after-gpt").read_bytes())
    whole[446:510] = bytes(64)
    whole[512 : 34 * 512] = bytes(33 * 512)
    whole[-33 * 512 :] = bytes(33 * 512)
    path.write_bytes(whole)
    console = boot(path, "uefi", "usb", tmp_path, otherwise=image("before"))
    assert "TOKEN-" in console
    assert "on efi from (cd0" in console
    assert "on efi from (hd0" not in console
