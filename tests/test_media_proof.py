"""The proof finds what a fault in the remaster would do: each kind of changed sector is spoilt in turn."""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING

import pytest

from builder.errors import RemasterError
from builder.media import proof
from builder.media.anatomy import Anatomy, examine
from builder.media.image import inspect
from builder.media.patch import Patch
from builder.media.proof import prove, survey
from builder.media.reader import Entry, Survey, open_volume
from builder.media.remaster import plan
from builder.media.window import BLOCK, SECTOR, Window
from tests.isofixture import AMD64, ARM64_MBR, NO_JOLIET, NO_SECOND_TREE, Variant, medium, missing_programs
from tests.mutants import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {missing_programs()}")
NEW = "/nocloud/user-data"
FILES = {NEW: b"#cloud-config\n" * 9, "/boot/grub/grub.cfg": b"set timeout=1\n" * 200}


class Case:
    """A sound patch of a small medium, the image it makes, and what was seen of the source."""

    def __init__(self, variant: Variant) -> None:
        self.path = medium(variant)
        self.patch = plan(self.path, FILES)
        with self.path.open("rb") as file:
            source, result = Window(file), Window(file, size=self.patch.size, extents=self.patch.extents)
            self.before: Anatomy = examine(source.at, source.size)
            self.after: Anatomy = examine(result.at, result.size)
            self.seen = survey(file)
            self.image = result.at(0, result.size)
        sums = next(data for path, data in _contents(self.path, self.patch).items() if path == "/md5sum.txt")
        self.changes = {**FILES, "/md5sum.txt": sums}

    def prove(self, image: bytes, seen: Survey | None = None) -> None:
        """Prove a patch that makes ``image``; what it changes of the sound one has to lie in changed sectors."""
        patch = Patch(len(image), tuple((at, image[at : at + len(data)]) for at, data in self.patch.extents))
        with self.path.open("rb") as file:
            result = Window(file, size=patch.size, extents=patch.extents)
            assert result.at(0, len(image)) == image
            prove(file, self.before, seen or self.seen, patch, self.changes)

    def spoilt(self, offset: int, data: bytes) -> bytes:
        """Return the image with other bytes somewhere."""
        assert self.image[offset : offset + len(data)] != data
        return self.image[:offset] + data + self.image[offset + len(data) :]

    def record(self, tree: int, name: str, folder: tuple[str, ...] = ()) -> int:
        """Return the offset of a directory record in a tree of the new image."""
        shown = self.after.trees[tree]
        directory = shown.by_path[folder]
        offset = (shown.base + directory.extent) * SECTOR
        for record in directory.records:
            if shown.name_of(record) == name:
                return self.image.index(record.raw, offset, offset + directory.length)
        raise AssertionError(name)


def _contents(path: Path, patch: Patch) -> dict[str, bytes]:
    with path.open("rb") as file, open_volume(file, size=patch.size, extents=patch.extents) as volume:
        return {"/md5sum.txt": volume.read("/md5sum.txt")}


@functools.cache
def case(variant: Variant = AMD64) -> Case:
    return Case(variant)


@pytest.mark.parametrize("variant", [AMD64, ARM64_MBR, NO_JOLIET, NO_SECOND_TREE], ids=lambda variant: variant.name)
def test_a_sound_patch_is_proven(variant: Variant) -> None:
    case(variant).prove(case(variant).image)


def test_the_contents_of_a_new_file() -> None:
    one = case()
    at = one.image.index(FILES[NEW])
    with pytest.raises(RemasterError, match=f"`{NEW}` does not hold what it should") as caught:
        one.prove(one.spoilt(at + 5, b"?"))
    assert caught.value.message.startswith("The changed ISO would be wrong")
    assert "fault in prebake" in (caught.value.hint or "")


def test_the_efi_system_partition() -> None:
    one = case()
    with pytest.raises(RemasterError, match="its EFI system partition is not that of the source"):
        one.prove(one.spoilt(one.after.border * SECTOR + 700, b"?"))


def test_the_partition_table() -> None:
    one = case()
    with pytest.raises(RemasterError, match="checksum"):
        one.prove(one.spoilt(BLOCK + 20, b"\1"))


def test_the_boot_catalog_that_forgets_the_partition() -> None:
    one = case()
    efi = one.after.catalog.efi
    assert efi is not None
    with pytest.raises(RemasterError, match="boot catalog"):
        one.prove(one.spoilt(efi.pointer, struct.pack("<I", one.before.border)))


@pytest.mark.parametrize("tree", range(4))
def test_a_record_that_points_elsewhere(tree: int) -> None:
    one = case()
    at = one.record(tree, "user-data", ("nocloud",))
    place = struct.unpack_from("<I", one.image, at + 2)[0] + 1
    with pytest.raises(RemasterError, match="would be wrong"):
        one.prove(one.spoilt(at + 2, struct.pack("<I", place) + struct.pack(">I", place)))


@pytest.mark.parametrize("tree", range(4))
def test_a_record_with_another_name(tree: int) -> None:
    """What the trees show agrees by place and length; that the name is another only the listings tell."""
    one = case()
    at = one.record(tree, "user-data", ("nocloud",))
    wide = one.after.trees[tree].joliet
    name = "user-data".encode("utf-16-be" if wide else "ascii")
    spot = one.image.index(name, at)
    assert spot < at + one.image[at]
    with pytest.raises(RemasterError, match=r"would be wrong|cannot be read back"):
        one.prove(one.spoilt(spot, "usex-data".encode("utf-16-be" if wide else "ascii")))


@pytest.mark.parametrize("tree", range(4))
def test_a_path_table_that_misses_the_new_folder(tree: int) -> None:
    one = case()
    shown = one.after.trees[tree]
    start = (shown.base + shown.descriptor.path_tables[0]) * SECTOR
    name = "nocloud".encode("utf-16-be") if shown.joliet else b"NOCLOUD"
    with pytest.raises(RemasterError, match="would be wrong"):
        one.prove(one.spoilt(one.image.index(name, start), name[:-1] + b"X"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda entries: entries | {"/lost": Entry("file", 99, 1)}, "`/lost` is missing"),
        (lambda entries: {path: one for path, one in entries.items() if path != "/casper"}, "there by mistake"),
        (
            lambda entries: entries | {"/casper/vmlinuz": Entry("file", 1, 2)},
            "`/casper/vmlinuz` has changed its place or its length",
        ),
    ],
)
def test_a_source_that_showed_something_else(spoil: Callable[[dict[str, Entry]], dict[str, Entry]], says: str) -> None:
    one = case()
    listings = {view: spoil(dict(entries)) for view, entries in one.seen.listings.items()}
    with pytest.raises(RemasterError, match=says):
        one.prove(one.image, Survey(0, one.seen.volume_id, listings))


def test_another_volume_id() -> None:
    one = case()
    with pytest.raises(RemasterError, match="another volume id"):
        one.prove(one.image, Survey(0, "Other", one.seen.listings))


def test_a_second_volume_that_shows_more_than_the_first_is_surveyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty file has no place that has to agree, so each view may call it something else."""
    asked: list[int] = []

    def shown(file: BinaryIO, base: int = 0) -> Survey:
        asked.append(base)
        return survey(file, base)

    monkeypatch.setattr(proof, "survey", shown)
    image = tmp_path / "small.iso"
    data = bytearray(medium(SMALL).read_bytes())
    image.write_bytes(data)
    seen = inspect(image).survey
    plan(image, FILES, seen=seen)
    assert not asked
    with image.open("rb") as file:
        anatomy = examine(Window(file).at, len(data))
    second = next(tree for tree in anatomy.trees if tree.base)
    folder = second.by_path[("pool",)]
    record = next(one for one in folder.records if second.name_of(one) == "empty")
    at = data.index(record.raw, (second.base + folder.extent) * SECTOR) + record.raw.index(b"empty")
    data[at : at + 5] = b"extra"
    image.write_bytes(data)
    assert plan(image, FILES, seen=seen).extents
    assert asked == [second.base]
