"""What the tests of whole journeys share: programs they need, the classes, a server that has the medium."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from tests import mirror

NEEDED = ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "tar2sqfs", "xorriso", "mkfs.vfat", "mcopy")
MISSING = [name for name in NEEDED if shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None]
CLASSES = Path(__file__).parent.parent / "classes"
NAMES = ("--name", "journey", "--hostname", "ubuntu")
"""What the image of the journey is called, whatever its class says."""


def published(iso: Path) -> dict[str, bytes]:
    """Return the files of a server that has ``iso`` as Ubuntu's 24.04.3."""
    files = mirror.folder({mirror.name_of("24.04.3"): iso.read_bytes()})
    return {f"/24.04/{name}": data for name, data in files.items()}


def readable(path: Path) -> bool:
    with contextlib.suppress(OSError):
        path.read_bytes()
        return True
    return False
