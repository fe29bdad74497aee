"""A new image said as the difference from an old one: the value that both ways of keeping it come from."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from builder.media.window import SECTOR, sectors_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.media.window import Read


@dataclass(frozen=True)
class Patch:
    """What turns a source image into a new one.

    ``size`` is the new image's size in bytes. ``extents`` is ordered and does not overlap: pieces (offset in
    bytes, bytes) that hold everything that differs from the source at the same offset, in whole sectors of
    2048 bytes. What lies beyond the source's end and in no extent is zero.
    """

    size: int
    extents: tuple[tuple[int, bytes], ...]

    @property
    def changed(self) -> int:
        """How many bytes the extents hold."""
        return sum(len(data) for _, data in self.extents)


def changed_sectors(patch: Patch) -> list[range]:
    """Return the numbers of the 2048-byte sectors that ``patch`` changes, as ordered ranges that do not touch."""
    ranges: list[range] = []
    for offset, data in patch.extents:
        first, last = offset // SECTOR, sectors_for(offset + len(data))
        if ranges and ranges[-1].stop >= first:
            ranges[-1] = range(ranges[-1].start, max(last, ranges[-1].stop))
        else:
            ranges.append(range(first, last))
    return ranges


class Canvas:
    """The new image while it is being made: sectors written over a source that is only read.

    ``read`` reads the source; it returns fewer bytes where the source ends.
    """

    def __init__(self, read: Read) -> None:
        self._source = read
        self._sectors: dict[int, bytearray] = {}

    def _original(self, number: int) -> bytes:
        return self._source(number * SECTOR, SECTOR).ljust(SECTOR, b"\0")

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes of the new image from ``offset`` on."""
        first, last = offset // SECTOR, sectors_for(offset + length)
        data = b"".join(bytes(self._sectors.get(number) or self._original(number)) for number in range(first, last))
        return data[offset - first * SECTOR :][:length]

    def write(self, offset: int, data: bytes) -> None:
        """Put ``data`` at ``offset`` bytes."""
        done = 0
        while done < len(data):
            number, within = divmod(offset + done, SECTOR)
            part = data[done : done + SECTOR - within]
            if len(part) == SECTOR:
                self._sectors[number] = bytearray(part)
            else:
                sector = self._sectors.setdefault(number, bytearray(self._original(number)))
                sector[within : within + len(part)] = part
            done += len(part)

    def patch(self, size: int) -> Patch:
        """Return what was written as a patch to an image of ``size`` bytes, without what is as it was."""
        pieces: list[tuple[int, bytearray]] = []
        for number, original in self._originals():
            sector = self._sectors[number]
            if sector == original:
                continue
            if pieces and pieces[-1][0] + len(pieces[-1][1]) == number * SECTOR:
                pieces[-1][1].extend(sector)
            else:
                pieces.append((number * SECTOR, bytearray(sector)))
        return Patch(size, tuple((offset, bytes(data)) for offset, data in pieces))

    def _originals(self) -> Iterator[tuple[int, bytes]]:
        """Yield the numbers of the written sectors in order, and what the source has there; neighbours in one read."""
        numbers = sorted(self._sectors)
        for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
            first, *rest = (number for _, number in run)
            length = (len(rest) + 1) * SECTOR
            data = self._source(first * SECTOR, length).ljust(length, b"\0")
            for place, number in enumerate((first, *rest)):
                yield number, data[place * SECTOR : (place + 1) * SECTOR]
