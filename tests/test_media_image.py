"""What an ISO is, and what is said of files that are none."""

from __future__ import annotations

import contextlib
import functools
import gzip
import os
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.command import run
from builder.errors import MediumError, RemasterError
from builder.media import image as image_module
from builder.media.image import inspect, read_file, read_files
from builder.media.menus import edited_menus
from builder.media.remaster import plan
from builder.media.window import Window
from tests.isofixture import (
    AMD64,
    AMD64_2604,
    ARM64_GPT,
    ARM64_MBR,
    GRUB_2204,
    NO_JOLIET,
    NO_SECOND_TREE,
    VARIANTS,
    Variant,
    medium,
    missing_programs,
    workshop,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {missing_programs()}")
SECTOR = 2048


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_medium_describes_itself(variant: Variant) -> None:
    found = inspect(medium(variant))
    assert found.path == medium(variant)
    assert found.size == medium(variant).stat().st_size
    assert found.volume_id == variant.volume_id
    assert found.disk_info == variant.disk_info
    assert found.version is not None
    assert found.version in variant.volume_id
    assert found.series == found.version[:5]
    assert found.arch == variant.arch
    assert found.layout.table == variant.table
    assert found.layout.joliet == variant.joliet
    assert found.layout.second_tree == variant.second_tree
    loopback = ("/boot/grub/loopback.cfg",) if variant.loopback else ()
    assert tuple(found.menus) == ("/boot/grub/grub.cfg", *loopback)


def test_versions() -> None:
    assert inspect(medium(AMD64)).version == "24.04.3"
    assert inspect(medium(AMD64_2604)).version == "26.04.1"
    assert inspect(medium(ARM64_GPT)).version == "26.04"
    assert inspect(medium(ARM64_MBR)).series == "22.04"


def test_files_are_read() -> None:
    for variant in (AMD64, NO_JOLIET, NO_SECOND_TREE):
        assert read_file(medium(variant), "/casper/install-sources.yaml") == b"- id: ubuntu-server\n"
    both = read_files(medium(AMD64), ("/.disk/info", "/boot/grub/grub.cfg"))
    assert both == {"/.disk/info": AMD64.disk_info.encode(), "/boot/grub/grub.cfg": GRUB_2204.encode()}


@pytest.mark.parametrize("name", ["/nothing", "/casper", "/casper/vmlinuz/x", "relative", "", "/ubuntu"])
def test_what_is_no_file_cannot_be_read(name: str) -> None:
    with pytest.raises(MediumError):
        read_file(medium(AMD64), name)


def test_menus_are_edited() -> None:
    menus = edited_menus(inspect(medium(AMD64)), kernel_arguments=["autoinstall"], timeout=3)
    assert list(menus) == ["/boot/grub/grub.cfg", "/boot/grub/loopback.cfg"]
    assert menus["/boot/grub/grub.cfg"].count(b"autoinstall ---") == 2
    assert b"if serial --unit=0" in menus["/boot/grub/loopback.cfg"]
    assert b"serial" not in edited_menus(inspect(medium(ARM64_GPT)), kernel_arguments=["a"])["/boot/grub/grub.cfg"]


def test_a_medium_without_menus_is_said_so(tmp_path: Path) -> None:
    image = plain_iso(tmp_path, {"casper/vmlinuz": b"x", "boot/grub/grub.cfg": b"set timeout=1\n"})
    found = inspect(image)
    assert (found.disk_info, found.version, found.arch, found.menus) == ("", None, None, {})
    assert found.layout.table == "none"
    with pytest.raises(RemasterError, match="no GRUB menu"):
        edited_menus(found, kernel_arguments=["x"])


THEME = b"# colours\nset color_normal=white/black\n".ljust(70_000, b"#")


def test_a_large_file_that_is_no_menu_is_no_hindrance(tmp_path: Path) -> None:
    files = {"casper/vmlinuz": b"x", "boot/grub/grub.cfg": GRUB_2204.encode(), "boot/grub/theme.cfg": THEME}
    assert list(inspect(plain_iso(tmp_path, {**files, "EFI/x.cfg": THEME})).menus) == ["/boot/grub/grub.cfg"]


@pytest.mark.parametrize("kernel", ["/casper/vmlinuz", "/cas'per'/vmlinuz", r"(cd)\/casper\/vmlinuz"])
def test_a_large_file_that_may_be_a_menu_is_refused(tmp_path: Path, kernel: str) -> None:
    menu = f'menuentry "x" {{\n\tlinux {kernel} ---\n}}\n'.encode().rjust(70_000, b"\n")
    image = plain_iso(tmp_path, {"casper/vmlinuz": b"x", "boot/grub/other.cfg": menu})
    with pytest.raises(
        MediumError, match=r"`/boot/grub/other.cfg` may start the installer.*70000 bytes.*65536"
    ) as caught:
        inspect(image)
    assert caught.value.hint


def test_files_that_may_be_menus_are_read_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module, "LARGEST_MENUS", 2 << 20)
    files = {f"boot/grub/{number}.cfg": THEME * 10 for number in range(4)}
    image = plain_iso(tmp_path, {"casper/vmlinuz": b"x", **files})
    with pytest.raises(MediumError, match=r"than 2 MiB, up to `/boot/grub/2.cfg` with 700000 bytes"):
        inspect(image)


def plain_iso(folder: Path, files: dict[str, bytes], *options: str) -> Path:
    for name, content in files.items():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_bytes(content)
    image = folder / "plain.iso"
    run(["xorriso", "-as", "mkisofs", "-r", "-V", "SOME VOLUME", *options, "-o", str(image), str(folder / "tree")])
    return image


def refusal(path: Path) -> str:
    with pytest.raises(MediumError) as caught:
        inspect(path)
    assert caught.value.exit_code == 5
    assert str(path) in caught.value.message
    return caught.value.message


def test_files_that_are_no_iso(tmp_path: Path) -> None:
    image = tmp_path / "x.iso"
    assert "There is no file" in refusal(image)
    assert "is a folder" in refusal(tmp_path)
    image.write_bytes(b"")
    assert "is empty" in refusal(image)
    image.write_bytes(b"\0" * 9)
    assert "only 9 bytes" in refusal(image)
    image.write_bytes(b"\0" * 90_000)
    assert "not an ISO 9660 image" in refusal(image)
    image.write_bytes(gzip.compress(b"x"))
    assert "gzip" in refusal(image)
    image.write_text("<!DOCTYPE html><title>404</title>")
    assert "web page" in refusal(image)
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "1M"])
    assert "qcow2" in refusal(image)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert "not a regular file" in refusal(fifo)


def test_an_iso_of_something_else_is_named(tmp_path: Path) -> None:
    message = refusal(plain_iso(tmp_path, {"readme": b"x"}, "-J"))
    assert "/casper" in message
    assert "`SOME VOLUME`" in message


def test_a_cut_off_iso(tmp_path: Path) -> None:
    whole = medium(AMD64).read_bytes()
    image = tmp_path / "x.iso"
    for length in (len(whole) - 1, len(whole) // 2, 40 * SECTOR):
        image.write_bytes(whole[:length])
        assert f"cut off: it has {length} bytes" in refusal(image)


def test_only_structures_are_read() -> None:
    with medium(AMD64).open("rb") as file:
        assert Window(file, budget=SECTOR).at(0, SECTOR)
        with pytest.raises(MediumError, match="do not come to an end"):
            Window(file, budget=SECTOR).at(0, SECTOR + 1)


def survives(path: Path) -> None:
    """Inspect, read and plan: whatever is wrong with the ISO is said with the errors meant for it."""
    files = {"/nocloud/user-data": b"x" * 3000, "/boot/grub/grub.cfg": b"y"}
    with contextlib.suppress(MediumError):
        inspect(path)
    with contextlib.suppress(MediumError):
        read_file(path, "/boot/grub/grub.cfg")
    with contextlib.suppress(MediumError, RemasterError):
        plan(path, files)


@functools.cache
def victim() -> tuple[Path, bytes]:
    return workshop() / "victim.iso", medium(AMD64).read_bytes()


@functools.cache
def used_bytes() -> list[int]:
    return [index for index, byte in enumerate(victim()[1][: 125 * SECTOR]) if byte]


QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@QUICK
@given(st.binary(max_size=4096), st.sampled_from([0, 32768, 32769]), st.booleans())
def test_garbage(data: bytes, offset: int, signed: bool) -> None:
    path, _ = victim()
    path.write_bytes(bytes(offset) + (b"\1CD001\1" if signed else b"") + data)
    survives(path)


@QUICK
@given(st.integers(0, 2**32), st.integers(1, 40), st.sampled_from([1, 120, 240, 540]))
def test_flipped_bits(seed: int, flips: int, sectors: int) -> None:
    path, whole = victim()
    dice = random.Random(seed)  # noqa: S311 - no secret, and the same every time
    data = bytearray(whole)
    for _ in range(flips):
        data[(dice.randrange(16 * SECTOR, (16 + sectors) * SECTOR)) % len(data)] ^= 1 << dice.randrange(8)
    path.write_bytes(data)
    survives(path)


@QUICK
@given(st.integers(0, 2**32))
def test_flipped_bits_where_there_are_some(seed: int) -> None:
    """Numbers that are set are the ones that matter: change one or two bytes that are not zero."""
    path, whole = victim()
    dice = random.Random(seed)  # noqa: S311 - no secret, and the same every time
    data = bytearray(whole)
    for index in dice.sample(used_bytes(), dice.randint(1, 2)):
        data[index] = dice.randrange(256)
    path.write_bytes(data)
    survives(path)


@QUICK
@given(st.integers(0, 535 * SECTOR), st.booleans())
def test_cut_off_or_blanked_tails(length: int, blank: bool) -> None:
    path, whole = victim()
    length = min(length, len(whole))
    path.write_bytes(whole[:length] + (bytes(len(whole) - length) if blank else b""))
    survives(path)
