"""Boot small media of every layout on every path firmware knows, before and after.

GRUB itself answers on the serial port and halts, so no kernel is needed: two to five seconds a boot under
emulation, seven for arm64, 58 boots in all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests import isofixture
from tests.bootfixture import (
    ANSWERS,
    ARGUMENTS,
    BOOTING,
    HWE,
    WAYS,
    Way,
    boot,
    remade,
    remastered,
    talking,
    without_catalog,
)
from tests.isofixture import GRUB_2204, Variant, medium, missing_programs, workshop
from tests.test_media_again import mapped

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.boot,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {missing_programs()}"),
]
AMD64 = BOOTING[0]
CASES = [
    pytest.param(variant, way, kind, id=f"{variant.name.removesuffix('-boots')}-{way}-{kind}")
    for variant in BOOTING
    for way in WAYS[variant.arch]
    for kind in ("before", "after")
]


def image(variant: Variant, kind: str) -> Path:
    try:
        return medium(variant) if kind == "before" else remastered(variant)
    except LookupError as error:
        pytest.skip(str(error))


def entries(console: list[str]) -> dict[str, list[str]]:
    """Return the kernels that the menu's entries would load, and the words each would get."""
    found: dict[str, list[str]] = {}
    words: list[str] = []
    for line in console:
        if line.startswith("KERNEL "):
            words = found.setdefault(line.removeprefix("KERNEL "), [])
        elif line.startswith("[") and line.endswith("]"):
            words.append(line[1:-1])
    return found


@pytest.mark.parametrize(("variant", "way", "kind"), CASES)
def test_it_boots_and_every_entry_has_the_arguments(variant: Variant, way: Way, kind: str, tmp_path: Path) -> None:
    console = boot(image(variant, kind), variant.arch, way, tmp_path)
    assert f"PLATFORM {'pc' if way.firmware == 'bios' else 'efi'}" in console
    assert (ANSWERS.decode().strip() in console) == (kind == "after")
    if not way.catalog:
        (origin,) = {line for line in console if line.startswith("FROM ")}
        assert origin.startswith(("FROM (hd0,gpt2)/", "FROM (hd0,msdos2)/"))
    if kind == "after" and way.bus == "usb":
        taken_for_cd = variant.table == "mbr" and way.catalog  # EDK2 looks for a catalog before an MBR
        assert f"SEEN from ({'cd0' if taken_for_cd else 'hd0'})" in console
        assert ("SEEN from (hd0,1)" in console) == (variant.second_tree and not taken_for_cd)
    hwe = ["/casper/hwe-vmlinuz"] if "hwe-vmlinuz" in variant.grub_cfg else []
    booted = entries(console)
    assert list(booted) == ["/casper/vmlinuz", *hwe]
    rest = variant.grub_cfg.partition("---  console=tty0")[1].split()
    for kernel, words in booted.items():
        assert words == [kernel, *(ARGUMENTS if kind == "after" else ()), *(rest or ["---"])]


THEIRS = ("ds=nocloud;s=/cdrom/server/", "ds=nocloud")
"""What the kernel gets from the two entries below: of the second GRUB drops what is behind the semicolon."""
FOREIGN = talking(
    replace(isofixture.AMD64, name="foreign"),
    GRUB_2204.replace("/casper/vmlinuz  ---", r"/casper/vmlinuz autoinstall ds=nocloud\;s=/cdrom/server/ ---").replace(
        "/casper/hwe-vmlinuz  ---", "/casper/hwe-vmlinuz autoinstall ds=nocloud;s=/cdrom/server/ ---"
    ),
    HWE,
)


def test_a_medium_somebody_else_remastered_boots_with_our_answers_alone(tmp_path: Path) -> None:
    """GRUB itself says which words the kernel gets, before and after xorriso and prebake; four boots."""
    source = mapped(FOREIGN)
    before = entries(boot(source, "amd64", Way("bios", "cd"), tmp_path))
    assert [words[1:3] for words in before.values()] == [["autoinstall", seed] for seed in THEIRS]
    for way in (Way("uefi", "cd"), Way("bios", "usb"), Way("uefi", "usb", catalog=False)):
        console = boot(remade(source), "amd64", way, tmp_path)
        assert ANSWERS.decode().strip() in console
        after = entries(console)
        assert list(after) == ["/casper/vmlinuz", "/casper/hwe-vmlinuz"]
        assert [words[1:] for words in after.values()] == [[*ARGUMENTS, "---"]] * 2


def test_without_table_and_catalog_a_stick_does_not_boot(tmp_path: Path) -> None:
    """The check of the partition table can fail: the firmware then goes on to the other medium."""
    path = workshop() / "neither.iso"
    whole = bytearray(without_catalog(remastered(AMD64)).read_bytes())
    whole[446:510] = bytes(64)
    whole[512 : 34 * 512] = bytes(33 * 512)
    whole[-33 * 512 :] = bytes(33 * 512)
    path.write_bytes(whole)
    console = boot(path, "amd64", Way("uefi", "usb"), tmp_path, otherwise=medium(AMD64))
    origins = {line for line in console if line.startswith("FROM ")}
    assert origins
    assert all(line.startswith("FROM (cd0") for line in origins)
