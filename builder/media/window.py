"""A file seen through a window: from an offset on, with changes laid over it, and never more than was agreed."""

from __future__ import annotations

import bisect
import io
from typing import TYPE_CHECKING, BinaryIO

from builder.errors import MediumError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SECTOR = 2048
"""Bytes in a logical sector of an optical medium (ECMA-119, 6.1.2)."""

BLOCK = 512
"""Bytes in a block of a disk, the unit of partition tables."""

PARSE_BUDGET = 16 << 20
"""How many bytes may be read to parse one medium; a real one takes about two megabytes."""
LEAST_CHARGE = 512
"""What reading anything costs of a budget, in bytes, so that many small readings come to an end too."""
LONGEST_SHOWN = 200

if TYPE_CHECKING:
    Read = Callable[[int, int], bytes]
    """Given an offset and a length in bytes, return the bytes there; fewer where the medium ends."""


def plain(text: str) -> str:
    """Return ``text`` as it can be shown on a terminal: what is not printable escaped, and not too long."""
    if len(text) <= LONGEST_SHOWN and text.isprintable():
        return text
    shown = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text[: LONGEST_SHOWN + 1])
    return shown if len(shown) <= LONGEST_SHOWN else shown[: LONGEST_SHOWN - 1] + "…"


def sectors_for(length: int) -> int:
    """Return how many sectors ``length`` bytes take."""
    return -(-length // SECTOR)


def padded(data: bytes) -> bytes:
    """Return ``data`` filled up with zeros to whole sectors."""
    return data.ljust(sectors_for(len(data)) * SECTOR, b"\0")


class Window(io.RawIOBase):
    """A readable, seekable view of ``file``.

    ``start`` is the offset in bytes that becomes offset 0. ``size`` is the size in bytes of the whole image
    (the file's own size by default); what lies beyond the file reads as zeros. ``extents`` are ordered pieces
    (offset in the whole image, bytes) that lie over the file. With ``budget``, reading more bytes than that
    raises MediumError (the smallest reading counts as 512): no parser can be led in circles for ever.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        start: int = 0,
        size: int | None = None,
        extents: Sequence[tuple[int, bytes]] = (),
        budget: int | None = None,
    ) -> None:
        super().__init__()
        self._file = file
        self._start = start
        self._file_size = file.seek(0, io.SEEK_END)
        self._size = max((self._file_size if size is None else size) - start, 0)
        self._extents = extents
        self._offsets = [offset for offset, _ in extents]
        self._position = 0
        self.budget = budget

    @property
    def size(self) -> int:
        """The size in bytes of what the window shows."""
        return self._size

    def at(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset`` on, fewer where the window ends."""
        length = max(min(length, self._size - offset), 0) if offset >= 0 else 0
        if self.budget is not None:
            self.budget -= max(length, LEAST_CHARGE)
            if self.budget < 0:
                raise MediumError(
                    f"The ISO's structures do not come to an end: {length} bytes more were to be read from byte "
                    f"{offset} on, and that much is not expected to be needed.",
                    hint="Download the ISO again.",
                )
        first = self._start + offset
        self._file.seek(first)
        data = bytearray(self._file.read(length).ljust(length, b"\0"))
        index = max(bisect.bisect_right(self._offsets, first) - 1, 0)
        for position, piece in self._extents[index:]:
            if position >= first + length:
                break
            skip = max(first - position, 0)
            part = piece[skip : first + length - position]
            place = position + skip - first
            data[place : place + len(part)] = part
        return bytes(data)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be sought."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset in bytes and return it."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if origin + offset < 0:
            raise ValueError(f"negative position {origin + offset}")
        self._position = origin + offset
        return self._position

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """Return ``size`` bytes from the position on; all that follow if it is negative or None."""
        data = self.at(self._position, self._size if size is None or size < 0 else size)
        self._position += len(data)
        return data
