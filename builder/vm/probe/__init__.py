"""Firmware that tells whether a guest really runs, and how fast.

The assembler source stands beside this module, as ``amd64.S`` and ``arm64.S``; the bytes below are what it
assembles to, and a test assembles it again to prove that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SIZE = 0x10000
"""Bytes in an image: QEMU's PC takes firmware in units of 64 KiB."""

STEPS: Mapping[str, Mapping[str, str]] = {
    "amd64": {
        "R": "real mode",
        "P": "protected mode",
        "L": "long mode",
        "S": "SSE instructions",
        "T": "the timed loop",
    },
    "arm64": {
        "R": "EL1",
        "L": "the MMU",
        "S": "vector instructions",
        "T": "the timed loop",
    },
}
"""The letters a guest writes, in order, and the step each says it has done."""

TIMED = ("S", "T")
"""The timed loop runs between these two letters."""

EXIT_CODES: Mapping[str, int] = {"amd64": 33, "arm64": 0}
"""QEMU's exit code after the last letter: 0x10 << 1 | 1 by ``isa-debug-exit``, 0 by PSCI."""

AMD64 = bytes.fromhex(
    """
    fab052e6e92e660f011648f10f20c06625ffffff9f6683c8010f22c066ea24f0ffff0800b8100000008ed88ec08ed0b0
    50e6e931c0bf00100000b900100000fcf3abc7050010000003200000c7050020000003300000c7051820000003400000
    c7050030000083000000c705f84f00008300e0ffb8001000000f22d8b8200600000f22e0b9800000c00f320d00010000
    0f300f20c00d0200008083e0f30f22c0eaa7f0ffff1800b04ce6e9b815000000660f6ec0660ffec0660f7ec383fb2a75
    27b053e6e9bc00600000bd80969800bf00500000e812000000ffcd75f7b054e6e9b810000000e7f4f4ebfd8b078b5f40
    8b8f800000008b97c000000083c00383d30583f1558d5207898700010000899f40010000898f800100008997c0010000
    c38db400008d74000000000000000000ffff0000009bcf00ffff00000093cf00ffff0000009baf001f0028f1ffff
    """
)
"""The code of ``amd64.S``, which stands at the last page of the image."""

AMD64_RESET = bytes.fromhex("e90df0")
"""The jump at the reset vector, 16 bytes before the end of the image."""

ARM64 = bytes.fromhex(
    """
    1420a1d21500a8d2400a8052800200b9e10315aa028080d23f8400f8420400f1c1ffff54a1064091230440b2a30200f9
    23e080d2230000f9a38080d20320a1f2030ce0f2232001f923e080d20300a8f2030ce0f2a30600f9e31f80d203a218d5
    230380d20310a0f22300c0f2432018d5152018d59f3f03d51f8708d51f7508d59f3f03d5df3f03d5031038d5a40082d2
    630004aa031018d5df3f03d580098052800200b90306a0d2431018d5df3f03d5a3028052600c044e0084a04e033c140e
    7fa80071c1010054600a8052800200b9a10a409102d092520213a0720a00009442040071c1ffff54800a8052800200b9
    000180520080b072020000d47f2003d5ffffff17230040b9244040b9258040b926c040b9630c00318400031aa5f00052
    c61c0011230001b9244001b9258001b926c001b9c0035fd6
    """
)
"""The code of ``arm64.S``, which stands at the start of the image."""


def image(arch: str) -> bytes:
    """Return the 64 KiB firmware image for a guest of ``arch``, "amd64" or "arm64"."""
    memory = bytearray(SIZE)
    if arch == "arm64":
        memory[: len(ARM64)] = ARM64
    else:
        memory[-0x1000 : -0x1000 + len(AMD64)] = AMD64
        memory[-0x10:] = AMD64_RESET.ljust(0x10, b"\xf4")
    return bytes(memory)
