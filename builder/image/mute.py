"""What to say of a machine that offered no login on its serial port, from what its screen shows. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.errors import StalledError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ASKS = re.compile(r"\blogin: ?$")
NOTHING = re.compile(r"No bootable device|no bootable (?:option|medium)|Boot failed|Non-System disk", re.IGNORECASE)
PASSPHRASE = re.compile(r"unlock disk|passphrase for", re.IGNORECASE)
CONSOLE = (
    "prebake looks at a system through its serial port. On the system itself: put console=tty0 console=ttyS0,115200n8 "
    "into GRUB_CMDLINE_LINUX in /etc/default/grub, then run update-grub."
)


def unanswered(error: StalledError, heard: Sequence[str], shown: Sequence[str], picture: Path | None) -> StalledError:
    """Return ``error`` in words that say what the machine does instead.

    ``heard`` are the last lines on the serial port, ``shown`` those of the screen if it shows text, ``picture`` is the
    file with its picture, if there is one. An error about a prompt that came is not for here.
    """
    where = f" (its picture: {picture.name})" if picture else ""
    said = f"{error.message} It says nothing on its serial port."
    if heard:
        found = StalledError(
            f"{error.message} It says something on its serial port, but offers no login there.",
            hint=f"Is it a Linux system with a login on its serial port? {CONSOLE}",
            console=heard,
        )
    elif any(ASKS.search(row.rstrip()) for row in shown):
        found = StalledError(
            f"The image boots, but has no serial console: its screen shows a login prompt{where}. {error.message}",
            hint=CONSOLE,
            console=shown,
        )
    elif any(PASSPHRASE.search(row) for row in shown):
        found = StalledError(
            f"Its disk is encrypted: its screen asks for the passphrase{where}. {said}",
            hint="An image for others must start by itself: take the encryption away.",
            console=shown,
        )
    elif any(NOTHING.search(row) for row in shown):
        found = StalledError(
            f"The firmware found nothing to boot, as its screen says{where}. {said}",
            hint="Has the image a boot loader for this firmware? --firmware names another.",
            console=shown,
        )
    elif shown:
        found = StalledError(
            f"{said} These words are on its screen{where}; no Linux login is among them.",
            hint=f"Is it a Linux system at all? {CONSOLE}",
            console=shown,
        )
    else:
        seen = f"Its screen shows a picture: {picture.name}." if picture else "It has no screen."
        found = StalledError(f"{said} {seen}", hint=f"Look at the picture. {CONSOLE}")
    found.evidence = picture
    return found
