"""What cannot be remastered is refused with a reason, before anything is changed."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from builder.command import run
from builder.errors import MediumError, RemasterError
from builder.media.remaster import plan
from tests.isofixture import AMD64, Variant, medium, missing_programs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {missing_programs()}")
SECTOR = 2048
FILES = {"/nocloud/user-data": b"x", "/boot/grub/grub.cfg": b"y" * 3000}


@pytest.mark.parametrize(
    "path",
    [
        "relative",
        "/",
        "/a/../b",
        "/a//b",
        "/./a",
        "/casper",
        "/ubuntu",
        "/casper/vmlinuz/x",
        "/boot.catalog",
        "/boot/grub/i386-pc/eltorito.img",
        "/new/a:b",
        "/new/" + "n" * 65,
        "/a\nb",
        "/�",
        "/ubuntu/x",
    ],
)
def test_paths_that_cannot_be(path: str) -> None:
    with pytest.raises(RemasterError):
        plan(medium(AMD64), {path: b"x"})


def test_a_file_cannot_be_a_directory_too() -> None:
    with pytest.raises(RemasterError, match="both a file and a directory"):
        plan(medium(AMD64), {"/a": b"x", "/a/b": b"y"})


def damaged(tmp_path: Path, variant: Variant, offset: int, data: bytes) -> Path:
    image = tmp_path / "damaged.iso"
    content = bytearray(medium(variant).read_bytes())
    content[offset : offset + len(data)] = data
    image.write_bytes(content)
    return image


@pytest.mark.parametrize(
    ("offset", "data", "reason"),
    [
        (512 + 72, b"\x03", "its checksum is wrong"),
        (2 * 512 + 32, b"\x41", "checksum of its entries is wrong"),
        (-512 + 16, b"\1\2\3\4", "checksum is wrong"),
        (-512, b"EFI PARK", "no GPT header"),
        (510, b"\0\0", "one EFI system partition in a partition table, but has no partition table"),
        (118 * SECTOR + 4, b"x", "boot catalog in sector 118 is damaged"),
        (118 * SECTOR + 0x60 + 8, struct.pack("<I", 240), "do not name the same EFI system partition"),
        (17 * SECTOR + 7, b"X", "unexpected kind"),
        (54 * SECTOR + 12, b"\x07", "path table"),
        (16 * SECTOR + 80, struct.pack("<I", 77) + struct.pack(">I", 77), "ends neither where"),
    ],
)
def test_what_is_not_understood_is_refused(offset: int, data: bytes, reason: str, tmp_path: Path) -> None:
    offset %= medium(AMD64).stat().st_size
    with pytest.raises(RemasterError, match=reason):
        plan(damaged(tmp_path, AMD64, offset, data), FILES)


def test_trailing_bytes_are_refused(tmp_path: Path) -> None:
    image = tmp_path / "long.iso"
    image.write_bytes(medium(AMD64).read_bytes() + bytes(SECTOR))
    with pytest.raises(RemasterError, match="two partition tables do not agree"):
        plan(image, FILES)


def test_isolinux_is_refused_with_a_reason(tmp_path: Path) -> None:
    for name in ("isolinux/isolinux.bin", "casper/vmlinuz"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True)
        (tmp_path / "tree" / name).write_bytes(bytes(4096))
    image = tmp_path / "20.04.iso"
    words = ["-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat", "-no-emul-boot", "-boot-load-size", "4"]
    run(["xorriso", "-as", "mkisofs", "-r", "-J", *words, "-o", str(image), str(tmp_path / "tree")])
    with pytest.raises(RemasterError, match="ISOLINUX") as caught:
        plan(image, FILES)
    assert caught.value.hint == "Use 22.04 or newer."


def test_missing_source(tmp_path: Path) -> None:
    with pytest.raises(MediumError, match="cannot be read"):
        plan(tmp_path / "none.iso", FILES)
