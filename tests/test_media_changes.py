"""The list of changed sectors: whole, labelled, and true."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from builder.command import run
from builder.errors import MediumError, RemasterError
from builder.media.anatomy import examine
from builder.media.changes import Change, stated, totals
from builder.media.image import read_file
from builder.media.patch import Patch, changed_sectors
from builder.media.remaster import plan, write_iso
from builder.media.window import Window
from builder.vm.disk import write_overlay
from tests.isofixture import AMD64, ARM64_MBR, MANY, NO_JOLIET, VARIANTS, Variant, medium, missing_programs
from tests.test_media_again import files_for, mapped
from tests.test_media_remaster import FILES, remastered

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {missing_programs()}")
SECTOR = 2048


def different(one: Path, two: Path) -> set[int]:
    """Compare two files byte by byte, without any of the code under test; what only one has differs from zeros."""
    old, new = one.read_bytes(), two.read_bytes()
    assert len(new) % SECTOR == 0
    size = max(len(old), len(new))
    old, new = old.ljust(size, b"\0"), new.ljust(size, b"\0")
    return {at // SECTOR for at in range(0, size, SECTOR) if old[at : at + SECTOR] != new[at : at + SECTOR]}


def numbers(changes: tuple[Change, ...]) -> list[int]:
    return [number for change in changes for number in range(change.first, change.last + 1)]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_it_states_exactly_the_sectors_that_differ(variant: Variant) -> None:
    image, patch = remastered(variant)
    changes = stated(medium(variant), patch)
    listed = numbers(changes)
    assert listed == sorted(different(medium(variant), image))
    assert all(change.what and change.first <= change.last for change in changes)
    whole = image.read_bytes()
    for change in changes:
        name = change.what.removeprefix("contents of ")
        if name != change.what:
            content = read_file(image, name)
            assert whole[change.first * SECTOR :].startswith(content[: change.sectors * SECTOR])


def test_what_changes_on_a_medium_with_everything() -> None:
    changes = stated(medium(AMD64), remastered(AMD64)[1])
    by_name = {change.what: change for change in changes}
    trees = ("Rock Ridge tree", "Joliet tree", "Rock Ridge tree of partition 1", "Joliet tree of partition 1")
    for tree, sector in zip(trees, (16, 18, 32, 33), strict=True):
        assert by_name[f"volume descriptor of the {tree}"].first == sector
        assert f"directory / of the {tree}" in by_name
        assert f"directory /nocloud/deep of the {tree}" in by_name
        assert {f"path table ({order}-endian) of the {tree}" for order in ("little", "big")} <= by_name.keys()
        assert f"directory /dists of the {tree}" not in by_name
    assert by_name["protective MBR, GPT header, GPT entries"].first == 0
    assert {"boot catalog", "EFI system partition, moved", "contents of /md5sum.txt"} <= by_name.keys()
    assert changes[-1].what.endswith("backup GPT header")
    assert not any("/EFI/" in name or "vmlinuz" in name or "eltorito" in name for name in by_name)


def test_the_sector_of_an_empty_file_is_named() -> None:
    """It is where the ESP began, so it changes."""
    changes = stated(medium(AMD64), plan(medium(AMD64), {"/0": b""}))
    assert [change.sectors for change in changes if change.what == "empty sector of /0"] == [1]


def test_an_mbr_and_its_cylinders_are_named() -> None:
    names = {change.what for change in stated(medium(ARM64_MBR), remastered(ARM64_MBR)[1])}
    assert "MBR partition table" in names
    assert not any("GPT" in name for name in names)


def test_room_that_a_shorter_file_leaves_is_named() -> None:
    image, _ = remastered(NO_JOLIET)
    patch = plan(image, {**FILES, "/boot/grub/grub.cfg": b"short"})
    changes = stated(image, patch)
    assert [change.what for change in changes if "grub.cfg" in change.what] == [
        "contents of /boot/grub/grub.cfg",
        "room freed by contents of /boot/grub/grub.cfg",
    ]
    assert patch.size == image.stat().st_size
    assert "as long as it was" in totals(image.stat().st_size, patch, changes)


def test_a_medium_that_xorriso_wrote_anew(tmp_path: Path) -> None:
    """It has zeros behind its GPT; they go."""
    image, new = mapped(AMD64), tmp_path / "new.iso"
    patch = plan(image, files_for(image))
    write_iso(image, patch, new)
    changes = stated(image, patch)
    assert numbers(changes) == sorted(different(image, new))
    assert new.stat().st_size == patch.size < image.stat().st_size
    assert "shorter" in totals(image.stat().st_size, patch, changes)


def test_many_files() -> None:
    files = {f"/new/{number:03d}/file": bytes([number + 1]) * 5000 for number in range(200)}
    patch = plan(medium(MANY), files)
    changes = stated(medium(MANY), patch)
    assert sum("contents of /new/" in change.what for change in changes) == 200
    assert sum(change.what.startswith("directory /new/") for change in changes) == 800


def test_totals_are_those_of_the_list() -> None:
    image, patch = remastered(AMD64)
    changes = stated(medium(AMD64), patch)
    text = totals(medium(AMD64).stat().st_size, patch, changes)
    longer = (image.stat().st_size - medium(AMD64).stat().st_size) // SECTOR
    assert text == (
        f"{len(numbers(changes))} of {patch.size // SECTOR} sectors of 2048 bytes change, in {len(changes)} ranges; "
        f"the ISO is {longer} sectors longer ({patch.size} bytes)."
    )


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_patch_holds_what_moves_and_little_else(variant: Variant) -> None:
    """What moves is the ESP and what lies behind it; of the file system before it, a few sectors change."""
    image, patch = remastered(variant)
    with medium(variant).open("rb") as file:
        window = Window(file)
        border = examine(window.at, window.size).border
    sectors = [number for numbers in changed_sectors(patch) for number in numbers]
    assert patch.changed == len(sectors) * SECTOR
    assert sum(number < border for number in sectors) <= 50
    assert patch.changed <= image.stat().st_size - border * SECTOR + 50 * SECTOR


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
def test_the_overlay_of_a_medium_is_thin(tmp_path: Path) -> None:
    """The file systems on the medium, most of its bytes, stay where they are."""
    source = medium(Variant("roomy", extra={"casper/large.squashfs": bytes(range(256)) * (64 << 10)}))
    patch = plan(source, FILES)
    assert patch.size > 16 << 20
    write_overlay(source, patch.size, patch.extents, tmp_path / "overlay.qcow2")
    assert (tmp_path / "overlay.qcow2").stat().st_size < 8_000_000
    write_iso(source, patch, tmp_path / "whole.iso")
    run(["qemu-img", "convert", "-O", "raw", str(tmp_path / "overlay.qcow2"), str(tmp_path / "raw")])
    assert (tmp_path / "raw").read_bytes() == (tmp_path / "whole.iso").read_bytes()


def test_nothing_is_an_empty_list() -> None:
    assert stated(medium(AMD64), plan(medium(AMD64), {})) == ()


def test_a_change_nobody_can_name_is_refused(tmp_path: Path) -> None:
    size = medium(AMD64).stat().st_size
    with pytest.raises(RemasterError, match=r"Sector 20 .* cannot say what it is"):
        stated(medium(AMD64), Patch(size, ((20 * SECTOR, b"?" * SECTOR),)))
    with pytest.raises(MediumError, match="cannot be read"):
        stated(tmp_path / "none.iso", Patch(size, ()))
