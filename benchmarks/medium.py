"""A medium as large as Ubuntu's, laid out the same, full of bytes that mean nothing. Nothing on it boots.

xorriso's options and the small files are those of the tests' media, which are Canonical's; what is large is here:
names, proportions and number of files as on Ubuntu's live-server ISOs since 24.04.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from builder.command import run
from builder.store import locked
from tests import isofixture

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RECIPE = 1
"""Goes up when the medium changes, so that an older one is not taken from the cache."""
CHUNK = 16 << 20
SHARES: Mapping[str, float] = {
    "casper/vmlinuz": 15,
    "casper/hwe-vmlinuz": 15.5,
    "casper/initrd": 74,
    "casper/hwe-initrd": 76,
    "casper/ubuntu-server-minimal.squashfs": 164,
    "casper/ubuntu-server-minimal.ubuntu-server.squashfs": 145,
    "casper/ubuntu-server-minimal.ubuntu-server.installer.squashfs": 694,
    "casper/ubuntu-server-minimal.ubuntu-server.installer.generic.squashfs": 690,
    "casper/ubuntu-server-minimal.ubuntu-server.installer.generic-hwe.squashfs": 700,
}
"""How the large files share the room: megabytes, if the medium has 2.68 GB."""
PACKAGES = 640
"""Small files below /pool."""
PACKAGE_BYTES = 0.04
"""What they take of the whole."""
PROGRAMS: Mapping[str, int] = {"bootx64.efi": 966664, "grubx64.efi": 2_640_000, "mmx64.efi": 856280}
"""What is on the ESP, in bytes; it has 5 MB with them."""
ROOM = 464 << 10
"""What fills the ESP up to the 10160 blocks of 24.04.3's."""


def medium(folder: Path, size: int) -> Path:
    """Return an ISO of about ``size`` bytes, made in ``folder`` if it is not there yet.

    Raises PrebakeError if a program it takes is missing or fails.
    """
    path = folder / f"ubuntu-layout-{RECIPE}-{size}.iso"
    with locked(folder / "lock"):
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=folder) as name:
                _build(Path(name), size).rename(path)
    return path


def _build(work: Path, size: int) -> Path:
    programs = {name: os.urandom(length) for name, length in PROGRAMS.items()}
    esp = isofixture.esp_image(work, {**programs, "filler": os.urandom(ROOM)})
    variant = replace(isofixture.AMD64, extra=dict(_pool(int(size * PACKAGE_BYTES))))
    small = {name: data for name, data in variant.tree().items() if name not in SHARES}
    small |= {f"EFI/boot/{name}": data for name, data in programs.items()}
    small["boot/grub/i386-pc/eltorito.img"] = isofixture.eltorito_image().read_bytes()
    tree = work / "tree"
    left = size - esp.stat().st_size - sum(len(data) for data in small.values())
    scale = left / sum(SHARES.values())
    sums = [f"{_fill(tree / name, int(share * scale))}  ./{name}\n" for name, share in SHARES.items()]
    isofixture.fill(tree, small, "".join(sums))
    made = work / "made.iso"
    run(["xorriso", "-as", "mkisofs", *isofixture.options(variant, esp), "-o", str(made), str(tree)])
    shutil.rmtree(tree)
    return made


def _pool(room: int) -> Iterator[tuple[str, bytes]]:
    """Yield packages of many sizes, about ``room`` bytes in all, two to a folder."""
    dice = random.Random(RECIPE)  # noqa: S311 - lengths, no secrets
    weights = [dice.paretovariate(1.2) for _ in range(PACKAGES)]
    for number, weight in enumerate(weights):
        source = f"package{number // 2:03d}"
        name = (
            f"pool/main/{'abcdefghijklmnop'[number // 2 % 16]}/{source}/{source}-{number}_1.0-{number}ubuntu1_amd64.deb"
        )
        yield name, os.urandom(max(int(room * weight / sum(weights)), 1))


def _fill(path: Path, length: int) -> str:
    """Fill a file with bytes that no program can compress and return their MD5 sum in hexadecimal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("wb") as out:
        while length > 0:
            piece = os.urandom(min(CHUNK, length))
            digest.update(piece)
            out.write(piece)
            length -= len(piece)
    return digest.hexdigest()
