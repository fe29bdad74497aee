"""md5sum.txt: right in every line that was right, also where it lists the boot catalog."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from builder.media.image import read_file
from builder.media.md5sum import followed, updated
from builder.media.patch import Patch
from builder.media.remaster import plan, write_iso
from tests.isofixture import (
    AMD64,
    AMD64_2604,
    ARM64_GPT,
    WRONG_SUM,
    Variant,
    catalog_path,
    medium,
    missing_programs,
)

if TYPE_CHECKING:
    from pathlib import Path

CATALOG = catalog_path(AMD64)
built = pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {missing_programs()}")


def md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).hexdigest().encode()


def test_md5sum_lines() -> None:
    text = b"0" * 32 + b"  ./a\nnonsense\n" + b"1" * 32 + b"  ./b c"
    new = updated(text, {"/a": b"x", "/n": b"", "/unlisted": b"u"}, ["/n"])
    assert new.decode().splitlines() == [
        "9dd4e461268c8034f5c8564e155c67a6  ./a",
        "nonsense",
        "1" * 32 + "  ./b c",
        "d41d8cd98f00b204e9800998ecf8427e  ./n",
    ]
    assert updated(b"", {}, []) == b""


def test_a_line_follows_only_if_it_was_right() -> None:
    text = md5(b"old") + b"  ./a\n" + WRONG_SUM + b"  ./b\n" + md5(b"old") + b" *./c+\n" + md5(b"old") + b"  ./a b"
    assert followed(text, "/a", b"old", b"new") == text.replace(md5(b"old") + b"  ./a\n", md5(b"new") + b"  ./a\n")
    assert followed(text, "/a b", b"old", b"new").endswith(b"\n" + md5(b"new") + b"  ./a b")
    assert md5(b"new") + b" *./c+\n" in followed(text, "/c+", b"old", b"new")
    assert followed(text, "/b", b"old", b"new") == text
    assert followed(text, "/none", b"old", b"new") == text


@built
@pytest.mark.parametrize("variant", [AMD64_2604, ARM64_GPT], ids=lambda variant: variant.name)
def test_what_2604_leaves_out_stays_out(variant: Variant, tmp_path: Path) -> None:
    """Its list has no sum of the menu that prebake changes, and has sums of the files that prebake adds."""
    source, new = medium(variant), tmp_path / "new.iso"
    before = read_file(source, "/md5sum.txt")
    assert b"./boot/grub/grub.cfg" not in before
    assert b"./casper/vmlinuz\n" in before
    added = b"  ./nocloud/user-data\n"
    write_iso(source, plan(source, {"/boot/grub/grub.cfg": b"#" * 9000, "/nocloud/user-data": b"x"}), new)
    after = read_file(new, "/md5sum.txt").splitlines(keepends=True)
    assert read_file(new, "/boot/grub/grub.cfg") == b"#" * 9000
    catalog = b"  ." + catalog_path(variant).encode() + b"\n"
    assert [line for line in after if not line.endswith((added, catalog))] == [
        line for line in before.splitlines(keepends=True) if not line.endswith(catalog)
    ]
    assert md5(b"x") + added in after


@built
def test_a_wrong_sum_of_the_catalog_stays_as_it_was() -> None:
    source = medium(replace(AMD64, name="wrong-catalog", catalog_sum="wrong"))
    patch = plan(source, {"/new": b"n" * 9000})
    assert patch.size > source.stat().st_size
    assert any(WRONG_SUM + b"  ." + CATALOG.encode() in data for _, data in patch.extents)


@built
def test_the_list_changes_when_nothing_but_the_catalog_does(tmp_path: Path) -> None:
    """The only file of which the list knows is the catalog, which changes because another one grows."""
    source, first, second = medium(AMD64), tmp_path / "first.iso", tmp_path / "second.iso"
    line = md5(read_file(source, CATALOG)) + b"  ." + CATALOG.encode() + b"\n"
    write_iso(source, plan(source, {"/md5sum.txt": line}), first)
    assert first.stat().st_size == source.stat().st_size
    assert read_file(first, "/md5sum.txt") == line
    files = {"/boot/grub/grub.cfg": b"#" * 9000}
    write_iso(first, plan(first, files), second)
    catalog = read_file(second, CATALOG)
    assert catalog != read_file(source, CATALOG)
    assert read_file(second, "/md5sum.txt") == md5(catalog) + b"  ." + CATALOG.encode() + b"\n"
    assert plan(second, files) == Patch(second.stat().st_size, ())
