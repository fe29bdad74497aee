"""Secure Boot, enforced: firmware with Microsoft's keys, Debian's signed shim and GRUB, before and after.

A boot takes about five seconds under emulation; there are six, and one that has to be refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.bootfixture import ANSWERS, BOOTING, SIGNED, Way, boot, remastered
from tests.isofixture import Variant, medium, missing_programs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.boot,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {missing_programs()}"),
]
ENFORCED = "LOCKDOWN y SHIM y"
WAYS = (Way("secure", "cd"), Way("secure", "usb"), Way("secure", "usb", catalog=False))


def image(variant: Variant, kind: str) -> Path:
    try:
        return medium(variant) if kind == "before" else remastered(variant)
    except LookupError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("kind", ["before", "after"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_signed_programs_boot(way: Way, kind: str, tmp_path: Path) -> None:
    console = boot(image(SIGNED, kind), "amd64", way, tmp_path)
    assert "PLATFORM efi" in console
    assert ENFORCED in console
    assert (ANSWERS.decode().strip() in console) == (kind == "after")


def test_an_unsigned_program_is_refused(tmp_path: Path) -> None:
    """The check can fail: what boots without Secure Boot does not with it, and the next medium is tried."""
    console = boot(remastered(BOOTING[0]), "amd64", WAYS[0], tmp_path, otherwise=image(SIGNED, "before"))
    assert [line for line in console if line.startswith("PLATFORM")] == ["PLATFORM efi"]
    assert ENFORCED in console
    assert not any(line.startswith("KERNEL") for line in console)


def test_without_secure_boot_the_programs_say_so(tmp_path: Path) -> None:
    """So the words on the console are not those of every boot."""
    console = boot(image(SIGNED, "before"), "amd64", Way("uefi", "cd"), tmp_path)
    assert "PLATFORM efi" in console
    assert ENFORCED not in console
    assert any(line.startswith("LOCKDOWN") for line in console)
