"""Sizes as people write them."""

from __future__ import annotations

import re

from builder.errors import UsageError

SECTOR = 512
UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def parse_size(text: str) -> int:
    """Return the bytes of a size such as "10G", "512MiB", "1.5T" or "1073741824".

    Units are powers of 1024. Raises UsageError unless it is a positive whole number of 512-byte sectors.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE | re.ASCII)
    if match is None:
        raise UsageError(f"`{text}` is not a size.", hint="Write a number and a unit, such as 10G or 512M.")
    number, unit = match[1], match[2].upper()
    whole, _, part = number.partition(".")
    scale = 10 ** len(part)
    size: int
    size, rest = divmod(int(whole + part) << UNITS[unit], scale)
    if rest or size <= 0 or size % SECTOR:
        raise UsageError(
            f"`{text}` is not a positive whole number of {SECTOR}-byte sectors.",
            hint="Write a number and a unit, such as 10G or 512M.",
        )
    return size
