"""From a file somebody saved to the console in it: what packed, recorded or numbered it is taken off again.

Everything here takes an iterator of byte chunks and returns one, and keeps but a window of it in memory. A console
that nothing was done to comes out byte for byte.

Formats: gzip (RFC 1952), xz, bzip2; UTF-16 and UTF-8 with a byte order mark (PowerShell's redirection); asciicast v2
and v3 (docs.asciinema.org/manual/asciicast); script(1) of util-linux; the first words of virsh, telnet, PuTTY,
ipmitool, Proxmox and others; and what :mod:`builder.install.prefixes` knows.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import re
import zlib
from typing import TYPE_CHECKING, Any

from builder.install.prefixes import peek, without_prefixes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LARGEST = 1 << 30
"""Bytes a packed console may unpack to."""
HEAD = 1 << 16
"""Bytes by which a stream is recognised; an ISO says what it is after 32 KiB."""
_PIECE = 1 << 18
_DEEPEST = 3
_LONGEST_ROW = 1 << 24
_LONGEST_END = 512

_PACKED: tuple[tuple[bytes, Any], ...] = (
    (b"\x1f\x8b\x08", gzip.open),
    (b"\xfd7zXZ\x00", lzma.open),
    (b"BZh", bz2.open),
)
_NO_CONSOLE: tuple[tuple[int, bytes, str], ...] = (
    (0x8001, b"CD001", "an ISO image"),
    (0, b"QFI\xfb", "a qcow2 disk image"),
    (0, b"KDMV", "a VMDK disk image"),
    (0, b"conectix", "a VHD disk image"),
    (0, b"\x7fELF", "a program"),
    (0, b"\x89PNG", "a picture"),
    (0, b"\xff\xd8\xff", "a picture"),
    (0, b"GIF8", "a picture"),
    (0, b"P6\n", "a picture"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"SQLite format 3", "a database"),
    (257, b"ustar", "a tar archive"),
    (512, b"EFI PART", "a disk image"),
)
_FIRST_WORDS = re.compile(
    rb"Script started on |Connected to |Escape character is |Trying \S+\.\.\.|\[SOL Session operational|"
    rb"starting serial terminal |=~=~=~=~=|Type \[C-a\] \[C-h\]|Terminal ready|Press CTRL-A Z for help|"
    rb"\[\d\d:\d\d:\d\d\.\d+\] (?:tio v|Press ctrl-t|Connected)"
)
_LAST_WORDS = re.compile(rb"\r?\n?Script done on [^\n]*\n?\Z")


class NoConsoleError(Exception):
    """The file holds no console: ``what`` it is, as the end of a sentence, and a ``hint`` for the person."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


def unwrap(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Return the console in the file whose bytes are ``chunks``, as the serial line gave it, in chunks again.

    Raises NoConsoleError, from here or while the result is read, if it is none or unpacks to more than LARGEST bytes.
    """
    head, stream = peek(chunks, HEAD)
    for _ in range(_DEEPEST):
        opener = next((opener for magic, opener in _PACKED if head.startswith(magic)), None)
        if opener is None:
            break
        head, stream = peek(_unpacked(stream, opener), HEAD)
    head, stream = peek(_utf8(head, stream), HEAD)
    _check(head)
    if _is_cast(head):
        stream = _played(stream)
    return without_prefixes(_without_frame(stream))


def _check(head: bytes) -> None:
    for at, magic, what in _NO_CONSOLE:
        if head.startswith(magic, at):
            raise NoConsoleError(f"is {what}, no console", "Name a file the serial console was saved to.")
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        raise NoConsoleError("is packed with zstd", "Unpack it: zstd -dc FILE | prebake explain -")
    # Some logs begin with a hole of zeros, where another program cut them. What is left must be mostly text.
    text = head.replace(b"\x00", b"").decode("utf-8", "replace")
    odd = len(re.findall(r"[\ufffd\x01-\x06\x0e-\x1a\x1c-\x1f]", text))
    if len(text) >= _LONGEST_END and odd * 5 > len(text) * 2:
        raise NoConsoleError(
            "does not read like a console",
            "Was it saved with another speed than the guest's (115200), or is it no log at all?",
        )


class _Source(io.RawIOBase):
    """The chunks as a file, for the unpackers."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - whatever has room for bytes
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = memoryview(chunk)
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


def _unpacked(chunks: Iterator[bytes], opener: Any) -> Iterator[bytes]:  # noqa: ANN401 - gzip.open and its like
    """Yield what is packed in ``chunks``; of a file that was cut off or is damaged, what can be had of it."""
    total = 0
    with opener(_Source(chunks)) as unpacked:
        while True:
            try:
                piece: bytes = unpacked.read1(_PIECE)
            except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
                if not total:
                    raise NoConsoleError("is a packed file that cannot be unpacked", f"{error}.") from error
                return
            if not piece:
                return
            total += len(piece)
            if total > LARGEST:
                raise NoConsoleError(
                    f"unpacks to more than {LARGEST >> 20} MiB", "Unpack it and name the part with the console."
                )
            yield piece


def _utf8(head: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield ``chunks``, which begin with ``head``, without a byte order mark, and in UTF-8 if they are in UTF-16."""
    if head.startswith(codecs.BOM_UTF8):
        yield next(chunks)[len(codecs.BOM_UTF8) :]
    elif head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        # Two such bytes alone may be noise on the line.
        high = head[3::2] if head.startswith(codecs.BOM_UTF16_LE) else head[2::2]
        if high.count(0) * 2 > len(high):
            decoder = codecs.getincrementaldecoder("utf-16")("replace")
            for chunk in chunks:
                yield decoder.decode(chunk).encode("utf-8", "replace")
            yield decoder.decode(b"", final=True).encode("utf-8", "replace")
            return
    yield from chunks


def _is_cast(head: bytes) -> bool:
    first = head.partition(b"\n")[0]
    if not first.lstrip().startswith(b"{"):
        return False
    row = _json(first)
    return isinstance(row, dict) and row.get("version") in (2, 3)


def _json(row: bytes) -> object:
    try:
        return json.loads(row)
    except (ValueError, RecursionError):
        return None


def _played(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the output a cast recorded; rows that are none, or were cut off, are passed over."""
    tail = b""
    for chunk in chunks:
        *rows, tail = (tail + chunk).split(b"\n")
        for row in rows:
            yield _output(row)
        if len(tail) > _LONGEST_ROW:
            tail = b""
    yield _output(tail)


def _output(row: bytes) -> bytes:
    event = _json(row) if row.startswith(b"[") else None
    if not isinstance(event, list) or len(event) < 3 or event[1] != "o" or not isinstance(event[2], str):  # noqa: PLR2004
        return b""
    try:
        return event[2].encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return event[2].encode("utf-8", "replace")


def _without_frame(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield ``chunks`` without what the recording program said before and after the console."""
    head, chunks = peek(chunks, HEAD)
    if _FIRST_WORDS.match(head.lstrip()[:80]) is None:
        yield from chunks
        return
    next(chunks)
    at = skip = 0
    for line in head.splitlines(keepends=True):
        at += len(line)
        if _FIRST_WORDS.match(line):
            skip = at
        elif line.strip():
            break
    held = head[skip:]
    for chunk in chunks:
        held += chunk
        if len(held) > _LONGEST_END:
            yield held[:-_LONGEST_END]
            held = held[-_LONGEST_END:]
    yield _LAST_WORDS.sub(b"", held)
