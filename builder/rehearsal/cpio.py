"""A cpio archive of a folder, as the kernel unpacks it in front of an initial RAM disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FILE, FOLDER = 0o100644, 0o040755


def archive(tree: Path) -> bytes:
    """Return the "newc" archive of ``tree``, owned by root, without times.

    Format: Documentation/driver-api/early-userspace/buffer-format.rst of the Linux kernel.
    """
    out = bytearray()
    for number, path in enumerate(sorted(tree.rglob("*")), 1):
        data = b"" if path.is_dir() else path.read_bytes()
        out += _entry(path.relative_to(tree).as_posix(), FOLDER if path.is_dir() else FILE, number, data)
    out += _entry("TRAILER!!!", 0, 0, b"")
    return bytes(out) + bytes(-len(out) % 512)


def _entry(name: str, mode: int, inode: int, data: bytes) -> bytes:
    raw = name.encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + raw
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
