"""How much memory and room on its disks this host has, and whether that is enough for a build."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder.spec import Spec
from builder.store import cache_folder
from builder.vm.kvm import Trouble
from builder.workspace import existing_parent

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB, GIB = 1 << 20, 1 << 30
GUEST = Spec.memory * MIB
"""The memory of the default machine."""
BESIDE = 512 * MIB
"""An allowance for QEMU's own needs, translated code above all, and for prebake, which takes about 100 MiB."""
BUILD_ROOM = 12 * GIB
"""Room that an image of the real server takes while it is made."""
CACHE_ROOM = 4 * GIB
"""Room for an ISO that is fetched; the largest of Ubuntu's live servers so far has about 3 GiB."""
TEMPORARY_ROOM = GIB
"""Room for what is thrown away, such as the disk that an image is proven on."""
SMALLEST = 1536
"""MiB that Ubuntu asks for an install from its server ISO (its documentation's minimum, 1.5 GB)."""
UNLIMITED = 1 << 60
"""A control group of the first version says "no limit" by a number larger than this."""


@dataclass(frozen=True)
class Amount:
    """How much there is, in bytes (None: not known), and why that is too little, if it is."""

    free: int | None
    trouble: Trouble | None


@dataclass(frozen=True)
class Room:
    """How much is free on the file system of a folder, and why that is too little, if it is."""

    folder: Path
    free: int
    trouble: Trouble | None


def memory(root: Path = Path("/")) -> Amount:
    """Compare this host's free memory with what the default machine needs.

    Where only the whole of it is known (macOS), only a whole that is too small counts as too little. ``root`` is
    where /proc and /sys are, for tests.
    """
    free, of = available(root), "available"
    if free is None:
        free, of = _installed(), "installed"
    if free is None or free >= GUEST + BESIDE:
        return Amount(free if of == "available" else None, None)
    ways = [
        "close other programs" if sys.platform == "darwin" else "close other programs (`ps ax --sort -rss` lists them)"
    ]
    fitting = (free - BESIDE) // MIB // 256 * 256
    if fitting >= SMALLEST:
        ways.append(f"build with a smaller machine: `--memory {fitting}`")
    if _limit(root) == free:
        ways.append("raise the limit of the container or service this runs in (docker and podman: `--memory 6g`)")
    words = (
        f"{free // MIB} MiB are {of}, and the default machine takes {GUEST // MIB} MiB, QEMU about {BESIDE // MIB} MiB "
        "beside it"
    )
    return Amount(free if of == "available" else None, Trouble(words, ", or ".join(ways)))


def available(root: Path = Path("/")) -> int | None:
    """Return how many bytes of memory programs can still have, or None if that is not known.

    Linux' own estimate (MemAvailable), or what a control group around this process leaves if that is less.
    """
    match = re.search(r"^MemAvailable:\s*(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    found = [limit for limit in (int(match[1]) * 1024 if match else None, _limit(root)) if limit is not None]
    return min(found, default=None)


def _limit(root: Path) -> int | None:
    """Return how many bytes the tightest control group leaves; what it holds of files can be let go."""
    left = []
    for folder, (most, used, idle) in _groups(root):
        limit, usage = _text(folder / most).strip(), _text(folder / used).strip()
        if limit.isdigit() and usage.isdigit() and int(limit) < UNLIMITED:
            match = re.search(rf"^{idle} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
            left.append(max(0, int(limit) - int(usage) + (int(match[1]) if match else 0)))
    return min(left, default=None)


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Yield the control groups around this process, with the names of their limit, usage and idle files.

    A container often sees its own group as the topmost one, so that is looked at too. Source: the kernel's
    Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
    """
    new = ("memory.max", "memory.current", "inactive_file")
    old = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    for line in _text(root / "proc/self/cgroup").splitlines():
        tops: tuple[str, ...]
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            tops, names = ("sys/fs/cgroup", "sys/fs/cgroup/unified"), new
        elif "memory" in controllers.split(","):
            tops, names = ("sys/fs/cgroup/memory",), old
        else:
            continue
        below = Path(path.lstrip("/"))
        for top in tops:
            for inner in (below, *below.parents):
                yield root / top / inner, names


def _installed() -> int | None:
    """Return the bytes of memory in this host, free or not, or None if that is not known."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no such call, and some systems not these names
        return None


def rooms(output: Path) -> dict[str, Room]:
    """Look at the file systems of the output, the temporary and the cache folder; one that is the same is left out."""
    wanted = {
        "output": (output, BUILD_ROOM, "make room, or build elsewhere: `-o DIR`"),
        "temporary": (
            Path(tempfile.gettempdir()),
            TEMPORARY_ROOM,
            "make room, or name another folder: `export TMPDIR=DIR`",
        ),
        "cache": (
            cache_folder(),
            CACHE_ROOM,
            "`prebake cache prune` makes room, or name another folder: `export XDG_CACHE_HOME=DIR`",
        ),
    }
    seen: set[int] = set()
    found = {}
    for name, (folder, needed, fix) in wanted.items():
        there = existing_parent(folder)
        device = there.stat().st_dev
        if device not in seen:
            found[name] = _room(there, needed, fix)
        seen.add(device)
    return found


def _room(folder: Path, needed: int, fix: str) -> Room:
    free = shutil.disk_usage(folder).free
    if free >= needed:
        return Room(folder, free, None)
    return Room(folder, free, Trouble(f"{free / GIB:.1f} GiB free in {folder}, {needed // GIB} wanted", fix))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
