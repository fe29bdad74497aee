"""Reads the words on a PC's text screen: what BIOS and boot loader say before anything reaches a serial line."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import MachineError
from builder.vm.activity import ANSWER

if TYPE_CHECKING:
    from builder.vm.machine import Machine

MEMORY = 0xB8000
"""Where a VGA card in text mode shows its screen: a character and its colours in turn, a byte each."""
COLUMNS, ROWS = 80, 25
ARROWS = bytes((0x10, 0x11, 0x18, 0x19, 0x1A, 0x1B))
"""The only signs below the blank that firmware and boot loaders draw."""


def text(machine: Machine) -> list[str]:
    """Return the lines on the text screen of a running machine, without blanks at their ends and empty last lines.

    Empty where there is none: another architecture, another mode, a machine that is gone.
    """
    if machine.spec.arch != "amd64" or not machine.spec.display:
        return []
    with tempfile.TemporaryDirectory(prefix="prebake-") as folder, contextlib.suppress(MachineError, OSError):
        path = Path(folder, "screen")
        where = {"val": MEMORY, "size": COLUMNS * ROWS * 2, "filename": str(path)}
        machine.execute("pmemsave", where, timeout=ANSWER)
        return lines(path.read_bytes())
    return []


def lines(memory: bytes) -> list[str]:
    """Return the lines in the text screen's ``memory`` (code page 437); none if it does not hold text."""
    characters = memory[::2]
    if len(characters) != COLUMNS * ROWS or any(0 < one < ord(" ") and one not in ARROWS for one in characters):
        return []
    shown = characters.replace(b"\0", b" ").decode("cp437")
    rows = [shown[start : start + COLUMNS].rstrip() for start in range(0, COLUMNS * ROWS, COLUMNS)]
    while rows and not rows[-1]:
        rows.pop()
    return rows
