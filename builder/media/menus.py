"""The edited GRUB menus of a medium."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.errors import RemasterError
from builder.media.grub import SerialPort, edit_menu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.media.image import Medium

PORTS = {"amd64": SerialPort(), "i386": SerialPort()}
"""Where GRUB can drive the serial port itself; elsewhere the firmware's console is on it already."""


def edited_menus(medium: Medium, *, kernel_arguments: Sequence[str], timeout: int = 1) -> dict[str, bytes]:
    """Return the medium's GRUB menus with ``kernel_arguments`` in every entry, by absolute path.

    ``timeout`` is in seconds. Raises RemasterError if the medium has no menu that starts its installer.
    """
    if not medium.menus:
        raise RemasterError(
            f"`{medium.path}` has no GRUB menu that starts the installer.",
            hint="Use a live-server ISO, 22.04 or newer.",
        )
    serial = PORTS.get(medium.arch or "")
    return {
        name: edit_menu(
            text.decode("utf-8", "surrogateescape"), kernel_arguments=kernel_arguments, serial=serial, timeout=timeout
        ).encode("utf-8", "surrogateescape")
        for name, text in medium.menus.items()
    }
