"""Remastering small media of every layout, with xorriso, mtools and the partition tools as oracles."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
import shutil
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.command import run
from builder.media.anatomy import examine
from builder.media.image import inspect, read_file
from builder.media.partitions import Table, find_geometry, grown, mbr_entries, read_table
from builder.media.patch import Canvas, Patch, changed_sectors
from builder.media.reader import open_volume
from builder.media.remaster import plan, write_iso
from builder.media.window import Window
from tests.isofixture import (
    AMD64,
    ARM64_MBR,
    GRUB_2204,
    MANY,
    NO_JOLIET,
    VARIANTS,
    Variant,
    extract,
    medium,
    missing_programs,
    report,
    workshop,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {missing_programs()}")
SECTOR = 2048
FILES = {
    "/nocloud/user-data": b"#cloud-config\nautoinstall: {version: 1}\n" * 90,
    "/nocloud/meta-data": b"",
    "/nocloud/deep/er/Some File.TXT": b"deep",
    "/boot/grub/grub.cfg": GRUB_2204.replace("---", "autoinstall ---").encode() * 4,
    "/casper/autoinstall.yaml": b"in a directory that is there\n",
}
each_variant = pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)


@functools.cache
def remastered(variant: Variant) -> tuple[Path, Patch]:
    patch = plan(medium(variant), FILES)
    image = workshop() / f"{variant.name}-remastered.iso"
    write_iso(medium(variant), patch, image)
    return image, patch


def tree(folder: Path) -> dict[str, bytes | str]:
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = "/" + str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


@functools.cache
def original(variant: Variant) -> dict[str, bytes | str]:
    return tree(extract(medium(variant), workshop() / f"{variant.name}-extracted"))


def without_places(catalog: bytes | str | None) -> bytes:
    """A boot catalog without the places of its images, the one thing in it that may change."""
    assert isinstance(catalog, bytes)
    return catalog[:40] + catalog[44:104] + catalog[108:]


def partition_view(image: Path, folder: Path) -> Path:
    """Cut partition 1's view out of an image, as a kernel that mounts /dev/sda1 sees it."""
    view = folder / "view.iso"
    with image.open("rb") as source, view.open("wb") as target:
        source.seek(16 * SECTOR)
        shutil.copyfileobj(source, target)
    return view


def listed(files: Mapping[str, bytes | str]) -> set[str]:
    """Return the paths of which the md5sum.txt among ``files`` has sums."""
    sums = files["/md5sum.txt"]
    assert isinstance(sums, bytes)
    return {line.split("  .")[1] for line in sums.decode().splitlines()}


def check_tree(before: dict[str, bytes | str], after: dict[str, bytes | str], files: dict[str, bytes]) -> None:
    sums = after["/md5sum.txt"]
    assert before.keys() | files.keys() == after.keys()
    for name, content in after.items():
        if name in {"/boot.catalog", "/boot/boot.cat"}:
            assert without_places(content) == without_places(before[name])
        elif name != "/md5sum.txt":
            assert content == files.get(name, before.get(name)), name
    assert isinstance(sums, bytes)
    lines = [line.split("  .") for line in sums.decode().splitlines()]
    assert len({name for _, name in lines}) == len(lines)
    assert {name for _, name in lines} == listed(before) | (files.keys() - before.keys())
    for checksum, name in lines:
        content = after[name]
        assert isinstance(content, bytes)
        assert hashlib.md5(content, usedforsecurity=False).hexdigest() == checksum, name


@each_variant
def test_xorriso_sees_the_whole_tree(variant: Variant, tmp_path: Path) -> None:
    image, _ = remastered(variant)
    before = original(variant)
    after = tree(extract(image, tmp_path / "after"))
    check_tree(before, after, FILES)
    if variant.joliet:
        joliet = tree(extract(image, tmp_path / "joliet", joliet=True))
        plain = {name: content for name, content in after.items() if not isinstance(content, str)}
        assert len(joliet) == len(plain)  # Joliet has no symlinks
        assert joliet.items() >= {name: content for name, content in plain.items() if name in FILES}.items()
    if variant.second_tree:
        view = partition_view(image, tmp_path)
        assert tree(extract(view, tmp_path / "view")) == after
        if variant.joliet:
            assert tree(extract(view, tmp_path / "joliet-view", joliet=True)) == joliet


@each_variant
def test_md5sum_program_agrees(variant: Variant, tmp_path: Path) -> None:
    folder = extract(remastered(variant)[0], tmp_path / "tree")
    run(["md5sum", "--check", "--strict", "--quiet", "md5sum.txt"], cwd=folder)


NUMBERS = re.compile(r"\d+")
MOVED = ("ISO image size", "MBR partition ", "GPT lba range", "GPT start and size", "El Torito boot img")


@each_variant
def test_xorriso_reports_only_moved_numbers(variant: Variant) -> None:
    image, patch = remastered(variant)
    blocks = (patch.size - medium(variant).stat().st_size) // 512
    old, new = report(medium(variant)), report(image)
    assert len(old) == len(new)
    assert blocks % 4 == 0
    for one, two in zip(old, new, strict=True):
        if one == two:
            continue
        assert one.startswith(MOVED), one
        assert NUMBERS.sub("", one).split() == NUMBERS.sub("", two).split()
        pairs = zip(NUMBERS.findall(one), NUMBERS.findall(two), strict=True)
        assert {int(b) - int(a) for a, b in pairs} <= {0, blocks, blocks // 4}, (one, two)


@each_variant
def test_boot_images_keep_their_bytes_and_places(variant: Variant, tmp_path: Path) -> None:
    image, _ = remastered(variant)
    esps = []
    for path in (medium(variant), image):
        with path.open("rb") as file:
            window = Window(file)
            anatomy = examine(window.at, window.size)
            assert anatomy.table.esp
            esps.append(window.at(anatomy.table.esp.start * 512, anatomy.table.esp.blocks * 512))
            assert anatomy.catalog.efi
            assert anatomy.catalog.efi.sector * 4 == anatomy.table.esp.start
    assert esps[0] == esps[1]
    (tmp_path / "esp").write_bytes(esps[1])
    assert b"ubuntu" not in run(["mdir", "-i", str(tmp_path / "esp"), "::EFI/boot"]).stdout
    with medium(variant).open("rb") as old, image.open("rb") as new:
        with open_volume(old) as one, open_volume(new) as two:
            before, after = one.listing(), two.listing()
        moved = {name for name in before if before[name].extent != after[name].extent}
        assert not {name for name in moved if name.startswith(("/EFI", "/casper/")) or name.endswith(".img")}
        assert old.read(446) == new.read(446)


@each_variant
def test_a_patch_is_the_whole_difference(variant: Variant) -> None:
    image, patch = remastered(variant)
    source, result = medium(variant).read_bytes(), image.read_bytes()
    expected = bytearray(source.ljust(patch.size, b"\0"))
    for offset, data in patch.extents:
        expected[offset : offset + len(data)] = data
    assert result == bytes(expected)
    assert len(result) == patch.size
    different = {
        number
        for number in range(patch.size // SECTOR)
        if source[number * SECTOR : (number + 1) * SECTOR].ljust(SECTOR, b"\0")
        != result[number * SECTOR : (number + 1) * SECTOR]
    }
    assert {number for numbers in changed_sectors(patch) for number in numbers} == different
    ends = [0]
    for offset, data in patch.extents:
        assert offset >= ends[-1]
        ends.append(offset + len(data))


@each_variant
def test_the_same_input_gives_the_same_bytes(variant: Variant) -> None:
    assert plan(medium(variant), dict(reversed(FILES.items()))) == remastered(variant)[1]


@each_variant
def test_a_second_round_with_the_same_answers_changes_nothing(variant: Variant) -> None:
    image, patch = remastered(variant)
    assert plan(image, FILES) == Patch(patch.size, ())


@each_variant
def test_answers_of_a_second_round_replace_those_of_the_first(variant: Variant, tmp_path: Path) -> None:
    image, patch = remastered(variant)
    other = {**FILES, "/nocloud/user-data": b"short", "/boot/grub/grub.cfg": b"set timeout=1\n"}
    second = plan(image, other)
    assert second.size == patch.size
    assert second.changed < 16 * SECTOR
    write_iso(image, second, tmp_path / "second.iso")
    check_tree(original(variant), tree(extract(tmp_path / "second.iso", tmp_path / "again")), other)
    longer = {**other, "/nocloud/user-data": b"long" * 9000, "/nocloud/vendor-data": b"v"}
    third = plan(tmp_path / "second.iso", longer)
    assert third.size > second.size
    write_iso(tmp_path / "second.iso", third, tmp_path / "third.iso")
    before = original(variant)
    check_tree(before, tree(extract(tmp_path / "third.iso", tmp_path / "after")), longer)
    assert inspect(tmp_path / "third.iso").volume_id == variant.volume_id


def test_partition_tools_accept_the_gpt() -> None:
    if not shutil.which("sfdisk", path="/usr/sbin:/sbin:/usr/bin"):
        pytest.skip("sfdisk is not installed")
    image, patch = remastered(AMD64)
    table = json.loads(run(["sfdisk", "--json", str(image)]).stdout)["partitiontable"]
    assert table["label"] == "gpt"
    assert table["lastlba"] == patch.size // 512 - 64
    assert b"No errors" in run(["sfdisk", "--verify", str(image)]).stdout


@each_variant
def test_blkid_sees_the_same_volumes(variant: Variant) -> None:
    """Of the whole medium and of partition 1: label, UUID (made of the modification date) and partition table."""
    if not shutil.which("blkid", path="/usr/sbin:/sbin:/usr/bin"):
        pytest.skip("blkid is not installed")
    for offset in (0, *([16 * SECTOR] if variant.second_tree else [])):
        argv = ["blkid", "-p", "-o", "export", "-O", str(offset)]
        one, two = (run([*argv, str(path)]).stdout for path in (medium(variant), remastered(variant)[0]))
        assert one.split(b"\n")[1:] == two.split(b"\n")[1:]
        assert f"LABEL={variant.volume_id}".replace(" ", "\\ ").encode() in one
        assert b"\nUUID=20" in one


NUMBERS_IN_A_DESCRIPTOR = (range(80, 88), range(132, 144), range(148, 152), range(158, 174))
"""Volume size, path tables, place and length of the root (ECMA-119, 8.4)."""


@each_variant
def test_volume_descriptors_change_in_numbers_only(variant: Variant) -> None:
    """Names, dates and everything else stay, in every set of descriptors; the terminators and boot record too."""
    free = {number for numbers in NUMBERS_IN_A_DESCRIPTOR for number in numbers}
    images = [path.read_bytes() for path in (medium(variant), remastered(variant)[0])]
    kinds = []
    for base in (0, 16) if variant.second_tree else (0,):
        for sector in range(base + 16, base + 32):
            one, two = (image[sector * SECTOR : (sector + 1) * SECTOR] for image in images)
            if one[1:6] != b"CD001":
                break
            kinds.append(one[0])
            different = {at for at, pair in enumerate(zip(one, two, strict=True)) if pair[0] != pair[1]}
            assert different <= (free if one[0] in {1, 2} else set())
    assert kinds.count(1) == (2 if variant.second_tree else 1)
    assert kinds.count(2) == (kinds.count(1) if variant.joliet else 0)


def test_many_files_and_crowded_directories(tmp_path: Path) -> None:
    files = {
        f"/many/new-{number:03d}-{'n' * (number % 30)}.txt": bytes([number % 256]) * (number * 7)
        for number in range(250)
    }
    files |= {f"/pool/many/added {number}": b"a" for number in range(40)}
    files |= {f"/dirs/{number}/x": b"" for number in range(120)}
    files |= {f"/pool/dir07/{'d/' * depth}f": b"f" for depth in range(9)}
    files |= {"/pool/tricky/B": b"B", "/pool/tricky/~": b"~", "/big": bytes(range(256)) * 9000, "/.hidden": b"h"}
    patch = plan(medium(MANY), files)
    write_iso(medium(MANY), patch, tmp_path / "x.iso")
    before = original(MANY)
    check_tree(before, tree(extract(tmp_path / "x.iso", tmp_path / "after")), files)
    joliet = tree(extract(tmp_path / "x.iso", tmp_path / "joliet", joliet=True))
    assert joliet.items() >= files.items()
    view = partition_view(tmp_path / "x.iso", tmp_path)
    check_tree(before, tree(extract(view, tmp_path / "view")), files)
    assert plan(tmp_path / "x.iso", files) == Patch(patch.size, ())


def test_modes_and_owners_are_those_of_the_neighbours(tmp_path: Path) -> None:
    image, _ = remastered(NO_JOLIET)
    argv = ["xorriso", "-indev", str(image), "-find", "/", "-exec", "lsdl"]
    lines = run(argv).stdout.decode().splitlines()
    found = {line.split("'")[1]: line.split()[0] for line in lines}
    assert found["/nocloud"] == found["/casper"]
    assert found["/nocloud/user-data"] == found["/casper/vmlinuz"]
    assert tmp_path.is_dir()


def test_nothing_to_do_is_an_empty_patch() -> None:
    assert plan(medium(AMD64), {}) == Patch(medium(AMD64).stat().st_size, ())
    content = read_file(medium(AMD64), "/.disk/info")
    assert not plan(medium(AMD64), {"/.disk/info": content}).extents


def test_arm64_partitions_stay_on_cylinders() -> None:
    image, patch = remastered(ARM64_MBR)
    with image.open("rb") as file:
        window = Window(file)
        table = read_table(window.at, window.size)
    assert all(partition.end % 2048 == 0 for partition in table.partitions)
    assert find_geometry(mbr_entries(table.mbr)) == (64, 32)
    assert patch.changed < 100 * SECTOR


def test_addresses_beyond_the_last_cylinder_stay_at_the_limit() -> None:
    mbr = bytearray(512)
    mbr[446:462] = struct.pack("<B3sB3sII", 0, b"\x02\1\0", 0xCD, b"\x3f\xe0\xff", 64, 3_000_000)
    mbr[462:478] = struct.pack("<B3sB3sII", 0, b"\x3f\xe0\xff", 0xEF, b"\x3f\xe0\xff", 3_000_064, 9000)
    (piece,) = grown(Table("mbr", bytes(mbr), ()), 3_000_064, 8)
    entries = mbr_entries(piece[1])
    assert entries[0] == (0, b"\x02\1\0", 0xCD, b"\x3f\xe0\xff", 64, 3_000_008)
    assert entries[1] == (0, b"\x3f\xe0\xff", 0xEF, b"\x3f\xe0\xff", 3_000_072, 9000)


@settings(deadline=None)
@given(st.binary(max_size=9000), st.lists(st.tuples(st.integers(0, 9000), st.binary(max_size=5000)), max_size=6))
def test_a_canvas_is_what_was_written_over_the_source(source: bytes, writes: list[tuple[int, bytes]]) -> None:
    canvas = Canvas(lambda offset, length: source[offset : offset + length])
    size = 8 * SECTOR
    expected = bytearray(source.ljust(size, b"\0"))
    for offset, data in writes:
        canvas.write(offset, data)
        expected[offset : offset + len(data)] = data
    assert canvas.read(3, 5000) == bytes(expected[3:5003])
    patch = canvas.patch(size)
    result = bytearray(source.ljust(size, b"\0"))
    for offset, data in patch.extents:
        assert offset % SECTOR == len(data) % SECTOR == 0
        result[offset : offset + len(data)] = data
    assert result == expected
    ranges = changed_sectors(patch)
    assert all(one.stop < two.start for one, two in itertools.pairwise(ranges))
