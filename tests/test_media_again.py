"""Media that were remastered before: by prebake with other answers, and by hand in the usual ways."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest
import yaml

from builder.autoinstall.render import KERNEL_ARGUMENTS, SEED
from builder.command import run
from builder.errors import RemasterError
from builder.media.image import inspect, read_file
from builder.media.menus import edited_menus
from builder.media.remaster import plan, write_iso
from builder.media.rivals import INSTALLERS_OWN, silenced
from tests.isofixture import AMD64, GRUB_2204, VARIANTS, Variant, extract, medium, missing_programs, report, workshop
from tests.test_media_remaster import partition_view, tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {missing_programs()}")
OURS = {"/nocloud/user-data": b"#cloud-config\nautoinstall: {version: 1}\n# ours\n", "/nocloud/meta-data": b""}
ARGUMENTS = (*KERNEL_ARGUMENTS, "console=tty0", "console=ttyS0,115200n8")
LINE = 'autoinstall "ds=nocloud;s=/cdrom/nocloud/" console=tty0 console=ttyS0,115200n8 ---'
FOREIGN_MENU = GRUB_2204.replace("timeout=30", "timeout=1").replace(
    "  ---", r" autoinstall quiet ds=nocloud\;s=/cdrom/server/ console=tty0 ---"
)
FOREIGN = {
    "/autoinstall.yaml": b"version: 1\n# theirs\n",
    "/server/user-data": b"#cloud-config\n# theirs\n",
    "/server/meta-data": b"",
    "/nocloud/user-data": b"#cloud-config\n# theirs\n" * 300,
    "/nocloud/meta-data": b"instance-id: theirs\n",
    "/nocloud/vendor-data": b"#cloud-config\n# theirs\n",
    "/nocloud/network-config": b"version: 2 # theirs\n",
    "/boot/grub/grub.cfg": FOREIGN_MENU.encode(),
}


def files_for(image: Path) -> dict[str, bytes]:
    """Return what prebake puts on a medium."""
    found = inspect(image)
    return {**silenced(found, SEED), **edited_menus(found, kernel_arguments=ARGUMENTS), **OURS}


@functools.cache
def mapped(variant: Variant) -> Path:
    """A medium remastered with xorriso, which writes all of it anew: `-map` and boot equipment replayed."""
    source, target = medium(variant), workshop() / f"mapped-{variant.name}.iso"
    argv = ["xorriso", "-indev", str(source), "-outdev", str(target), "-boot_image", "any", "replay"]
    if variant.joliet:
        argv += ["-joliet", "on", "-compliance", "joliet_long_paths:joliet_long_names"]
    for number, (name, content) in enumerate(FOREIGN.items()):
        if name.endswith(".cfg") and variant.programs != "names":
            continue  # a menu that says what it does
        kept = workshop() / f"mapped-{number}"
        kept.write_bytes(content)
        argv += ["-map", str(kept), name]
    run(argv)
    return target


@functools.cache
def from_tree() -> Path:
    """A medium that was made from a tree with everything in it, with the options of Ubuntu's own."""
    extra = {name[1:]: content for name, content in FOREIGN.items() if name != "/boot/grub/grub.cfg"}
    return medium(Variant("from-tree", grub_cfg=FOREIGN_MENU, extra=extra))


@functools.cache
def by_prebake() -> Path:
    """A medium prebake remastered before, with other answers, arguments and a longer user-data."""
    target = workshop() / "by-prebake.iso"
    menus = edited_menus(inspect(medium(AMD64)), kernel_arguments=("autoinstall", "ds=nocloud;s=/cdrom/x/", "a=b"))
    files = {name: content for name, content in FOREIGN.items() if name != "/boot/grub/grub.cfg"}
    write_iso(medium(AMD64), plan(medium(AMD64), {**files, **menus}), target)
    return target


@pytest.mark.parametrize("source", [lambda: mapped(AMD64), from_tree, by_prebake], ids=["xorriso", "tree", "prebake"])
def test_our_answers_are_the_only_ones(source: Callable[[], Path], tmp_path: Path) -> None:
    image, new = source(), tmp_path / "new.iso"
    files = files_for(image)
    write_iso(image, plan(image, files), new)
    views = [tree(extract(new, tmp_path / "rr")), tree(extract(new, tmp_path / "joliet", joliet=True))]
    part = partition_view(new, tmp_path)
    views += [tree(extract(part, tmp_path / "rr1")), tree(extract(part, tmp_path / "joliet1", joliet=True))]
    for found in views:
        assert {name: found[name] for name in OURS} == OURS
        assert found["/nocloud/vendor-data"] == found["/nocloud/network-config"] == b""
        theirs = {name for name, content in found.items() if isinstance(content, bytes) and b"theirs" in content}
        assert theirs == {"/server/user-data"}  # which no kernel line names any more
        for name in ("/boot/grub/grub.cfg", "/boot/grub/loopback.cfg"):
            menu = found[name]
            assert isinstance(menu, bytes)
            lines = [line for line in menu.decode().splitlines() if line.lstrip().startswith("linux\t/casper")]
            assert len(lines) == 2
            for line in lines:
                assert line.endswith(LINE)
                words = line.removesuffix(LINE).split()
                assert set(words) <= {"linux", "/casper/vmlinuz", "/casper/hwe-vmlinuz", "quiet"} | {
                    "iso-scan/filename=${iso_path}"
                }
    run(["md5sum", "--check", "--strict", "--quiet", "md5sum.txt"], cwd=tmp_path / "rr")
    assert not plan(new, files_for(new)).extents


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_layout_can_have_been_through_xorriso(variant: Variant, tmp_path: Path) -> None:
    """Its padding behind the partition table goes; all else is as on a medium that has not been there."""
    image, new = mapped(variant), tmp_path / "new.iso"
    files = files_for(image)
    patch = plan(image, files)
    write_iso(image, patch, new)
    whole = new.read_bytes()
    assert len(whole) == patch.size == int.from_bytes(whole[32848:32852], "little") * 2048
    found = tree(extract(new, tmp_path / "tree"))
    assert files.items() <= found.items()
    assert whole[32808:32840] == image.read_bytes()[32808:32840]
    assert len(report(new)) == len(report(image))
    assert not plan(new, files_for(new)).extents


def test_other_bytes_behind_the_end_are_refused(tmp_path: Path) -> None:
    """What xorriso leaves is zeros, little, and fills up 64 KiB; anything else is not understood."""
    whole = mapped(AMD64).read_bytes()
    for wrong in (whole[:-1] + b"x", whole + bytes(2048), whole + bytes(2 << 20)):
        image = tmp_path / "wrong.iso"
        image.write_bytes(wrong)
        with pytest.raises(RemasterError, match="end"):
            plan(image, OURS)


def test_prebake_after_prebake_is_as_if_the_first_had_not_been() -> None:
    """The menus of the second round are those that the medium itself would have got."""
    menus = edited_menus(inspect(by_prebake()), kernel_arguments=ARGUMENTS)
    assert menus == edited_menus(inspect(medium(AMD64)), kernel_arguments=ARGUMENTS)


def test_a_medium_without_answers_is_left_alone() -> None:
    assert silenced(inspect(medium(AMD64)), SEED) == {}


def test_the_installers_own_file_only_asks() -> None:
    """It cannot be removed, so it says what the installer does without it."""
    content = silenced(inspect(from_tree()), SEED)[INSTALLERS_OWN]
    assert yaml.safe_load(content) == {"version": 1, "interactive-sections": ["*"]}
    assert b"/nocloud/user-data" in content
    assert read_file(from_tree(), INSTALLERS_OWN) == FOREIGN[INSTALLERS_OWN]
