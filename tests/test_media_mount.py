"""Remastered media mounted by Linux: as a whole and as partition 1, with Rock Ridge and with Joliet names.

One boot, about 15 seconds under emulation: Debian's kernel with a script instead of an init, and every layout
as a disk of its own, one of them also as a CD. Making the rehearsal medium, whose kernel this
is, takes a minute or two if it is not in the cache.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
from typing import TYPE_CHECKING, TypeAlias

import pytest

from builder.command import run
from builder.errors import PrebakeError
from builder.events import silent
from builder.media.image import read_files
from builder.rehearsal import cpio
from builder.rehearsal.build import rehearsal_iso
from builder.store import cache_folder
from tests.isofixture import AMD64, VARIANTS, extract, medium, missing_programs, workshop
from tests.test_media_remaster import FILES, original, remastered, tree

if TYPE_CHECKING:
    from pathlib import Path

Sums: TypeAlias = dict[str, str]

pytestmark = [
    pytest.mark.boot,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {missing_programs()}"),
    pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="qemu-system-x86_64 is not installed"),
]
MODULES = "virtio_pci virtio_blk ahci sr_mod isofs"
PROBE = """\
mount -t devtmpfs devices /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
exec > /dev/ttyS1 2> /dev/ttyS0
for module in @MODULES@; do
    modprobe "$module"
done
tries=0
until [ -b /dev/sr0 ] && [ -b /dev/@LAST@ ] || [ "$tries" -gt 100 ]; do
    tries=$((tries + 1))
    sleep 0.2
done
mkdir /view
for device in @DEVICES@; do
    for names in rock norock; do
        option=ro
        [ "$names" = rock ] || option=ro,norock
        mount -t iso9660 -o "$option" "/dev/$device" /view || continue
        echo "VIEW $device $names"
        cd /view
        find . -type f -exec md5sum '{}' +
        md5sum -c md5sum.txt > /check && echo "CHECKED $device $names"
        cd /
        umount /view
    done
done
echo END
poweroff -f
"""
NAMES = [f"vd{letter}" for letter in "abcdef"]
ORIGINAL = "vdg"
LAYOUTS = dict(zip(NAMES, VARIANTS, strict=True)) | {"sr0": AMD64}


@functools.cache
def seen() -> tuple[dict[tuple[str, str], Sums], frozenset[tuple[str, str]]]:
    """Return what Linux sees, MD5 sums by path, of each device with each kind of names; and where md5sum.txt held."""
    folder = workshop() / "linux"
    devices = [*NAMES, "sr0", ORIGINAL]
    script = PROBE.replace("@MODULES@", MODULES).replace("@LAST@", f"{ORIGINAL}1")
    views = [view for name in devices for view in ((name,) if name == "sr0" else (name, f"{name}1"))]
    (folder / "tree").mkdir(parents=True, exist_ok=True)
    (folder / "tree/probe").write_text(script.replace("@DEVICES@", " ".join(views)))
    try:
        boot = read_files(rehearsal_iso(cache_folder(), silent), ("/casper/vmlinuz", "/casper/initrd"))
    except PrebakeError as error:
        pytest.skip(f"no Linux to mount with: {error.message}")
    (folder / "vmlinuz").write_bytes(boot["/casper/vmlinuz"])
    (folder / "initrd").write_bytes(cpio.archive(folder / "tree") + boot["/casper/initrd"])
    argv = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-m", "512", "-display", "none", "-no-reboot"]
    argv += ["-monitor", "none", "-nic", "none", "-snapshot"]
    argv += ["-serial", f"file:{folder / 'kernel'}", "-serial", f"file:{folder / 'probe'}"]
    argv += ["-kernel", str(folder / "vmlinuz"), "-initrd", str(folder / "initrd")]
    argv += ["-append", "console=ttyS0 panic=-1 rdinit=/usr/bin/sh -- /probe"]
    images = [*(remastered(variant)[0] for variant in LAYOUTS.values()), medium(AMD64)]
    kinds = [*("virtio-blk-pci" for _ in NAMES), "ide-cd", "virtio-blk-pci"]
    for number, (kind, image) in enumerate(zip(kinds, images, strict=True)):
        argv += ["-drive", f"if=none,id=drive{number},format=raw,file={image}"]
        argv += ["-device", f"{kind},drive=drive{number}"]
    run(argv, timeout=240)
    lines = (folder / "probe").read_text().splitlines()
    assert lines[-1] == "END", (folder / "kernel").read_text()[-2000:]
    found: dict[tuple[str, str], Sums] = {}
    checked = set()
    for line in lines[:-1]:
        first, rest = line.split(maxsplit=1)
        if first in {"VIEW", "CHECKED"}:
            device, names = rest.split()
            here = (device, names)
        if first == "VIEW":
            found[here] = {}
        elif first == "CHECKED":
            checked.add(here)
        else:
            found[here][rest.removeprefix(".")] = first
    return found, frozenset(checked)


def sums(files: dict[str, bytes | str]) -> Sums:
    """Return the MD5 sums of what xorriso extracted, links left out."""
    return {
        name: hashlib.md5(content, usedforsecurity=False).hexdigest()
        for name, content in files.items()
        if isinstance(content, bytes)
    }


CASES = [
    pytest.param(device, part, names, id=f"{variant.name}-{device}{part}-{names}")
    for device, variant in LAYOUTS.items()
    for part in ("", *(["1"] if variant.second_tree and device != "sr0" else []))
    for names in ("rock", *(["norock"] if variant.joliet else []))
]
"""Every view there is: without Joliet, `norock` shows names of 8 and 3 letters only."""


@pytest.mark.parametrize(("device", "part", "names"), CASES)
def test_linux_sees_the_new_files(device: str, part: str, names: str, tmp_path: Path) -> None:
    variant = LAYOUTS[device]
    found, checked = seen()
    expected = sums(tree(extract(remastered(variant)[0], tmp_path / "tree")))
    assert found[device + part, names] == expected
    assert expected.items() >= sums(dict(FILES)).items()
    assert (device + part, names) in checked


def test_a_list_that_does_not_hold_is_noticed() -> None:
    """The check can fail: with short names nothing that md5sum.txt lists is found."""
    device = next(device for device, variant in LAYOUTS.items() if not variant.joliet)
    found, checked = seen()
    assert (device, "norock") in found
    assert (device, "norock") not in checked


@pytest.mark.parametrize("part", ["", "1"])
def test_the_original_is_seen_the_same_ways(part: str) -> None:
    found, checked = seen()
    for names in ("rock", "norock"):
        assert found[ORIGINAL + part, names] == sums(original(AMD64))
        assert (ORIGINAL + part, names) in checked
